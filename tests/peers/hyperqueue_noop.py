#!/usr/bin/env python3
"""Runs a program many times under HyperQueue: a server, a worker with some slots and a client, all in this process.

    PYTHONPATH=.deps/hyperqueue python3 tests/peers/hyperqueue_noop.py --tasks 20000 [--slots 4] [--output=keep|drop]
        [PROGRAM [ARG ...]]                                                                    default /bin/true

Prints one line of JSON: tasks per second, and the CPU seconds of server, worker, client and tasks. `keep` is
HyperQueue's default, two files per task in the working folder; `drop` gives each task /dev/null. There is no journal:
nothing of this is durable. The client asks once a second how many tasks have finished, so the rate is that of the last
answer before the end.
"""

import argparse
import contextlib
import json
import os
import pathlib
import sys
import time

from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig

TICKS = os.sysconf("SC_CLK_TCK")


def thread_cpu_seconds():
    """User + system time of each thread of this process."""
    seconds = {}
    for task in pathlib.Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            fields = (task / "stat").read_text().rsplit(")", 1)[1].split()
            seconds[int(task.name)] = (int(fields[11]) + int(fields[12])) / TICKS
    return seconds


def measure(cluster, options):
    main = os.getpid()
    server = set(thread_cpu_seconds()) - {main}
    cluster.start_worker(WorkerConfig(cores=options.slots))
    client = cluster.client()
    job = Job()
    more = {} if options.output == "keep" else {"stdout": None, "stderr": None}
    for _ in range(options.tasks):
        job.program(options.program, **more)
    answers = []  # (finished tasks, seconds)
    before, threads_before = os.times(), thread_cpu_seconds()
    start = time.monotonic()

    def answered(jobs):
        answers.append((sum(one["finished"] for one in jobs.values()), time.monotonic() - start))

    failed = client.connection.wait_for_jobs((client.submit(job).id,), answered)
    seconds = time.monotonic() - start
    after, threads_after = os.times(), thread_cpu_seconds()
    if failed:
        raise SystemExit("tasks failed under HyperQueue")
    used = {thread: cpu - threads_before.get(thread, 0) for thread, cpu in threads_after.items()}
    own = after.user + after.system - before.user - before.system
    cpu = {"server": sum(used.get(thread, 0) for thread in server), "client": used[main]}
    cpu["worker"] = own - cpu["server"] - cpu["client"]  # with threads that have ended
    cpu["tasks"] = after.children_user + after.children_system - before.children_user - before.children_system
    finished, until = max([one for one in answers if 0 < one[0] < options.tasks], default=(options.tasks, seconds))
    return {"tasks": options.tasks, "seconds": seconds, "per_second": finished / until, "cpu_seconds": cpu}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=20000)
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--output", choices=["keep", "drop"], default="keep")
    parser.add_argument("program", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    options.program = options.program or ["/bin/true"]
    with contextlib.redirect_stdout(sys.stderr), LocalCluster() as cluster:
        result = measure(cluster, options)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
