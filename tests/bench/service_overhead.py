#!/usr/bin/env python3
"""Whether the service costs speed: it/s of the same run through coordinator and worker, and of the trainer by hand, in
interleaved pairs. A benchmark, not a test.

    python3 tests/bench/service_overhead.py --bin build/release/bin [--pairs 10] [--shape 64x512] [--steps 40]

Both ways run preset `published`, with the same seed; that they do the same is seen from the loss of the first step, which
must be the same to the last bit. Prints each pair, and the mean paired difference with its 95 % interval (Student's t).
"""

import argparse
import json
import math
import pathlib
import statistics
import subprocess
import sys
import tempfile

# Two-sided 95 % quantiles of Student's t by degrees of freedom.
STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262, 14: 2.145,
           19: 2.093, 29: 2.045}
PUBLISHED = ["--norelative-bias", "--nospatial-bias", "--optimizer=adam", "--learning-rate=0.02", "--boxes=unit",
             "--dropout-placement=output", "--seed=1"]


def measurement(result):
    if "measurement" not in result:
        raise SystemExit(f"a run gave no measurement: {result.get('reason', result)}")
    if result.get("contamination"):
        print("contaminated:", "; ".join(result["contamination"]), file=sys.stderr)
    return result["measurement"]


def through_the_service(options, folder):
    output = folder / "result.json"
    subprocess.run([options.bin / "attnfleet", "run", f"--state-dir={folder}/state", "--preset=published",
                    f"--backends={options.backend}", f"--shapes={options.shape}", "--repetitions=1",
                    f"--steps={options.steps}", f"--warmup={options.warmup}", f"--warmup-limit={options.warmup}",
                    "--ci-width=0", "--check=off", "--format=json", f"--output={output}"],
                   check=True, timeout=600, stderr=subprocess.DEVNULL)
    benchmark = json.loads(output.read_text())
    return measurement(benchmark["jobs"][0]["runs"][0]["result"])


def by_hand(options):
    batch, length = options.shape.split("x")
    lines = subprocess.run([options.bin / "attnfleet-trainer", f"--backend={options.backend}", f"--batch={batch}",
                            f"--sequence-length={length}", f"--steps={options.steps}", f"--warmup={options.warmup}",
                            *PUBLISHED], check=True, timeout=600, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                           text=True).stdout.splitlines()
    return measurement(json.loads(lines[-1])["result"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=pathlib.Path, required=True, help="folder of the programs")
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--backend", default="sdpa", help="not eager, whose dropout differs in the published preset")
    parser.add_argument("--shape", default="64x512")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--warmup", type=int, default=10)
    options = parser.parse_args()
    if options.pairs - 1 not in STUDENT:
        parser.error(f"--pairs: {', '.join(str(n + 1) for n in STUDENT)} are possible")
    differences = []
    with tempfile.TemporaryDirectory(prefix="attnfleet-overhead-") as folder:
        for pair in range(options.pairs):
            ways = [lambda: through_the_service(options, pathlib.Path(folder)), lambda: by_hand(options)]
            order = (0, 1) if pair % 2 == 0 else (1, 0)  # so that a drift meets both alike
            results = {way: ways[way]() for way in order}
            service, hand = results[0], results[1]
            if service["first_loss"] != hand["first_loss"]:
                raise SystemExit(f"not the same run: first loss {service['first_loss']} and {hand['first_loss']}")
            speeds = service["iterations_per_second"], hand["iterations_per_second"]
            differences.append(speeds[0] / speeds[1] - 1)
            print(f"pair {pair + 1:2}: service {speeds[0]:8.3f} it/s, by hand {speeds[1]:8.3f} it/s, "
                  f"difference {differences[-1]:+.2%}", flush=True)
    mean = statistics.mean(differences)
    half = STUDENT[len(differences) - 1] * statistics.stdev(differences) / math.sqrt(len(differences))
    print(f"{options.shape} {options.backend}, {options.steps} steps, {options.pairs} pairs: paired difference of the "
          f"service {mean:+.3%}, 95 % interval [{mean - half:+.3%}, {mean + half:+.3%}]")


if __name__ == "__main__":
    main()
