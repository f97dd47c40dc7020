#!/usr/bin/env bash
# Sets up, builds and runs a first benchmark on this machine: on its GPU where there is an NVIDIA driver, else on the
# CPU with a small model. Arguments go to `attnfleet run` in place of the default ones:
#   bash deploy/quickstart.sh
#   bash deploy/quickstart.sh --backends=eager,sdpa --shapes=32x128,32x512
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

setup_packages
setup_libtorch
setup_cuda
setup_build release programs

attnfleet=$project/build/release/bin/attnfleet
if [ $# -eq 0 ]; then
  if nvidia-smi -L >/dev/null 2>&1; then set -- --shapes=8x128,8x512; else set -- --preset=tiny; fi
fi
say "Running: attnfleet run $*"
status=0
"$attnfleet" run "$@" || status=$?
cat >&2 <<EOF

The programs are in build/release/bin. Next:
  build/release/bin/attnfleet results          the same table again
  build/release/bin/attnfleet run --help       benchmarks of your own
  cmake --install build/release --prefix DIR   one relocatable folder for other machines
EOF
exit $status
