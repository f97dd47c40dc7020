#!/usr/bin/env bash
# build_release_0.sh FOLDER: builds the programs of release 0 (without the trainer, with its double) from git's history
# into FOLDER/source/build/release/bin, for the upgrade tests. Exit code 77, with the reason, where the history does not reach back so far.
set -euo pipefail
release_0=0f98c4065d23c27fe6e2ec1b2a094959890b1b04
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
folder=$1

if ! git -C "$project" cat-file -e "$release_0^{commit}" 2>/dev/null; then
  echo "skipped: this clone does not hold release 0 ($release_0); a full one does (git fetch --unshallow)"
  exit 77
fi
if [ "$(cat "$folder/commit" 2>/dev/null)" != "$release_0" ]; then
  rm -rf "$folder"
  mkdir -p "$folder/source"
  git -C "$project" archive "$release_0" | tar -x -C "$folder/source"
  echo "$release_0" >"$folder/commit"
fi
# As any clone builds it, so that ccache knows what one has compiled.
cd "$folder/source"
cmake --preset release -DATTNFLEET_TRAINER=OFF
cmake --build --preset release --target attnfleet_server_main attnfleet_worker_main attnfleet_client_main \
  attnfleet_trainer_double
