"""What every kind of fault has in common: a victim in the middle of work, a strike, a proof, and how it is over."""

import random
import re
import time

from harness import PATIENCE, wait_until

from .journal import Tail

RECOVERY_LIMIT = 120.0
PROOF_LIMIT = 10.0


class Fault:
    """One injection. Kinds are subclasses; `kind` is their name in the table."""

    kind = None
    flavours = ("plain", "layered", "shared")  # of fleets that it can happen to

    @staticmethod
    def why_not():
        """What is missing here for this kind, or None."""
        return None

    @staticmethod
    def candidates(fleet):
        """Members that it can happen to now."""
        raise NotImplementedError

    def __init__(self, fleet, victim, work, chance):
        self.fleet = fleet
        self.victim = victim
        self.work = work  # trainers of its that ran when it was chosen
        self.chance = chance  # a random.Random
        self.proof = {}
        self.lasts = 0.0  # seconds between strike and lift

    def strike(self):
        """The impact itself."""
        raise NotImplementedError

    def prove(self):
        """Fills `proof` once the impact can be seen; true if it can."""
        return True

    def lift(self):
        """Ends the fault: starts the victim again, frees the disk, ... May add to `proof`."""

    def struck(self):
        """After the lift: whether the proof is one."""
        return True

    def recovered(self, mark):
        """Whether the victim works again; `mark` is its own, of the moment when the fault was over."""
        return self.victim.worked_since(mark)


def _choose(fleet, kind, chance):
    """A victim, its lock taken, in the middle of work; and the trainers of that work."""
    victim, work = None, []

    def found():
        nonlocal victim, work
        candidates = kind.candidates(fleet)
        chance.shuffle(candidates)
        for victim in candidates:
            if not victim.lock.acquire(blocking=False):
                continue
            work = fleet.trainers.in_progress(victim.belongs)
            if victim.wanted and work:
                return True
            victim.lock.release()
        return False
    wait_until(f"a victim for {kind.kind} with a run in progress", found, PATIENCE)
    return victim, work


def _describe(fleet, trainer):
    """The run and attempt that a trainer is for, as its worker has logged it when it started it."""
    request = fleet.benchmarks[trainer.benchmark - 1].request
    entry = {"pid": trainer.pid, "request_id": request, "backend": trainer.cell[0], "shape": trainer.cell[1],
             "repetition": trainer.repetition}
    begins = re.compile(rf"run \d+/\d+/{trainer.repetition} starts: {' '.join(trainer.cell)}$")
    for worker in fleet.workers:
        if worker.belongs(trainer):
            for line in Tail(worker.program.stderr_path).records():
                if line.get("request_id") == request and begins.match(line["message"]):
                    entry.update({name: line[name] for name in ("run", "attempt", "slot")}, worker=worker.name)
    return entry


def _soon(condition):
    """Whether it becomes true within PROOF_LIMIT."""
    try:
        return wait_until("the proof", condition, PROOF_LIMIT)
    except AssertionError:
        return False


def inject(fleet, kind, seed, journal):
    """One fault of that kind, from the choice of its victim to its recovery."""
    chance = random.Random(seed)
    victim, work = _choose(fleet, kind, chance)
    try:
        fault = kind(fleet, victim, work, chance)
        held = [_describe(fleet, trainer) for trainer in fault.work]
        began = time.monotonic()
        fault.strike()
        fleet.trainers.all()  # what was measured until now was not hit
        hit = [run for run, trainer in zip(held, fault.work) if not trainer.measured]
        proved = _soon(fault.prove)
        time.sleep(max(0.0, began + fault.lasts - time.monotonic()))
        fault.lift()
        lifted, mark = time.monotonic(), victim.mark()
        wait_until(f"{victim.name} to recover from {kind.kind}", lambda: fault.recovered(mark), RECOVERY_LIMIT)
        journal.write(kind=kind.kind, seed=seed, flavour=fleet.flavour.name, victim=victim.name, at=time.time(),
                      struck=bool(proved and fault.struck()), mid_run=bool(hit), runs_in_progress=hit,
                      lasted_s=round(lifted - began, 3), recovery_s=round(time.monotonic() - lifted, 3),
                      proof=fault.proof)
    finally:
        victim.lock.release()
