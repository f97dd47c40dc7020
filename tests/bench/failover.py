#!/usr/bin/env python3
"""How long a fleet stands still when its leader is killed. A benchmark, not a test.

    python3 tests/bench/failover.py --bin build/release/bin [--times 20]

Two servers share a PostgreSQL database; a worker runs a long benchmark of the trainer double. The leader is killed with
SIGKILL while runs are on the slots; what is measured is the time from there to the first trainer that the other server
has started, told from the trainer's own log, and the time until it leads. Then the killed one is started again, as the
new standby. At the end every run must have been measured, and the store must be consistent.
"""

import argparse
import json
import os
import pathlib
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "e2e"))
from postgres import Postgres  # noqa: E402

PATIENCE = 120.0


def wait_until(what, condition):
    deadline = time.monotonic() + PATIENCE
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {PATIENCE:.0f} s in vain for {what}")
        time.sleep(0.005)


class Server:
    def __init__(self, binaries, folder, url):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = "127.0.0.1:%d" % probe.getsockname()[1]
        self.argv = [binaries / "attnfleet-server", f"--listen={self.address}", f"--store={url}",
                     "--metrics-listen=off", "--lease=60s"]
        self.log = folder / f"server-{self.address.rpartition(':')[2]}.log"
        self.start()

    def start(self):
        self.begin = self.log.stat().st_size if self.log.exists() else 0
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.argv, stdout=subprocess.PIPE, stderr=log, text=True)
        if not self.process.stdout.readline().startswith("ready "):
            raise SystemExit(f"a server did not start:\n{self.log.read_text()}")

    def leads(self):
        return re.search("leads, epoch", self.log.read_text()[self.begin:])

    def kill(self):
        self.process.kill()
        self.process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=pathlib.Path, default=pathlib.Path("build/release/bin"))
    parser.add_argument("--times", type=int, default=20)
    options = parser.parse_args()
    binaries = options.bin.resolve()
    postgres = Postgres()
    worker = None
    servers = []
    with tempfile.TemporaryDirectory(prefix="attnfleet-failover-") as name:
        folder = pathlib.Path(name)
        starts_log = folder / "starts"
        starts_log.touch()

        def starts():
            return starts_log.read_bytes().count(b"\n")

        def client(*args):
            argv = [binaries / "attnfleet", *args, "--server=" + ",".join(s.address for s in servers)]
            return subprocess.run(argv, check=True, capture_output=True, text=True).stdout

        try:
            servers = [Server(binaries, folder, postgres.url)]
            wait_until("the first server to lead", servers[0].leads)
            servers.append(Server(binaries, folder, postgres.url))
            environment = {**os.environ, "ATTNFLEET_DOUBLE": "eager:slow=0.1,sdpa:slow=0.1",
                           "ATTNFLEET_DOUBLE_LOG": str(starts_log)}
            worker = subprocess.Popen(
                [binaries / "attnfleet-worker", "--server=" + ",".join(s.address for s in servers), "--slots=cpu:2",
                 f"--state-dir={folder}/worker", f"--trainer={binaries}/attnfleet-trainer-double", "--name=bench"],
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment)
            worker.stdout.readline()
            # More runs than can end meanwhile; the rest is cancelled.
            number = client("submit", "--preset=tiny", "--repetitions=1000").split()[0]
            leading, assigning = [], []
            for count in range(options.times):
                seen = starts()
                wait_until("runs to go on", lambda: starts() >= seen + 4)
                leader, standby = sorted(servers, key=lambda s: not s.leads())
                begin = time.monotonic()
                leader.kill()
                # What the killed one had given out has started by then, or starts in the next instant.
                time.sleep(0.05)
                seen = starts()
                wait_until("the standby to lead", standby.leads)
                leading.append(time.monotonic() - begin)
                wait_until("a run of the new leader", lambda: starts() > seen)
                assigning.append(time.monotonic() - begin)
                print(f"{count + 1}: leads after {leading[-1]:.2f} s, first assignment after {assigning[-1]:.2f} s",
                      flush=True)
                leader.start()
            client("cancel", number)
            runs = [run for job in json.loads(client("results", number, "--format=json"))["jobs"]
                    for run in job["runs"]]
            outcomes = {}
            for run in runs:
                outcome = run["result"]["outcome"].removeprefix("OUTCOME_").lower()
                outcomes[outcome] = outcomes.get(outcome, 0) + 1
            again = sum(run["attempt"] > 1 for run in runs)
            check = subprocess.run([binaries / "attnfleet-server", "check", f"--store={postgres.url}"],
                                   capture_output=True, text=True)
            print(f"{starts()} trainers started; runs: {outcomes}; of them with a second attempt: {again}")
            print(check.stdout.strip().splitlines()[-1])
            for what, values in (("to lead", leading), ("to the first assignment", assigning)):
                print(f"{what}: median {statistics.median(values):.2f} s, max {max(values):.2f} s of {len(values)}")
        finally:
            for process in [worker, *(s.process for s in servers)]:
                if process and process.poll() is None:
                    process.send_signal(signal.SIGTERM)
                    process.wait(30)
            postgres.remove()


if __name__ == "__main__":
    main()
