"""Wall clocks that jump, of server and worker, while they work."""

import datetime

from harness import BIN

from . import surroundings
from .injector import Fault


class ClockJump(Fault):
    flavours = ("layered",)

    @staticmethod
    def why_not():
        return surroundings.why_no_clocks(BIN / "attnfleet-server")

    def strike(self):
        clock = self.victim.clock
        self._before = clock.offset
        self._log = self.victim.log()
        clock.jump_to(clock.offset + self.direction * self.chance.choice((5, 60, 3600, 86400)))
        self.lasts = 0.5

    def prove(self):
        """Its own log shows the new time."""
        now = datetime.datetime.now(datetime.timezone.utc)
        wanted = self.victim.clock.offset
        for line in self._log.records():
            offset = (datetime.datetime.fromisoformat(line["time"].replace("Z", "+00:00")) - now).total_seconds()
            if abs(offset - wanted) < abs(wanted - self._before) / 2:
                self.proof = {"jump_s": wanted - self._before, "offset_in_its_log_s": round(offset, 1),
                              "line": line["message"]}
        return bool(self.proof)


class Forward:
    direction = 1


class Backward:
    direction = -1


class ServerClock(ClockJump):
    @staticmethod
    def candidates(fleet):
        return list(fleet.servers)


class WorkerClock(ClockJump):
    @staticmethod
    def candidates(fleet):
        return list(fleet.workers)


class ServerForward(Forward, ServerClock):
    kind = "clock of the server forward"


class ServerBackward(Backward, ServerClock):
    kind = "clock of the server backward"


class WorkerForward(Forward, WorkerClock):
    kind = "clock of a worker forward"


class WorkerBackward(Backward, WorkerClock):
    kind = "clock of a worker backward"
