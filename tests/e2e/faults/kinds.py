"""Everything that can be injected, by name."""

from . import clocks, connections, database, disks, kills, messages, network, stops
from .injector import Fault

MODULES = (kills, stops, connections, network, disks, clocks, database, messages)


def _all_of(cls):
    found = {cls.kind: cls} if cls.kind else {}
    for narrower in cls.__subclasses__():
        found.update(_all_of(narrower))
    return found


KINDS = dict(sorted(_all_of(Fault).items()))
