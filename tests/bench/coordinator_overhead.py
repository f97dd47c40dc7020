#!/usr/bin/env python3
"""What the coordinator and the worker cost per run, apart from process start. A benchmark, not a test.

    python3 tests/bench/coordinator_overhead.py --bin build/release/bin [--runs 10000] [--passes 3]

Queues RUNS runs of the trainer double (one process each, real JSON Lines, returns at once) on one worker with 4 slots,
and, interleaved with it, starts the same number of the same processes in a bare posix_spawn loop, 4 at a time. Prints
runs/s of both, the wall time per run above process start, and the CPU time per run of coordinator and worker.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid):
    """User + system time of the process itself, without its children."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def ready(process):
    line = process.stdout.readline()
    if not line.startswith("ready "):
        raise SystemExit(f"{process.args[0]} did not start: {line!r}")
    return line.split()[1]


def one_pass(binaries, runs, folder):
    double = binaries / "attnfleet-trainer-double"
    server = subprocess.Popen([binaries / "attnfleet-server", "--listen=127.0.0.1:0", f"--state-dir={folder}/server",
                               "--metrics-listen=off"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    worker = None
    try:
        address = ready(server)
        worker = subprocess.Popen([binaries / "attnfleet-worker", f"--server={address}", f"--state-dir={folder}/worker",
                                   "--slots=cpu:4", f"--trainer={double}", "--name=bench"],
                                  stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        ready(worker)
        client = [binaries / "attnfleet"]
        before = cpu_seconds(server.pid), cpu_seconds(worker.pid)
        start = time.monotonic()
        shapes = ",".join(f"{batch}x64" for batch in range(1, 9))  # groups: two for each slot
        repetitions = max(1, runs // 16)
        number = subprocess.run(client + ["submit", f"--server={address}", "--preset=tiny", "--backends=eager,sdpa",
                                          f"--shapes={shapes}", f"--repetitions={repetitions}"],
                                check=True, capture_output=True, text=True).stdout.split()[0]
        while True:
            listing = json.loads(subprocess.run(client + ["list", f"--server={address}", "--format=json"], check=True,
                                                capture_output=True, text=True).stdout)
            newest = listing["benchmarks"][0]
            if newest["state"] == "BENCHMARK_STATE_FINISHED":
                break
            time.sleep(0.1)
        seconds = time.monotonic() - start
        after = cpu_seconds(server.pid), cpu_seconds(worker.pid)
        done = subprocess.run(client + ["results", number, f"--server={address}", "--format=json"], check=True,
                              capture_output=True, text=True).stdout
        measured = sum(run["result"]["outcome"] == "OUTCOME_MEASURED" for job in json.loads(done)["jobs"]
                       for run in job["runs"])
        if measured != repetitions * 16:
            raise SystemExit(f"only {measured} of {repetitions * 16} runs were measured")
        return measured, seconds, after[0] - before[0], after[1] - before[1]
    finally:
        for process in (worker, server):
            if process:
                process.terminate()
                process.wait(20)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=pathlib.Path, default=pathlib.Path("build/release/bin"))
    parser.add_argument("--runs", type=int, default=10000)
    parser.add_argument("--passes", type=int, default=3)
    options = parser.parse_args()
    binaries = options.bin.resolve()
    double_args = ["--backend=eager", "--batch=1", "--sequence-length=64", "--warmup=5", "--steps=40"]
    above = []
    for number in range(options.passes):
        floor = subprocess.run([binaries / "spawn_loop", str(options.runs), "4",
                                binaries / "attnfleet-trainer-double", *double_args],
                               check=True, capture_output=True, text=True).stdout.split()
        with tempfile.TemporaryDirectory(prefix="attnfleet-bench-") as folder:
            runs, seconds, server_cpu, worker_cpu = one_pass(binaries, options.runs, folder)
        extra = seconds / runs - float(floor[0]) / options.runs
        above.append(extra)
        print(f"pass {number + 1}: {runs} runs in {seconds:.2f} s, {runs / seconds:.0f} runs/s; bare posix_spawn loop "
              f"{float(floor[1]):.0f}/s; above process start {1e3 * extra:.3f} ms per run; CPU per run: coordinator "
              f"{1e3 * server_cpu / runs:.3f} ms, worker {1e3 * worker_cpu / runs:.3f} ms", flush=True)
    print(f"median above process start: {1e3 * statistics.median(above):.3f} ms per run")


if __name__ == "__main__":
    main()
