"""Packets that are lost on the way between a program and the server: all of them, or some."""

import itertools

from . import surroundings
from .injector import Fault
from .packets import Filter

_numbers = itertools.count()


class PacketFault(Fault):
    why_not = staticmethod(surroundings.why_no_packets)
    percent = 100

    @staticmethod
    def candidates(fleet):
        if fleet.flavour.shared:
            return [fleet.leader] if fleet.leader else []
        return [*fleet.workers, *fleet.clients]

    def strike(self):
        address = self.victim.proxy.address if self.victim.proxy else self.victim.address
        self._filter = Filter(f"fault{next(_numbers)}", address, self.percent)
        self.lasts = self.chance.uniform(0.5, 2.0) * self.fleet.lease

    def lift(self):
        packets, of_bytes = self._filter.remove()
        self.proof = {"packets_dropped": packets, "bytes_dropped": of_bytes,
                      "by": f"nftables, {self.percent} % of the packets"}

    def struck(self):
        return self.proof["packets_dropped"] > 0


class Partition(PacketFault):
    kind = "partition"


class PacketLoss(PacketFault):
    kind = "packet loss"
    percent = 30
