"""The database of two servers stops at once, as in a power cut, and is started again."""

from . import surroundings
from .injector import Fault


class DatabaseRestart(Fault):
    kind = "database restart"
    flavours = ("shared",)
    why_not = staticmethod(surroundings.why_no_database)

    @staticmethod
    def candidates(fleet):
        return [fleet.database]

    def strike(self):
        self.proof = self.victim.stop_at_once()
        self.lasts = self.chance.uniform(0, 1.5)

    def lift(self):
        self.victim.start()
        self.proof["said"] = self.victim.recovery()

    def struck(self):
        return bool(self.proof["said"])
