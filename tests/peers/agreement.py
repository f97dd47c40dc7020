"""How far the repetitions of a published table agree: for each cell of raw results the difference between its fastest and
slowest repetition that counts, as part of their median; and, over each repetition of the whole table, the same of the
geometric means.

  python3 tests/peers/agreement.py --least-length=512 deploy/results/published-h100.json
"""

import argparse
import json
import math
import pathlib
import statistics
import sys


def speeds(job):
    """it/s by repetition; contaminated runs do not count."""
    found = {}
    for run in job["runs"]:
        result = run.get("result", {})
        if "measurement" in result and not result.get("contamination"):
            found[run["key"].get("repetition", 0)] = float(result["measurement"]["iterations_per_second"])
    return found


def spread(values):
    return (max(values) - min(values)) / statistics.median(values)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=pathlib.Path, help="raw results")
    parser.add_argument("--least-length", type=int, default=1, help="leave out shorter sequences")
    options = parser.parse_args()
    status = 0
    for path in options.files:
        cells = []
        results = json.loads(path.read_text())
        for benchmark in results if isinstance(results, list) else [results]:
            for job in benchmark["jobs"]:
                shape = job["shape"]
                if shape["sequence_length"] < options.least_length:
                    continue
                found = speeds(job)
                if len(found) > 1:
                    cells.append((spread(found.values()), f"{shape['batch']}x{shape['sequence_length']}", job["backend"],
                                  found))
        if not cells:
            print(f"{path}: no cell with two repetitions", file=sys.stderr)
            status = 1
            continue
        repetitions = set.intersection(*(set(found) for *_, found in cells))
        tables = [math.exp(statistics.mean(math.log(found[r]) for *_, found in cells)) for r in sorted(repetitions)]
        print(f"{path}: {len(cells)} cells, median {statistics.median(cell[0] for cell in cells):.2%}, "
              f"{sum(cell[0] <= 0.01 for cell in cells)} within 1 %; whole repetitions differ by {spread(tables):.2%}")
        for part, shape, backend, found in sorted(cells, key=lambda cell: -cell[0])[:5]:
            print(f"  {shape:9} {backend:10} {part:.2%}  " +
                  ", ".join(f"{found[r]:.3f}" for r in sorted(found)) + " it/s")
    return status


if __name__ == "__main__":
    sys.exit(main())
