#include "worker/trainer/failure.h"

#include <c10/util/Exception.h>

#include <new>

#include "worker/trainer/out_of_memory.h"

namespace attnfleet::trainer {

Failure DescribeCurrentException() {
  try {
    throw;
  } catch (const c10::OutOfMemoryError& error) {
    return {true, error.what_without_backtrace()};
  } catch (const std::bad_alloc&) {
    return {true, kHostMemoryUsedUp};
  } catch (const c10::Error& error) {
    const std::string message = error.what_without_backtrace();
    return {IsOutOfMemory(message), message};
  } catch (const std::exception& error) {
    return {false, error.what()};
  }
}

}  // namespace attnfleet::trainer
