"""Connections of workers and clients, at the harness's TCP proxy."""

from .injector import Fault
from .proxy import BLACK_HOLE, HOLD, PASS


class ConnectionFault(Fault):
    flavours = ("plain", "layered")  # a standby names the leader's own address, so nobody stays with a proxy

    @staticmethod
    def candidates(fleet):
        return [*fleet.workers, *fleet.clients]


class Cut(ConnectionFault):
    kind = "connection cut"

    def strike(self):
        self.proof = {"connections_reset": self.victim.proxy.cut()}

    def struck(self):
        return self.proof["connections_reset"] > 0


class Hold(ConnectionFault):
    kind = "connection held"

    def strike(self):
        self._before = self.victim.proxy.bytes_held
        self.victim.proxy.set_mode(HOLD)
        self.lasts = self.chance.uniform(0.3, 2.0) * self.fleet.lease

    def lift(self):
        self.victim.proxy.set_mode(PASS)
        self.proof = {"bytes_held": self.victim.proxy.bytes_held - self._before}

    def struck(self):
        return self.proof["bytes_held"] > 0


class BlackHole(ConnectionFault):
    kind = "connection black-holed"

    def strike(self):
        self._before = self.victim.proxy.bytes_swallowed
        self.victim.proxy.set_mode(BLACK_HOLE)
        self.lasts = self.chance.uniform(0.3, 2.0) * self.fleet.lease

    def lift(self):
        # What has lost bytes can only be reset.
        self.proof = {"connections_reset": self.victim.proxy.cut()}
        self.victim.proxy.set_mode(PASS)
        self.proof["bytes_swallowed"] = self.victim.proxy.bytes_swallowed - self._before

    def struck(self):
        return self.proof["bytes_swallowed"] > 0
