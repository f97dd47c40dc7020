#ifndef ATTNFLEET_TESTS_SERVER_FLEET_FIXTURE_H_
#define ATTNFLEET_TESTS_SERVER_FLEET_FIXTURE_H_

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "attnfleet/v1/worker.pb.h"
#include "proto/spec.h"
#include "proto/version.h"

namespace attnfleet::server {

// A complete, valid spec: the backends at as many shapes, with as many repetitions.
inline v1::BenchmarkSpec MakeSpec(const std::vector<std::string>& backends, int shapes, int repetitions) {
  v1::BenchmarkSpec spec;
  for (const std::string& backend : backends) spec.add_backends(backend);
  for (int i = 1; i <= shapes; ++i) {
    v1::Shape* shape = spec.add_shapes();
    shape->set_batch(i);
    shape->set_sequence_length(64);
  }
  spec.set_repetitions(repetitions);
  ApplyPreset(spec).IgnoreError();
  return spec;
}

// A worker with CPU slots "cpu0", "cpu1", ... and these backends.
inline v1::WorkerHello MakeHello(const std::string& name, int slots,
                                 const std::vector<std::string>& backends = {"eager", "sdpa"}) {
  v1::WorkerHello hello;
  v1::WorkerInfo& worker = *hello.mutable_worker();
  worker.set_name(name);
  worker.set_instance(name + "-1");
  worker.set_protocol(kProtocolVersion);
  for (int i = 0; i < slots; ++i) {
    v1::Slot* slot = worker.add_slots();
    slot->set_id(absl::StrCat("cpu", i));
    slot->set_device_kind(v1::DEVICE_KIND_CPU);
    slot->set_device_name("Test CPU");
  }
  for (const std::string& name_of_backend : backends) {
    v1::Backend* backend = worker.add_backends();
    backend->set_name(name_of_backend);
    backend->add_devices(v1::DEVICE_KIND_CPU);
  }
  return hello;
}

inline v1::RunReport MakeReport(const v1::StartRun& start, v1::Outcome outcome) {
  v1::RunReport report;
  *report.mutable_run() = start.run();
  report.set_attempt(start.attempt());
  report.set_slot(start.slot());
  report.mutable_result()->set_outcome(outcome);
  report.mutable_result()->set_reason(outcome == v1::OUTCOME_MEASURED ? "" : "for the test");
  report.mutable_result()->mutable_measurement()->set_iterations_per_second(10);
  return report;
}

inline v1::ActiveRun MakeActive(const v1::StartRun& start) {
  v1::ActiveRun active;
  *active.mutable_run() = start.run();
  active.set_attempt(start.attempt());
  active.set_slot(start.slot());
  return active;
}

}  // namespace attnfleet::server

#endif  // ATTNFLEET_TESTS_SERVER_FLEET_FIXTURE_H_
