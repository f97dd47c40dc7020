"""SIGSTOP for shorter and for longer than the lease, then SIGCONT."""

import contextlib
import os
import signal

from . import processes
from .injector import Fault


class Stop(Fault):
    def pid(self):
        return self.victim.pid

    def strike(self):
        self._pid = self.pid()
        self._signal(signal.SIGSTOP)
        self.proof = {"pid": self._pid}
        low, high = self.leases
        self.lasts = self.chance.uniform(low, high) * self.fleet.lease

    def prove(self):
        self.proof["state"] = processes.state(self._pid)
        return self.proof["state"] in ("T", "")

    def lift(self):
        self.proof["state_in_the_end"] = processes.state(self._pid)
        self._signal(signal.SIGCONT)

    def struck(self):
        return self.proof["state"] == self.proof["state_in_the_end"] == "T"

    def _signal(self, how):
        with contextlib.suppress(ProcessLookupError):  # it has just ended: no proof, then
            os.kill(self._pid, how)


class Short:
    leases = (0.2, 0.7)


class Long:
    leases = (1.3, 2.0)


class StopServer(Stop):
    @staticmethod
    def candidates(fleet):
        return [fleet.leader] if fleet.leader else []


class StopWorker(Stop):
    @staticmethod
    def candidates(fleet):
        return list(fleet.workers)


class StopTrainer(Stop):
    @staticmethod
    def candidates(fleet):
        return list(fleet.workers)

    def __init__(self, fleet, victim, work, chance):
        super().__init__(fleet, victim, [chance.choice(work)], chance)

    def pid(self):
        return self.work[0].pid

    def recovered(self, mark):
        """It measures after all; or is gone, if its worker was told to stop it meanwhile."""
        self.fleet.trainers.all()
        return not self.work[0].in_progress()


class StopClient(Stop):
    @staticmethod
    def candidates(fleet):
        return list(fleet.clients)


class StopServerShort(Short, StopServer):
    kind = "stop server within the lease"


class StopServerLong(Long, StopServer):
    kind = "stop server beyond the lease"


class StopWorkerShort(Short, StopWorker):
    kind = "stop worker within the lease"


class StopWorkerLong(Long, StopWorker):
    kind = "stop worker beyond the lease"

    def strike(self):
        leader = self.fleet.leader
        self._log = leader.log() if leader else None
        super().strike()

    def lift(self):
        lines = self._log.records() if self._log else []
        self.proof["server_said"] = [line["message"] for line in lines
                                     if f"worker {self.victim.name} was silent" in line["message"]]
        super().lift()


class StopTrainerShort(Short, StopTrainer):
    kind = "stop trainer within the lease"


class StopTrainerLong(Long, StopTrainer):
    kind = "stop trainer beyond the lease"


class StopClientShort(Short, StopClient):
    kind = "stop client within the lease"


class StopClientLong(Long, StopClient):
    kind = "stop client beyond the lease"
