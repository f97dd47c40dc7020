"""Injects faults at random into fleets of real processes, and shows that nothing was lost, counted twice or stuck.

    python3 tests/e2e/fault_campaign.py --faults 1000 --seed 1 --out DIR

The programs come from ATTNFLEET_BIN (default build/release/bin). Each kind of fault strikes at least --each times in the
middle of a run, in rounds of 30 on a fresh fleet; two rounds run at a time. The same command goes on where an
interrupted one has stopped. A round that shows something wrong keeps all its logs in DIR and is told with the command
that repeats its faults.
"""

import argparse
import collections
import concurrent.futures
import itertools
import json
import pathlib
import random
import shutil
import statistics
import sys

from faults import round as fault_round
from faults.fleet import FLAVOURS
from faults.kinds import KINDS

PER_ROUND = 30
ROUNDS_AT_A_TIME = 2
TOP_UPS = 4  # rounds are added so often for kinds that have missed their runs


def plan(wanted, chance):
    """Rounds as (flavour, faults), for {kind: how many}."""
    by_flavour = {name: [] for name in FLAVOURS}
    for name, count in wanted.items():
        for flavour, _ in zip(itertools.cycle(KINDS[name].flavours), range(count)):
            by_flavour[flavour].append(name)
    rounds = []
    for flavour, faults in by_flavour.items():
        chance.shuffle(faults)
        rounds += [(flavour, faults[i:i + PER_ROUND]) for i in range(0, len(faults), PER_ROUND)]
    chance.shuffle(rounds)
    return rounds


def journal(out):
    """Every fault of the rounds that came to an outcome."""
    for path in sorted(out.glob(f"round-*/{fault_round.JOURNAL}")):
        if fault_round.outcome(path.parent):
            yield from map(json.loads, path.read_text().splitlines())


def table(out, skipped):
    rows = collections.defaultdict(list)
    for fault in journal(out):
        rows[fault["kind"]].append(fault)
    total = [fault for faults in rows.values() for fault in faults]
    lines = ["| kind | injected | struck | in the middle of a run | recovery s, median | max |", "|---" * 6 + "|"]
    for name, faults in [*sorted(rows.items()), ("all", total)]:
        recovery = [fault["recovery_s"] for fault in faults] or [0]
        lines.append(f"| {name} | {len(faults)} | {sum(f['struck'] for f in faults)} | {in_the_middle(faults)} | "
                     f"{statistics.median(recovery):.2f} | {max(recovery):.2f} |")
    outcomes = [outcome for folder in sorted(out.glob("round-*")) if (outcome := fault_round.outcome(folder))]
    told = {what: sum(outcome[what] for outcome in outcomes) for what in ("benchmarks", "runs", "attempts")}
    lines.append(f"\n{len(outcomes)} rounds, {told['runs']} runs of {told['benchmarks']} benchmarks in {told['attempts']} "
                 f"attempts: {sum(len(outcome['violations']) for outcome in outcomes)} violations")
    lines += [f"not injected here: {name}: {why}" for name, why in skipped.items()]
    return "\n".join(lines)


def in_the_middle(faults):
    return sum(fault["struck"] and fault["mid_run"] for fault in faults)


class Campaign:
    """The rounds in a folder, which remembers them: a plan, and a folder for each."""

    def __init__(self, options, kinds):
        self.options = options
        self.kinds = kinds
        self.out = options.out
        self._plan = self.out / "plan.json"
        self.rounds = json.loads(self._plan.read_text()) if self._plan.exists() else []

    def add(self, wanted):
        chance = random.Random(f"{self.options.seed} {len(self.rounds)}")
        self.rounds += [{"flavour": flavour, "faults": faults, "seed": chance.getrandbits(32)}
                        for flavour, faults in plan(wanted, chance)]
        self._plan.write_text(json.dumps(self.rounds, indent=1) + "\n")

    def missing(self):
        """{kind: how many more are needed}"""
        done = collections.Counter(f["kind"] for f in journal(self.out) if f["struck"] and f["mid_run"])
        each = max(self.options.each, -(-self.options.faults // len(self.kinds)))
        return {name: each - done[name] for name in self.kinds if done[name] < each}

    def run_one(self, number, folder):
        planned = self.rounds[number]
        shutil.rmtree(folder, ignore_errors=True)
        outcome = fault_round.run(planned["flavour"], planned["faults"], planned["seed"], folder, self.options.lease)
        violations = outcome["violations"] if outcome else [(folder / "harness.log").read_text()]
        said = f"{outcome['seconds']:.0f} s, {outcome['runs']} runs, " if outcome else ""
        print(f"round {number} of {len(self.rounds)} ({planned['flavour']}, {len(planned['faults'])} faults): {said}"
              f"{len(violations)} violations", flush=True)
        if violations:
            print("\n".join(violations))
            print(f"logs: {folder}; again: python3 {' '.join(sys.argv)} --only {number}", flush=True)
        return not violations

    def run(self):
        """All rounds that have not come to an outcome yet; whether nothing was wrong in any."""
        todo = {number: self.out / f"round-{number:03}" for number in range(len(self.rounds))}
        done = [fault_round.outcome(folder) for folder in todo.values()]
        good = not any(outcome["violations"] for outcome in done if outcome)
        with concurrent.futures.ThreadPoolExecutor(ROUNDS_AT_A_TIME) as pool:
            runs = [pool.submit(self.run_one, number, folder) for number, folder in todo.items() if not done[number]]
            return all([run.result() for run in runs]) and good


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=1000, help="at least so many in all")
    parser.add_argument("--each", type=int, default=50, help="at least so many of each kind in the middle of a run")
    parser.add_argument("--kinds", default="", help="NAME,...: these alone")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lease", type=float, default=1.5, help="seconds")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--only", type=int, help="repeat this round of an earlier campaign, and nothing else")
    options = parser.parse_args()
    options.out = options.out.resolve()
    options.out.mkdir(parents=True, exist_ok=True)
    skipped = fault_round.reasons()
    asked = options.kinds.split(",") if options.kinds else list(KINDS)
    campaign = Campaign(options, [name for name in asked if name not in skipped])
    if options.only is not None:
        return 0 if campaign.run_one(options.only, options.out / f"again-{options.only:03}") else 1
    if not campaign.rounds:
        campaign.add(campaign.missing())
    good = campaign.run()
    for _ in range(TOP_UPS):
        if good and campaign.missing():
            campaign.add(campaign.missing())
            good = campaign.run()
    print(table(options.out, skipped))
    for name, count in campaign.missing().items():
        print(f"{name}: {count} more were to strike in the middle of a run")
    return 0 if good and not campaign.missing() else 1


if __name__ == "__main__":
    sys.exit(main())
