# cmake -DSOURCE=DIR -DOUTPUT=FILE -P: writes a C++ file that holds the commit of the checkout, "-dirty" with changes;
# leaves the file alone where it would not change, so that nothing is compiled again.
set(id "")
find_program(git git)
if(git AND EXISTS ${SOURCE}/.git)
  execute_process(COMMAND ${git} describe --always --dirty WORKING_DIRECTORY ${SOURCE}
                  OUTPUT_VARIABLE id OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()
if(NOT id)
  set(id unknown)
endif()
set(text "#include \"worker/trainer/build_id.h\"

namespace attnfleet::trainer {

const char* BuildId() { return \"${id}\"; }

}  // namespace attnfleet::trainer
")
if(EXISTS ${OUTPUT})
  file(READ ${OUTPUT} old)
endif()
if(NOT "${old}" STREQUAL "${text}")
  file(WRITE ${OUTPUT} "${text}")
endif()
