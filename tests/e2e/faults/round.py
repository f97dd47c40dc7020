"""One round: a fleet of one flavour, a list of faults for it, and what must hold when they are over.

Runs as a program of its own (`python3 -m faults.round`), in namespaces of its own where that is possible.
"""

import argparse
import contextlib
import json
import os
import pathlib
import queue
import random
import shutil
import subprocess
import sys
import threading
import time
import traceback

from harness import BIN

from . import surroundings
from .fleet import FLAVOURS, Fleet
from .injector import inject
from .journal import Journal
from .kinds import KINDS

IN_FLIGHT = 3  # faults at a time, of different victims
E2E = pathlib.Path(__file__).resolve().parent.parent
OUTCOME, JOURNAL = "outcome.json", "faults.jsonl"


def _inside(*argv):
    """A command line, and the rest that it needs to run where a fleet runs."""
    return {"args": [*surroundings.enter(), sys.executable, "-B", *argv], "cwd": E2E, "stdin": subprocess.DEVNULL,
            "env": {**os.environ, "ATTNFLEET_BIN": str(BIN)}}


def reasons():
    """{kind: why it cannot be injected here}"""
    code = ("import json; from faults.kinds import KINDS; "
            "print(json.dumps({name: kind.why_not() for name, kind in KINDS.items() if kind.why_not()}))")
    return json.loads(subprocess.check_output(**_inside("-c", code)))


def run(flavour, faults, seed, out, lease=1.5, timeout=900):
    """Runs a round as a program of its own, with what it writes in the folder `out`; returns its outcome, None if it
    came to none."""
    out.mkdir(parents=True)
    program = _inside("-m", "faults.round", flavour, "--seed", str(seed), "--out", out, "--lease", str(lease),
                      "--faults", json.dumps(faults))
    with open(out / "harness.log", "wb") as log, contextlib.suppress(subprocess.TimeoutExpired):
        subprocess.run(**program, stdout=log, stderr=log, timeout=timeout)
    return outcome(out)


def outcome(out):
    path = out / OUTCOME
    return json.loads(path.read_text()) if path.exists() else None


def _inject_all(fleet, faults, seed, journal):
    todo = queue.SimpleQueue()
    chance = random.Random(seed)
    for name in faults:
        todo.put((KINDS[name], chance.getrandbits(32), chance.uniform(0, 0.5)))

    def lane():
        while not fleet.violations:
            try:
                kind, fault_seed, pause = todo.get_nowait()
            except queue.Empty:
                return
            time.sleep(pause)
            try:
                inject(fleet, kind, fault_seed, journal)
            except Exception:
                fleet.violation(f"{kind.kind}: {traceback.format_exc()}")
    lanes = [threading.Thread(target=lane) for _ in range(IN_FLIGHT)]
    for thread in lanes:
        thread.start()
    for thread in lanes:
        thread.join()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("flavour", choices=FLAVOURS)
    parser.add_argument("--faults", type=json.loads, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--lease", type=float, required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    options = parser.parse_args()
    fleet = Fleet(FLAVOURS[options.flavour], options.lease)
    began = time.monotonic()
    try:
        fleet.setUp()
        _inject_all(fleet, options.faults, options.seed, Journal(options.out / JOURNAL))
        fleet.finish()
    except Exception:
        fleet.violation(traceback.format_exc())
    if fleet.violations:
        shutil.copytree(fleet.dir, options.out / "fleet", ignore=shutil.ignore_patterns("filler"), dirs_exist_ok=True)
    told = fleet.told()
    fleet.tearDown()
    told.update(violations=fleet.violations, seconds=round(time.monotonic() - began, 1))
    (options.out / OUTCOME).write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
