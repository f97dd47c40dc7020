"""kill -9 of each program."""

import contextlib
import os
import signal

from . import processes
from .injector import Fault


class Kill(Fault):
    """Of a program that the harness has started: its wait status is the proof."""

    def strike(self):
        self.proof = {"pid": self.victim.pid, "wait_status": self.victim.kill()}

    def struck(self):
        return self.proof["wait_status"] == -signal.SIGKILL


class KillServer(Kill):
    kind = "kill server"

    @staticmethod
    def candidates(fleet):
        return [fleet.leader] if fleet.leader else []

    def strike(self):
        super().strike()
        self.lasts = self.chance.uniform(0, 1)

    def lift(self):
        self.victim.start()


class KillWorker(Kill):
    kind = "kill worker"

    @staticmethod
    def candidates(fleet):
        return list(fleet.workers)

    def strike(self):
        super().strike()
        self.lasts = self.chance.uniform(0, 1)

    def prove(self):
        """Its trainers die with it."""
        return not any(processes.lives(trainer.pid) for trainer in self.work)

    def lift(self):
        self.victim.start()


class KillTrainer(Fault):
    kind = "kill trainer"

    @staticmethod
    def candidates(fleet):
        return list(fleet.workers)

    def __init__(self, fleet, victim, work, chance):
        super().__init__(fleet, victim, [chance.choice(work)], chance)

    def strike(self):
        self._log = self.victim.log()
        self.proof = {"pid": self.work[0].pid}
        with contextlib.suppress(ProcessLookupError):  # it has just ended: no proof, then
            os.kill(self.work[0].pid, signal.SIGKILL)

    def prove(self):
        """The worker, whose child it was, tells how it ended."""
        for line in self._log.records():
            if line.get("run") and "killed" in line["message"]:
                self.proof.update(worker_said=line["message"], run=line["run"], attempt=line["attempt"])
        return "worker_said" in self.proof

    def recovered(self, mark):
        """Its run was started again, or needs not to be."""
        return self.work[0].measured or any(trainer.run == self.work[0].run and trainer is not self.work[0]
                                            for trainer in self.fleet.trainers.all())


class KillClient(Kill):
    kind = "kill client"

    @staticmethod
    def candidates(fleet):
        return list(fleet.clients)
