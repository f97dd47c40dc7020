# Sourced by deploy/quickstart.sh and tests/run.sh: installs what is missing and builds. Asks nothing, says what it does,
# and is quick when there is nothing to do. Debian 12; Ubuntu 24.04 has the same package names but is untried.
#
#   setup_packages               compilers, gRPC and the other libraries, from the distribution
#   setup_prometheus             prometheus and promtool, for the tests
#   setup_libtorch               LibTorch into .deps/python, from hash-pinned wheels
#   setup_cuda                   on a machine with an NVIDIA driver: CUDA libraries, and nvcc where none is found
#   setup_build PRESET [TARGET]  configures build/PRESET and builds the targets (all of them without one)

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
deps=$project/.deps

say() { printf '\n== %s\n' "$*" >&2; }
die() { printf 'attnfleet set-up: %s\n' "$*" >&2; exit 1; }

setup_packages() {
  local wanted=(g++ clang clang-format libclang-rt-dev ccache cmake ninja-build pkg-config ca-certificates python3 python3-pip
    libgrpc++-dev protobuf-compiler-grpc libprotobuf-dev protobuf-compiler libabsl-dev prometheus-cpp-dev libgtest-dev
    libgmock-dev libsqlite3-dev libssl-dev nlohmann-json3-dev libspdlog-dev openssl)
  local missing=() package sudo=()
  for package in "${wanted[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || die "these packages are missing and there is no sudo: ${missing[*]}"
    sudo=(sudo)
  fi
  command -v apt-get >/dev/null || die "no apt-get here; install what these Debian packages hold: ${missing[*]}"
  say "Installing packages: ${missing[*]}"
  "${sudo[@]}" apt-get update -q >&2 || die "apt-get update failed (see above)"
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}" >&2 ||
    die "apt-get install failed (see above)"
}

# Unpacked into .deps/prometheus, not installed: the package would start a service where there is systemd.
setup_prometheus() {
  command -v prometheus >/dev/null && command -v promtool >/dev/null && return 0
  [ ! -x "$deps/prometheus/usr/bin/promtool" ] || return 0
  local stage=$deps/stage
  say "Unpacking prometheus into .deps/prometheus"
  rm -rf "$stage"
  mkdir -p "$stage"
  (cd "$stage" && apt-get download -q prometheus >&2 && dpkg -x prometheus_*.deb prometheus) ||
    die "the package prometheus could not be downloaded and unpacked (see above; does apt-get update help?)"
  rm -rf "$deps/prometheus"
  mv "$stage/prometheus" "$deps/prometheus"
  rm -rf "$stage"
}

# install_wheels REQUIREMENTS: into .deps/python, once; its checksum remembers that it is there. By way of a folder of
# its own, since pip replaces a top-level folder (nvidia/) that several wheels share.
install_wheels() {
  local requirements=$1 stamp stage=$deps/stage
  stamp=$deps/$(basename "$requirements" .txt).sha256
  [ "$(cat "$stamp" 2>/dev/null)" != "$(sha256sum <"$requirements")" ] || return 0
  say "Installing the wheels of deploy/$(basename "$requirements") into .deps/python"
  rm -rf "$stage"
  mkdir -p "$stage" "$deps/python"
  python3 -m pip install --disable-pip-version-check --quiet --no-deps --no-compile --only-binary=:all: \
    --require-hashes --root-user-action=ignore --target "$stage" -r "$requirements" >&2 ||
    die "pip could not install $requirements (needs Python 3.11 or 3.12, the package registry and 4 GB of disk)"
  # The wheels are mostly Python; a C++ program needs these folders of torch, and all of nvidia.
  local kept
  for kept in "$stage"/torch/*; do
    case ${kept##*/} in lib | include | share | version.py) ;; *) rm -rf "$kept" ;; esac
  done
  for kept in "$stage"/*; do
    case ${kept##*/} in torch | nvidia) ;; *) rm -rf "$kept" ;; esac
  done
  cp -al "$stage/." "$deps/python/"
  rm -rf "$stage"
  sha256sum <"$requirements" >"$stamp"
}

setup_libtorch() {
  [ -n "${ATTNFLEET_TORCH:-}" ] || install_wheels "$project/deploy/libtorch.txt"
}

setup_cuda() {
  [ -e /proc/driver/nvidia/version ] || command -v nvidia-smi >/dev/null || return 0
  [ -n "${ATTNFLEET_TORCH:-}" ] || install_wheels "$project/deploy/libtorch-cuda.txt"
  command -v nvcc >/dev/null || [ -x /usr/local/cuda/bin/nvcc ] || install_wheels "$project/deploy/nvcc.txt"
}

setup_build() {
  local preset=$1 settings=()
  shift
  [ -z "${ATTNFLEET_TORCH:-}" ] || settings+=("-DATTNFLEET_TORCH=$ATTNFLEET_TORCH")
  say "Building preset $preset (first time: minutes; then seconds)"
  (cd "$project" && cmake --preset "$preset" "${settings[@]}" >"$project/.configure.log" 2>&1) || {
    cat "$project/.configure.log" >&2
    die "configuring failed (see above)"
  }
  grep -E '^-- attnfleet' "$project/.configure.log" >&2 || true
  local targets=()
  [ $# -eq 0 ] || targets=(--target "$@")
  (cd "$project" && cmake --build --preset "$preset" "${targets[@]}") >&2 || die "building failed (see above)"
}
