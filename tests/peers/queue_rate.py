#!/usr/bin/env python3
"""How many small processes per second attnfleet and HyperQueue run on this machine, in one interleaved run.

    python3 tests/peers/queue_rate.py --bin build/release/bin [--tasks 20000] [--rounds 3] [--json FILE]

Every round: HyperQueue (tests/peers/hyperqueue.txt, installed into .deps/hyperqueue) runs /bin/true, once with a file
for each stream of each task, which is its default, and once without; attnfleet runs as many runs of the trainer double,
one process each, and is done when all results are in its SQLite store; and a bare posix_spawn loop starts the double and
/bin/true. All have 4 slots. Prints processes per second and CPU time per process, medians and ratios.
"""

import argparse
import datetime
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
DEPS = HERE.parent.parent / ".deps"
sys.path.insert(0, str(HERE.parent / "bench"))
from coordinator_overhead import SLOTS, double_loop, fleet_pass, spawn_loop  # noqa: E402

GOAL_OF_HYPERQUEUE = 3.0
GOAL_OF_LOOP = 0.4


def install_hyperqueue():
    """The folder to import it from."""
    requirements = HERE / "hyperqueue.txt"
    folder, stage, stamp = DEPS / "hyperqueue", DEPS / "hyperqueue.stage", DEPS / "hyperqueue.txt"
    if not stamp.exists() or stamp.read_bytes() != requirements.read_bytes():
        shutil.rmtree(stage, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--quiet", "--no-deps",
                        "--only-binary=:all:", "--require-hashes", "--root-user-action=ignore", f"--target={stage}",
                        "-r", requirements], check=True, stdout=sys.stderr)
        stage.rename(folder)
        shutil.copyfile(requirements, stamp)
    return folder


def hyperqueue(modules, tasks, output):
    with tempfile.TemporaryDirectory(prefix="hyperqueue-bench-") as folder:
        done = subprocess.run([sys.executable, HERE / "hyperqueue_noop.py", f"--tasks={tasks}", f"--slots={SLOTS}",
                               f"--output={output}", "/bin/true"], check=True, stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, cwd=folder, text=True, env={**os.environ, "PYTHONPATH": modules})
    return json.loads(done.stdout.splitlines()[-1])


def fleet(binaries, tasks):
    with tempfile.TemporaryDirectory(prefix="attnfleet-bench-") as folder:
        return fleet_pass(binaries, tasks, folder)


def cpu_text(result):
    parts = [f"{what} {1e3 * used / result['tasks']:.3f}" for what, used in result["cpu_seconds"].items()]
    return f"{1e3 * sum(result['cpu_seconds'].values()) / result['tasks']:.3f} ms ({', '.join(parts)})"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=pathlib.Path, default=pathlib.Path("build/release/bin"))
    parser.add_argument("--tasks", type=int, default=20000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=pathlib.Path, help="a file for every figure")
    options = parser.parse_args()
    binaries = options.bin.resolve()
    modules = install_hyperqueue()
    ways = {
        "HyperQueue, /bin/true, output kept": lambda: hyperqueue(modules, options.tasks, "keep"),
        "HyperQueue, /bin/true, output dropped": lambda: hyperqueue(modules, options.tasks, "drop"),
        "attnfleet, trainer double": lambda: fleet(binaries, options.tasks),
        "posix_spawn loop, trainer double": lambda: double_loop(binaries, options.tasks),
        "posix_spawn loop, /bin/true": lambda: spawn_loop(binaries, options.tasks, ["/bin/true"]),
    }
    results = {way: [] for way in ways}
    began = datetime.datetime.now(datetime.timezone.utc)
    for number in range(options.rounds):
        for way, measure in ways.items():
            result = measure()
            results[way].append(result)
            print(f"round {number + 1}: {way:38} {result['per_second']:7.0f}/s, CPU per process {cpu_text(result)}",
                  flush=True)
    medians = {way: statistics.median(one["per_second"] for one in all_rounds) for way, all_rounds in results.items()}
    for way, rate in medians.items():
        print(f"median:  {way:38} {rate:7.0f}/s")
    kept, dropped, ours, loop, _ = medians.values()
    print(f"attnfleet over HyperQueue: {ours / kept:.2f} (output kept), {ours / dropped:.2f} (output dropped); goal "
          f"{GOAL_OF_HYPERQUEUE:g}")
    print(f"attnfleet over the posix_spawn loop of the same process: {ours / loop:.1%}; goal {GOAL_OF_LOOP:.0%}")
    if options.json:
        options.json.write_text(json.dumps({"began": began.isoformat(), "cpus": os.cpu_count(), "slots": SLOTS,
                                            "medians_per_second": medians, "rounds": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
