#!/usr/bin/env bash
# Makes double.json and double.md: results of the trainer double, for the test of the published tables. Only the host
# and the times differ from one making to the next.  bash tests/golden/results/make_results_fixture.sh BIN_FOLDER
set -euo pipefail
bin=$(realpath "${1:-build/release/bin}")
cd "$(dirname "${BASH_SOURCE[0]}")"
state=$(mktemp -d)
trap 'rm -rf "$state"' EXIT
export ATTNFLEET_DOUBLE_GPU=GPU-00000000-d0b1-0000-0000-000000000000
export ATTNFLEET_DOUBLE=eager@4x128:oom,sdpa@4x64:contaminated=2,flash2@4x128:unsupported
"$bin/attnfleet" run --preset=tiny --backends=eager,sdpa,flash2 --repetitions=3 --steps=4 --device=cpu \
  --dropout-placement=published --trainer="$bin/attnfleet-trainer-double" --state-dir="$state" --format=json \
  --output=double.json
sed -i 's/"submitter": ".*"/"submitter": "fixture"/' double.json  # whoever makes it
"$bin/attnfleet" results --input=double.json --format=markdown --output=double.md
