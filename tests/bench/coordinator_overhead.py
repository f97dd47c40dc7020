#!/usr/bin/env python3
"""What the coordinator and the worker cost per run, apart from process start. A benchmark, not a test.

    python3 tests/bench/coordinator_overhead.py --bin build/release/bin [--runs 10000] [--passes 3]

Queues RUNS runs of the trainer double (one process each, real JSON Lines, returns at once) on one worker with 4 slots,
and, interleaved with it, starts the same number of the same processes in a bare posix_spawn loop, 4 at a time. Prints
runs/s of both, the wall time per run above process start, and the CPU time per run of coordinator, worker and trainers.
"""

import argparse
import contextlib
import json
import os
import pathlib
import resource
import sqlite3
import statistics
import subprocess
import tempfile
import time

TICKS = os.sysconf("SC_CLK_TCK")
SLOTS = 4
JOBS = 16  # two backends at eight shapes: two groups for each slot; a multiple of it where runs are many
MOST_REPETITIONS = 1000  # that a benchmark may ask for
STATE_FINISHED = 3  # BenchmarkState
STATE_ENDED = 4  # RunState
DOUBLE_ARGS = ["--backend=eager", "--batch=1", "--sequence-length=64", "--warmup=5", "--steps=40"]
PATIENCE = 600.0


def cpu_seconds(pid):
    """User + system time of the process itself, and of the children that it has waited for."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS, (int(fields[13]) + int(fields[14])) / TICKS


def spawn_loop(binaries, count, program):
    """The bare loop: processes per second, and the CPU seconds of the loop with its processes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    output = subprocess.run([binaries / "spawn_loop", str(count), str(SLOTS), *program], check=True,
                            capture_output=True, text=True).stdout.split()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"tasks": count, "seconds": float(output[0]), "per_second": float(output[1]), "cpu_seconds": {"all": cpu}}


def double_loop(binaries, count):
    return spawn_loop(binaries, count, [binaries / "attnfleet-trainer-double", *DOUBLE_ARGS])


@contextlib.contextmanager
def program(*argv):
    """A server or a worker, and the address that it is ready at."""
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        line = process.stdout.readline()
        if not line.startswith("ready "):
            raise SystemExit(f"{argv[0]} did not start: {line!r}")
        yield process.pid, line.split()[1]
    finally:
        process.terminate()
        process.wait(20)


def wait_until_finished(store, number):
    """Until the benchmark has ended in the store, and so every result of it is durable."""
    deadline = time.monotonic() + PATIENCE
    while store.execute("SELECT state FROM benchmarks WHERE id = ?", (number,)).fetchone() != (STATE_FINISHED,):
        if time.monotonic() > deadline:
            raise SystemExit(f"benchmark {number} did not end within {PATIENCE:.0f} s")
        time.sleep(0.01)


def check_store(binaries, folder, number, runs):
    """Nothing is missing and nothing too much, and the server's own check finds nothing wrong."""
    with contextlib.closing(sqlite3.connect(f"{folder}/server/attnfleet.db")) as store:
        ended = store.execute("SELECT count(*) FROM runs WHERE benchmark_id = ? AND state = ?",
                              (number, STATE_ENDED)).fetchone()[0]
        rows = store.execute("SELECT count(*) FROM runs").fetchone()[0]
    if not ended == rows == runs:
        raise SystemExit(f"the store holds {ended} results in {rows} rows for {runs} runs")
    subprocess.run([binaries / "attnfleet-server", "check", f"--state-dir={folder}/server"], check=True,
                   stdout=subprocess.DEVNULL)


def fleet_pass(binaries, runs, folder):
    """RUNS runs, rounded to whole repetitions, from submit to the last durable result."""
    jobs = JOBS * -(-runs // (JOBS * MOST_REPETITIONS))
    repetitions = max(1, runs // jobs)
    runs = repetitions * jobs
    with program(binaries / "attnfleet-server", "--listen=127.0.0.1:0", f"--state-dir={folder}/server",
                 "--metrics-listen=off") as (server, address), \
         program(binaries / "attnfleet-worker", f"--server={address}", f"--state-dir={folder}/worker",
                 f"--slots=cpu:{SLOTS}", f"--trainer={binaries}/attnfleet-trainer-double",
                 "--name=bench") as (worker, _), \
         contextlib.closing(sqlite3.connect(f"file:{folder}/server/attnfleet.db?mode=ro", uri=True)) as store:
        before = cpu_seconds(server), cpu_seconds(worker)
        start = time.monotonic()
        shapes = ",".join(f"{batch}x64" for batch in range(1, jobs // 2 + 1))
        number = subprocess.run([binaries / "attnfleet", "submit", f"--server={address}", "--preset=tiny",
                                 "--backends=eager,sdpa", f"--shapes={shapes}", f"--repetitions={repetitions}"],
                                check=True, capture_output=True, text=True).stdout.split()[0]
        wait_until_finished(store, number)
        seconds = time.monotonic() - start
        after = cpu_seconds(server), cpu_seconds(worker)
        results = json.loads(subprocess.run([binaries / "attnfleet", "results", number, f"--server={address}",
                                             "--format=json"], check=True, capture_output=True, text=True).stdout)
    measured = sum(run["result"]["outcome"] == "OUTCOME_MEASURED" for job in results["jobs"] for run in job["runs"])
    if measured != runs:
        raise SystemExit(f"only {measured} of {runs} runs were measured")
    check_store(binaries, folder, number, runs)
    return {"tasks": runs, "seconds": seconds, "per_second": runs / seconds,
            "cpu_seconds": {"server": after[0][0] - before[0][0], "worker": after[1][0] - before[1][0],
                            "tasks": after[1][1] - before[1][1]}}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=pathlib.Path, default=pathlib.Path("build/release/bin"))
    parser.add_argument("--runs", type=int, default=10000)
    parser.add_argument("--passes", type=int, default=3)
    options = parser.parse_args()
    binaries = options.bin.resolve()
    above = []
    for number in range(options.passes):
        floor = double_loop(binaries, options.runs)
        with tempfile.TemporaryDirectory(prefix="attnfleet-bench-") as folder:
            fleet = fleet_pass(binaries, options.runs, folder)
        above.append(1 / fleet["per_second"] - 1 / floor["per_second"])
        cpu = ", ".join(f"{what} {1e3 * used / fleet['tasks']:.3f} ms" for what, used in fleet["cpu_seconds"].items())
        print(f"pass {number + 1}: {fleet['tasks']} runs in {fleet['seconds']:.2f} s, {fleet['per_second']:.0f} runs/s; "
              f"bare posix_spawn loop {floor['per_second']:.0f}/s ({fleet['per_second'] / floor['per_second']:.0%}); "
              f"above process start {1e3 * above[-1]:.3f} ms per run; CPU per run: {cpu}; of the loop "
              f"{1e3 * floor['cpu_seconds']['all'] / floor['tasks']:.3f} ms", flush=True)
    print(f"median above process start: {1e3 * statistics.median(above):.3f} ms per run")


if __name__ == "__main__":
    main()
