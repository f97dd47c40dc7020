"""A fleet of real processes for faults to happen to: one server or two, workers, and clients that always want more.

What it is made of differs by flavour, since not every fault can happen to every fleet.
"""

import contextlib
import dataclasses
import json
import os
import signal
import threading
import time

from harness import BIN, OK, E2ETest, free_address, wait_until
from postgres import Postgres

from . import surroundings
from .benchmark import Benchmark
from .clock import Clock
from .disk import Disk
from .members import Client, Database, Server, StreamProxy, Worker
from .proxy import Loop, Proxy
from .trainers import Trainers

WORKERS = 4
CLIENTS = 3
DISK_MEGABYTES = {"server": 16, "worker": 1}


@dataclasses.dataclass(frozen=True)
class Flavour:
    name: str
    shared: bool = False   # two servers on one PostgreSQL, and no proxies: a standby names the leader's own address
    layered: bool = False  # clocks of the programs' own, where possible, and between each worker and the server a proxy
                           # that knows the protocol


FLAVOURS = {flavour.name: flavour for flavour in
            (Flavour("plain"), Flavour("shared", shared=True), Flavour("layered", layered=True))}


class Fleet(E2ETest):
    """Uses what end-to-end tests use, outside of any test."""

    BENCHMARK_LIMIT = 300.0  # seconds that a benchmark may take under fire
    ENDING_LIMIT = 120.0     # ... and after the last fault; a stuck one takes for ever

    def __init__(self, flavour, lease):
        super().__init__()
        self.flavour = flavour
        self.lease = lease  # seconds
        self.draining = threading.Event()
        self.benchmarks = []
        self.violations = []
        self.servers, self.workers, self.clients = [], [], []
        self.postgres = None
        self._lock = threading.Lock()

    def runTest(self):
        """unittest wants one."""

    def counter(self):
        with self._lock:
            return super().counter()

    def setUp(self):
        super().setUp()
        self.ends = self.dir / "double.ends"
        self.trainers = Trainers(self.double_log, self.ends)
        self.proxies = Loop()
        self.servers = [Server(self, f"server{i}", free_address()) for i in range(2 if self.flavour.shared else 1)]
        if self.flavour.shared:
            self.postgres = Postgres()
            self.database = Database(self, self.postgres)
            for server in self.servers:  # one fault at a time for them and their database
                server.lock = self.database.lock
        self.workers = [self._make(Worker, f"w{i}") for i in range(WORKERS)]
        self.clients = [self._make(Client, f"client{i}") for i in range(CLIENTS)]
        for member in (*self.servers, *self.workers):
            if self.flavour.layered and not surroundings.why_no_clocks(BIN / "attnfleet-server"):
                member.clock = Clock(self.dir / f"clock-{member.name}")
            if not surroundings.why_no_disks() and not (self.flavour.shared and member in self.servers):
                kind = "server" if member in self.servers else "worker"
                member.disk = Disk(self.dir / f"disk-{member.name}", DISK_MEGABYTES[kind])
        for server in self.servers:
            server.start()
        for worker in self.workers:
            worker.start()
        for client in self.clients:
            client.start_thread()

    def _make(self, kind, name):
        if self.flavour.shared:
            return kind(self, name, ",".join(server.address for server in self.servers))
        proxy = Proxy(self.proxies, free_address(), self.servers[0].address)
        member = kind(self, name, proxy.address)
        member.proxy = proxy
        if self.flavour.layered and kind is Worker:
            member.messages = StreamProxy(self, f"messages-{name}", free_address(), proxy.address)
            member.messages.start()
            member.servers = member.messages.address
        return member

    @property
    def members(self):
        streams = [worker.messages for worker in self.workers if worker.messages]
        return [*self.servers, *self.workers, *self.clients, *streams]

    @property
    def leader(self):
        """The server that leads; None while there is none."""
        if not self.flavour.shared:
            return self.servers[0]
        return next((server for server in self.servers if server.leads()), None)

    def next_benchmark(self):
        with self._lock:
            self.benchmarks.append(Benchmark(len(self.benchmarks) + 1, self.marker[-8:]))
            return self.benchmarks[-1]

    def violation(self, text):
        self.violations.append(text)

    # The end

    def finish(self):
        """Lets the work end, and collects what is wrong."""
        self.draining.set()
        deadline = time.monotonic() + self.ENDING_LIMIT
        for client in self.clients:
            if not client.join(max(0, deadline - time.monotonic())):
                self.violation(f"{client.name} still waits for a benchmark {self.ENDING_LIMIT} s after the last fault")
        if not self.violations:
            self._check_results()
        self._stop_all()

    def told(self):
        """How much work there was."""
        runs = [run for benchmark in self.benchmarks if benchmark.results
                for same in benchmark.runs().values() for run in same]
        return {"benchmarks": len(self.benchmarks), "runs": len(runs), "attempts": sum(run["attempt"] for run in runs),
                "trainers": len(self.trainers.all())}

    def _check_results(self):
        trainers = self.trainers.all()
        servers = f"--server={','.join(server.address for server in self.servers)}"
        for benchmark in self.benchmarks:
            self.violations += benchmark.problems(trainers)
            self.violations += benchmark.differences(self.results(servers, benchmark.number))
        listed = {int(entry["id"]) for entry in
                  json.loads(self.attnfleet("list", servers, "--limit=1000", "--format=json").stdout)["benchmarks"]}
        submitted = {int(benchmark.number) for benchmark in self.benchmarks}
        if listed != submitted or len(submitted) != len(self.benchmarks):
            self.violation(f"benchmarks {sorted(listed)} are listed, {sorted(submitted)} were submitted")
        known = {place for benchmark in self.benchmarks for place in benchmark.runs()}
        self.violations += [f"a trainer was started for run {trainer.run}, which nobody wants"
                            for trainer in trainers if trainer.run not in known]
        wait_until("the last trainers to end", lambda: not self.running("attnfleet-trainer-double"))

    def _stop_all(self):
        for member in (*self.workers, *self.servers, *(w.messages for w in self.workers if w.messages)):
            if member.died_by_itself():
                self.violation(f"{member.name} died by itself\n{member.program.dump()}")
            elif member.wanted and (status := member.stop()) != OK:
                self.violation(f"{member.name} ended with {status}\n{member.program.dump()}")
        if not self.violations:
            store = f"--store={self.postgres.url}" if self.postgres else f"--state-dir={self.servers[0].state}"
            check, status = self.run_program("attnfleet-server", "check", store)
            if status != OK:
                self.violation(f"the store is not consistent\n{check.dump()}")
        try:
            self.assert_nothing_left()
        except AssertionError as error:
            self.violation(f"something is left: {error}")

    def tearDown(self):
        self.draining.set()
        for pid in self.running():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for client in self.clients:
            client.join(10)
        self.proxies.stop()
        for member in self.members:
            if member.disk:
                member.disk.remove()
        if self.postgres:
            self.postgres.remove()
        super().tearDown()
