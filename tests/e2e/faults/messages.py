"""Messages between worker and server that come twice or in another order."""

from .injector import Fault


class MessageFault(Fault):
    flavours = ("layered",)
    what = None

    @staticmethod
    def candidates(fleet):
        return list(fleet.workers)

    def strike(self):
        self._proxy = self.victim.messages
        self._log = self._proxy.log()
        self.proof = {"messages": {}}
        self._proxy.ask(self.what)
        self.lasts = self.chance.uniform(1.0, 3.0)

    def prove(self):
        """Some were, of those that count: not only heartbeats and progress."""
        for line in self._log.records():
            self.proof["messages"][line["message"]] = self.proof["messages"].get(line["message"], 0) + 1
        return bool({"start", "report", "acknowledge", "stop"} & set(self.proof["messages"]))

    def lift(self):
        self._proxy.ask("")
        self.prove()  # for the rest of the numbers


class Duplicate(MessageFault):
    kind = "messages duplicated"
    what = "duplicate"


class Reorder(MessageFault):
    kind = "messages reordered"
    what = "reorder"
