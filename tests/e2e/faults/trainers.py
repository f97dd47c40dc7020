"""Which trainers run, from what the double writes as it starts and as it has measured."""

import re
import threading
import time

from . import processes
from .journal import Tail

SEEDS_PER_BENCHMARK = 1000


class Trainer:
    """One process for one attempt of one run. Its seed tells the benchmark and the repetition."""

    def __init__(self, pid, arguments):
        def value(name):
            return re.search(rf"--{name}=(\S+)", arguments).group(1)
        self.pid = pid
        self.worker = int(value("parent-pid"))
        seed = int(value("seed"))
        self.benchmark = seed // SEEDS_PER_BENCHMARK
        self.cell = (value("backend"), f"{value('batch')}x{value('sequence-length')}")
        self.repetition = seed % SEEDS_PER_BENCHMARK
        self.started = time.monotonic()
        self.measured = False

    @property
    def run(self):
        return (self.benchmark, *self.cell, self.repetition)

    def in_progress(self):
        """It lives and has nothing to report yet."""
        return not self.measured and processes.lives(self.pid)


class Trainers:
    def __init__(self, starts, ends):
        self._starts, self._ends = Tail(starts), Tail(ends)
        self._lock = threading.Lock()
        self._all = []
        self._by_pid = {}
        self._open = []  # those that may be in progress

    def _read(self):
        ends = self._ends.lines()  # first, so that each has its start among the following
        for line in self._starts.lines():
            pid, arguments = line.split(" ", 1)
            trainer = self._by_pid[int(pid)] = Trainer(int(pid), arguments)
            self._all.append(trainer)
            self._open.append(trainer)
        for line in ends:
            self._by_pid[int(line)].measured = True

    def all(self):
        with self._lock:
            self._read()
            return list(self._all)

    def in_progress(self, belongs=lambda trainer: True):
        with self._lock:
            self._read()
            self._open = [trainer for trainer in self._open if trainer.in_progress()]
            return [trainer for trainer in self._open if belongs(trainer)]

    def started_since(self, when, belongs=lambda trainer: True):
        return [trainer for trainer in self.all() if trainer.started >= when and belongs(trainer)]
