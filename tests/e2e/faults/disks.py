"""A full disk, under the server's store and under a worker's spool."""

from . import surroundings
from .injector import Fault


class DiskFull(Fault):
    why_not = staticmethod(surroundings.why_no_disks)

    def strike(self):
        self._log = self.victim.log()
        self.proof = {"bytes_taken": self.victim.disk.fill(), "bytes_left": self.victim.disk.free_bytes()}
        self.lasts = self.chance.uniform(0.2, 1.5)

    def prove(self):
        """The program meets the full disk and says so."""
        self.victim.disk.fill()  # what it has given up meanwhile
        for line in self._log.records():
            if "full" in line["message"] or "No space left" in line["message"]:
                self.proof["said"] = line["message"]
        return "said" in self.proof

    def lift(self):
        self.victim.disk.free()


class ServerDiskFull(DiskFull):
    kind = "disk full of the server"
    flavours = ("plain", "layered")

    @staticmethod
    def candidates(fleet):
        return list(fleet.servers)


class WorkerDiskFull(DiskFull):
    kind = "disk full of a worker"

    @staticmethod
    def candidates(fleet):
        return list(fleet.workers)
