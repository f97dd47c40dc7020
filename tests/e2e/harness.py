"""Drives the real programs: starts them, sees them die, and proves that nothing is left running.

Standard library only. The programs come from ATTNFLEET_BIN (set by CTest). Every process started here carries a marker
in its environment, so that whatever one of them leaves behind is found in /proc, whoever its parent is by then.
"""

import contextlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import uuid

BIN = pathlib.Path(os.environ.get("ATTNFLEET_BIN", "build/release/bin")).resolve()
DOUBLE = BIN / "attnfleet-trainer-double"
FAKE_NVML = BIN / "fake-nvml"  # for LD_LIBRARY_PATH: a driver with two GPUs
# The sanitizers slow everything down; a wait only has to end, so it may be long.
PATIENCE = 60.0

OK, FAILED, USAGE, UNAVAILABLE, REFUSED, INTERRUPTED = 0, 1, 2, 3, 4, 130


def wait_until(what, condition, timeout=PATIENCE):
    """Polls until condition() is true and returns its value; fails naming `what`."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:.0f} s in vain for: {what}")
        time.sleep(0.02)


def have_mount_namespace():
    """Whether this user may make a mount namespace, where a disk can be small or read-only even for root."""
    probe = ["unshare", "--mount", "--propagation", "private", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return shutil.which("unshare") and subprocess.run(probe, capture_output=True).returncode == 0


needs_mounts = unittest.skipUnless(have_mount_namespace(), "no right to make a mount namespace here")


class Program:
    """A started program with its output in files."""

    def __init__(self, test, name, argv, env):
        self.name = name
        self.stdout_path = test.dir / f"{name}.{test.counter()}.out"
        self.stderr_path = self.stdout_path.with_suffix(".err")
        with open(self.stdout_path, "wb") as out, open(self.stderr_path, "wb") as err:
            self.process = subprocess.Popen([str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                                            env=env, start_new_session=True)
        self.pid = self.process.pid

    @property
    def stdout(self):
        return self.stdout_path.read_text(errors="replace")

    @property
    def stderr(self):
        return self.stderr_path.read_text(errors="replace")

    def wait(self, timeout=PATIENCE):
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} did not end within {timeout:.0f} s\n{self.dump()}") from None

    def wait_for_line(self, pattern):
        """Waits for a line on standard output and returns the match."""
        def found():
            match = re.search(pattern, self.stdout, re.MULTILINE)
            if not match and self.process.poll() is not None:
                raise AssertionError(f"{self.name} ended with {self.process.returncode} before /{pattern}/\n{self.dump()}")
            return match
        return wait_until(f"/{pattern}/ from {self.name}", found)

    def kill(self, how=signal.SIGKILL):
        self.process.send_signal(how)

    def dump(self):
        return f"--- {self.name} stdout\n{self.stdout}--- {self.name} stderr\n{self.stderr}---"


def free_address():
    """A loopback address to listen on, also a second time: its port is none that the kernel gives out by itself, to a
    connection of some other test, say."""
    first_of_kernel = int(pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(100):
        port = random.randrange(10_000, first_of_kernel) if first_of_kernel > 10_000 else 0
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return "127.0.0.1:%d" % probe.getsockname()[1]
    raise AssertionError("no free port in 100 tries")


class E2ETest(unittest.TestCase):
    """A folder, a marker and the programs of one test."""

    maxDiff = None

    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="attnfleet-e2e-"))
        self.marker = f"ATTNFLEET_E2E={uuid.uuid4().hex}"
        self._counter = 0
        self.double_log = self.dir / "double.log"
        self.state = self.dir / "state"
        self.runtime = self.dir / "runtime"
        self.runtime.mkdir(mode=0o700)
        self.programs = []

    def tearDown(self):
        failed = any(error for _, error in getattr(self._outcome, "errors", [])) or \
            (getattr(self._outcome, "result", None) and any(t is self for t, _ in
             self._outcome.result.failures + self._outcome.result.errors))
        if failed:
            for program in self.programs:
                print(program.dump(), file=sys.stderr)
            for log in sorted(self.dir.rglob("*.log")):
                print(f"--- {log.name}\n{log.read_text(errors='replace')[-4000:]}", file=sys.stderr)
        left = self.running()
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for program in self.programs:
            with contextlib.suppress(Exception):
                program.process.wait(5)
        shutil.rmtree(self.dir, ignore_errors=True)

    def counter(self):
        self._counter += 1
        return self._counter

    # Processes

    def environment(self, double="", **extra):
        env = {k: v for k, v in os.environ.items() if not k.startswith("ATTNFLEET_")}
        name, value = self.marker.split("=")
        env.update({name: value, "ATTNFLEET_DOUBLE": double, "ATTNFLEET_DOUBLE_LOG": str(self.double_log),
                    "XDG_RUNTIME_DIR": str(self.runtime), "XDG_STATE_HOME": str(self.dir / "xdg"), "NO_COLOR": "1",
                    "COLUMNS": "160", "LC_ALL": "C.UTF-8"})
        env.update(extra)
        return env

    def start(self, name, *args, double="", prefix=(), programs=BIN, **extra):
        program = Program(self, name, [*prefix, programs / name, *args], self.environment(double, **extra))
        self.programs.append(program)
        return program

    def start_other(self, name, argv):
        """A program that is not attnfleet's."""
        program = Program(self, name, argv, self.environment())
        self.programs.append(program)
        return program

    def run_program(self, name, *args, double="", prefix=(), timeout=PATIENCE, **extra):
        """Runs to the end; returns the Program and its exit status."""
        program = self.start(name, *args, double=double, prefix=prefix, **extra)
        return program, program.wait(timeout)

    def attnfleet(self, *args, expect=OK, **kwargs):
        """The client, run to the end with the exit status that is expected."""
        program, status = self.run_program("attnfleet", *args, **kwargs)
        self.assertEqual(status, expect, program.dump())
        return program

    def running(self, name=None):
        """Living processes of this test (by executable name), from /proc."""
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                if self.marker.encode() not in (entry / "environ").read_bytes().split(b"\0"):
                    continue
                stat = (entry / "stat").read_text()
                if stat.rsplit(")", 1)[1].split()[0] in "ZX":
                    continue
                executable = os.path.basename(os.readlink(entry / "exe"))
                if name is None or executable == name:
                    found.append(int(entry.name))
        return found

    def assert_nothing_left(self):
        """No process of this test lives on, and no private folder is left."""
        wait_until("every process to be gone", lambda: not self.running(), 15)
        self.assertEqual(list(self.runtime.iterdir()), [], "left in XDG_RUNTIME_DIR")

    def wait_for_process(self, name):
        return wait_until(f"a process {name}", lambda: self.running(name))[0]

    # The double's log: one line for each trainer that was started for a run

    def trainer_starts(self):
        if not self.double_log.exists():
            return []
        return [line for line in self.double_log.read_text().splitlines() if line]

    # A private ("embedded") benchmark

    def run_args(self, *args):
        return ["run", f"--state-dir={self.state}", f"--trainer={DOUBLE}", "--device=cpu", *args]

    def local(self, *args):
        """A command on the local store."""
        return [args[0], f"--state-dir={self.state}", *args[1:]]

    # A server with workers

    def start_server(self, *args, listen="127.0.0.1:0", state=None, **kwargs):
        server = self.start("attnfleet-server", f"--listen={listen}", f"--state-dir={state or self.dir / 'server'}",
                            "--metrics-listen=off", "--lease=2s", "--heartbeat=300ms", *args, **kwargs)
        server.address = server.wait_for_line(r"^ready (\S+)$").group(1)
        return server

    def start_worker(self, server, name="w1", *args, slots="cpu", state=None, wait=True, **kwargs):
        address = server if isinstance(server, str) else server.address
        worker = self.start("attnfleet-worker", f"--server={address}", f"--name={name}", f"--slots={slots}",
                            f"--state-dir={state or self.dir / ('worker-' + name)}", f"--trainer={DOUBLE}", *args,
                            **kwargs)
        if wait:
            worker.wait_for_line(r"^ready ")
        return worker

    # Results

    def results(self, *args):
        """`attnfleet results --format=json`, parsed."""
        return json.loads(self.attnfleet("results", "--format=json", *args).stdout)

    def local_results(self):
        return self.results(f"--state-dir={self.state}")

    @staticmethod
    def runs(benchmark):
        return [run for job in benchmark["jobs"] for run in job["runs"]]

    def outcomes(self, benchmark):
        """{outcome: how many runs}, without the OUTCOME_ prefix."""
        counts = {}
        for run in self.runs(benchmark):
            outcome = run.get("result", {}).get("outcome", "none").removeprefix("OUTCOME_")
            counts[outcome] = counts.get(outcome, 0) + 1
        return counts
