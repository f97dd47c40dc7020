"""What clients submit, and what must be true of it in the end."""

import json

from .trainers import SEEDS_PER_BENCHMARK

BACKENDS = ("eager", "sdpa")
SHAPES = ("1x32", "2x32", "1x64", "2x64")
REPETITIONS = 2
RUNS = len(BACKENDS) * len(SHAPES) * REPETITIONS


class Benchmark:
    def __init__(self, ordinal, name):
        self.ordinal = ordinal
        self.request = f"{name}-{ordinal}"
        self.number = None  # the server's
        self.results = None

    def submit_flags(self):
        # A fault is no reason to give a run up: as many attempts as a spec may ask for.
        return ["--preset=tiny", f"--backends={','.join(BACKENDS)}", f"--shapes={','.join(SHAPES)}",
                f"--repetitions={REPETITIONS}", f"--seed={self.ordinal * SEEDS_PER_BENCHMARK}", "--max-attempts=10",
                "--max-worker-losses=10", f"--request-id={self.request}"]

    def take_results(self, text):
        self.results = json.loads(text)

    def runs(self):
        """{(ordinal, backend, shape, repetition): all runs of that place in the results}"""
        found = {}
        for job in self.results["jobs"]:
            shape = f"{job['shape']['batch']}x{job['shape']['sequence_length']}"
            for run in job["runs"]:
                found.setdefault((self.ordinal, job["backend"], shape, run["key"]["repetition"]), []).append(run)
        return found

    def problems(self, trainers):
        """What is wrong with its results, given every trainer that was ever started."""
        if self.results is None:
            return [f"benchmark {self.number} ({self.request}) has no results: it is stuck or lost"]
        found = []
        if self.results["state"] != "BENCHMARK_STATE_FINISHED":
            found.append(f"its state is {self.results['state']}")
        runs = self.runs()
        expected = {(self.ordinal, backend, shape, repetition) for backend in BACKENDS for shape in SHAPES
                    for repetition in range(REPETITIONS)}
        if set(runs) != expected:
            found.append(f"lost: {sorted(expected - set(runs))}, invented: {sorted(set(runs) - expected)}")
        for place, same in sorted(runs.items()):
            found += [f"run {place}: {problem}" for problem in self._problems_of_run(place, same, trainers)]
        return [f"benchmark {self.number}: {problem}" for problem in found]

    @staticmethod
    def _problems_of_run(place, same, trainers):
        if len(same) != 1:
            return [f"counted {len(same)} times"]
        run = same[0]
        outcome = run.get("result", {}).get("outcome", "none")
        if outcome != "OUTCOME_MEASURED":
            return [f"ended as {outcome} {run.get('result', {}).get('reason', '')}"]
        started = [trainer for trainer in trainers if trainer.run == place]
        measured = [trainer for trainer in started if trainer.measured]
        problems = []
        if not measured:
            problems.append("has a result that no trainer has measured")
        if len(started) > run["attempt"]:
            problems.append(f"was started {len(started)} times in {run['attempt']} attempts")
        return problems

    def differences(self, again):
        """What changed in results that were final, as read again later."""
        def counted(results):
            return [(run["key"], run["attempt"], run["worker"], run["result"])
                    for job in results["jobs"] for run in job["runs"]]
        if counted(self.results) != counted(again):
            return [f"benchmark {self.number}: its results have changed since it ended"]
        return []
