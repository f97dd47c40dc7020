#!/usr/bin/env bash
# Sets up like deploy/quickstart.sh and runs every test: formatting, the release build's tests (pure logic, the model,
# the real programs with faults, the GPU where there is one), then the sanitizers, and the fuzzers for some seconds. Each
# build compiles only what its tests need.  bash tests/run.sh [release|asan|tsan|fuzz|format ...]   default all
# `bash tests/run.sh faults [ARGUMENT ...]` runs the campaign of faults instead, with what it needs for every kind.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../deploy/setup.sh"

if [ "${1:-}" = faults ]; then
  setup_packages postgresql nftables faketime
  setup_libtorch
  setup_build release attnfleet_server_main attnfleet_worker_main attnfleet_client_main attnfleet_trainer_double \
    attnfleet_stream_proxy
  cd "$project"
  exec python3 -B tests/e2e/fault_campaign.py "${@:2}"
fi

# The tests that failed, and the ends of what they printed, once more when all is over: of an output as long as this
# script's often only the end is kept.
failed=()
tell_failures() {
  local part logs
  for part in "${failed[@]}"; do
    logs=build/$part/Testing/Temporary
    [ -s "$logs/LastTestsFailed.log" ] || continue
    say "What failed in preset $part (whole: $logs/LastTest.log): $(cut -d: -f2- "$logs/LastTestsFailed.log" | tr '\n' ' ')"
    awk -v most=60 '
      /^[0-9]+\/[0-9]+ Testing: / { count = 0; taken = 1 }
      taken { lines[count++] = $0 }
      /^Test Failed\.$|^Test Fail Reason:/ {
        for (i = 0; i < count; ++i) if (i < 2 || i >= count - most) print lines[i]
        print ""
      }
      /^Test (Failed|Passed)\.$|^Test Fail Reason:/ { taken = 0 }' "$logs/LastTest.log" >&2
  done
}
trap tell_failures EXIT

[ $# -gt 0 ] || set -- format fuzz asan tsan release
# llvm-symbolizer: ThreadSanitizer's suppressions need names. git: the upgrade tests build release 0 from the history.
setup_packages postgresql llvm git
setup_prometheus
setup_libtorch
setup_cuda
cd "$project"
for part in "$@"; do
  case $part in
    format)
      say "Checking the format"
      find proto server worker client tests \( -name '*.h' -o -name '*.cc' -o -name '*.cu' -o -name '*.cuh' \) -print0 |
        xargs -0 clang-format --dry-run --Werror || failed+=(format) ;;
    asan | release)
      setup_build "$part"
      say "Testing preset $part"
      ctest --preset "$part" || failed+=("$part") ;;
    tsan)
      setup_build tsan tsan_tests
      say "Testing preset tsan"
      ctest --preset tsan || failed+=(tsan) ;;
    fuzz)
      setup_build fuzz fuzzers
      say "Testing preset fuzz"
      ctest --preset fuzz || failed+=(fuzz) ;;
    *) die "unknown part \"$part\"; available: format, fuzz, asan, tsan, release" ;;
  esac
done
[ ${#failed[@]} -eq 0 ] || die "failed: ${failed[*]}"
say "All passed: $*"
