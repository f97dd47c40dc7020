"""What this machine lets a fault harness do. Where namespaces are possible, a fleet runs in namespaces of its own: in
that of the network packets can be dropped, in that of mounts disks can be small, and with that of processes everything
ends that the fleet has started, also when the harness itself is killed."""

import os
import pathlib
import shutil
import subprocess

INSIDE = "ATTNFLEET_FAULTS_INSIDE"  # set for a fleet in namespaces of its own
ENTER = ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--mount", "--propagation", "private", "--pid",
         "--mount-proc", "--fork", "--kill-child", "sh", "-c", f'ip link set lo up && {INSIDE}=1 exec "$@"', "-"]


def _works(*argv):
    return shutil.which(argv[0]) is not None and subprocess.run(argv, capture_output=True).returncode == 0


def enter():
    """The command prefix that leads into them, or [] where they are not possible."""
    return ENTER if _works(*ENTER, "true") else []


def inside():
    return bool(os.environ.get(INSIDE))


def libfaketime():
    found = sorted(pathlib.Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    return found[0] if found else None


def sanitized(program):
    return b"__asan_init" in program.read_bytes()


def why_no_packets():
    if not inside():
        return "no right to make a network namespace here"
    return None if _works("nft", "list", "ruleset") else "nftables is not installed"


def why_no_disks():
    return None if inside() else "no right to make a mount namespace here"


def why_no_clocks(program):
    if libfaketime() is None:
        return "libfaketime is not installed"
    return "a sanitizer's run-time library must come before libfaketime" if sanitized(program) else None


def why_no_database():
    return None if shutil.which("pg_config") else "PostgreSQL is not installed"
