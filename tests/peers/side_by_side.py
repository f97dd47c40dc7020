"""Measures attnfleet and its peer on one GPU in turns: for each shape the peer, all repetitions of all backends through
attnfleet's whole path, and the peer again, so that a drift of the GPU meets both. Writes, for each shape, attnfleet's
raw result (OUT/PRESET-SHAPE.json) and the peer's lines (OUT/PRESET-SHAPE.peer.jsonl), and prints the comparison.

  python3 tests/peers/side_by_side.py --attnfleet=build/release/bin/attnfleet --preset=published --out=results \\
      --shapes=32x512,64x512 --backends=eager,sdpa,flash2,efficient,cudnn
  python3 tests/peers/side_by_side.py --preset=stock --random-boxes --shapes=32x512 --out=results \\
      --backends=eager,sdpa,efficient,cudnn,fused --peers=compiled,flex-compiled -- --step=fused
  python3 tests/peers/side_by_side.py --compare=deploy/results/published-h100.json      # the comparison again
  python3 tests/peers/side_by_side.py --table=deploy/results/fused-stock-h200.json      # all of it as one Markdown table
"""

import argparse
import json
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

PEER = pathlib.Path(__file__).with_name("hugging_face.py")


def write_documents(options, shape, path):
    """What attnfleet's first repetition trains on, for the peer to train on."""
    batch, length = shape.split("x")
    trainer = pathlib.Path(shutil.which(options.attnfleet)).with_name("attnfleet-trainer")
    subprocess.run([trainer, f"--write-data={path}", f"--batch={batch}", f"--sequence-length={length}", "--seed=1",
                    "--steps=4"], timeout=options.timeout, check=True)


def run_peer(options, shape, data, path, lines):
    command = [sys.executable, PEER, f"--preset={options.preset}", f"--shapes={shape}", f"--steps={options.peer_steps}",
               f"--implementations={options.peers}"]
    if data:
        command.append(f"--data={data}")
    chosen = {line["flex_tiles"] for line in lines if "flex_tiles" in line}
    if chosen or options.flex_tiles:  # the second turn need not look for them again
        command.append(f"--flex-tiles={','.join(map(str, chosen)) or options.flex_tiles}")
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=options.timeout, check=True).stdout
    lines.extend(json.loads(line) for line in output.splitlines())
    # At once: who is interrupted keeps what was measured.
    path.with_suffix(".peer.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def run_attnfleet(options, shape, path):
    command = [options.attnfleet, "run", f"--preset={options.preset}", f"--shapes={shape}",
               f"--backends={options.backends}", f"--repetitions={options.repetitions}", "--format=json",
               f"--output={path}", *(["--boxes=random"] if options.random_boxes else []), *options.extra]
    subprocess.run(command, timeout=options.timeout, check=True)
    return json.loads(path.read_text())


def compare(benchmark, lines):
    """Median it/s and largest peak of attnfleet over the peer's, per shape and implementation."""
    for job in benchmark["jobs"]:
        batch, length = job["shape"]["batch"], job["shape"]["sequence_length"]
        shape = f"{batch}x{length}"
        measured = [run["result"]["measurement"] for run in job["runs"] if "measurement" in run.get("result", {})]
        peer = [line for line in lines if line["implementation"] == job["backend"] and line["outcome"] == "measured"
                and (line["batch"], line["sequence_length"]) == (batch, length)]
        if not measured:
            print(f"{shape:9} {job['backend']:10} {job['runs'][0]['result']['outcome']}; peer measured: {bool(peer)}")
            continue
        speed = statistics.median(float(m["iterations_per_second"]) for m in measured)
        memory = max(int(m["peak_allocated_bytes"]) for m in measured)
        text = f"{shape:9} {job['backend']:10} {speed:8.3f} it/s {memory / 1e9:7.2f} GB"
        if peer:
            peer_speed = statistics.median(line["iterations_per_second"] for line in peer)
            peer_memory = max(line["peak_allocated_bytes"] for line in peer)
            text += (f"   peer {peer_speed:8.3f} it/s {peer_memory / 1e9:7.2f} GB"
                     f"   ratio {speed / peer_speed:.4f}, memory {memory / peer_memory:.4f}")
        print(text, flush=True)
    backends = {job["backend"] for job in benchmark["jobs"]}
    shapes = {(job["shape"]["batch"], job["shape"]["sequence_length"]) for job in benchmark["jobs"]}
    others = {}
    for line in lines:
        if line["implementation"] not in backends and (line["batch"], line["sequence_length"]) in shapes:
            others.setdefault((line["batch"], line["sequence_length"], line["implementation"]), []).append(line)
    for (batch, length, implementation), same in others.items():
        measured = [line for line in same if line["outcome"] == "measured"]
        figures = same[0]["outcome"]
        if measured:
            figures = (f"{statistics.median(line['iterations_per_second'] for line in measured):8.3f} it/s "
                       f"{max(line['peak_allocated_bytes'] for line in measured) / 1e9:7.2f} GB")
        print(f"{batch}x{length}".ljust(9), implementation.ljust(13), figures, "  (peer)", flush=True)


def table_rows(benchmark, lines):
    """Cells of a benchmark of one shape and of its peers' lines: shape, implementation, it/s and its 95 % interval, MFU,
    peak of allocated memory in GB, and that less 16 bytes a parameter (fp32 weight, gradient and Adam's moments)."""
    jobs = benchmark["jobs"]
    batch, length = jobs[0]["shape"]["batch"], jobs[0]["shape"]["sequence_length"]
    measured = [run["result"]["measurement"] for job in jobs for run in job["runs"] if "measurement" in run["result"]]
    moments = int(measured[0]["optimizer_bytes"])  # 8 bytes a parameter
    flops_part = measured[0]["model_flops_per_iteration"] / measured[0]["peak_flops_per_second"]

    def row(name, outcome, speed=None, interval="", peak=0):
        if speed is None:
            return [f"{batch}x{length}", name, outcome, *"----"]
        return [f"{batch}x{length}", name, f"{speed:.2f}", interval, f"{flops_part * speed:.1%}", f"{peak / 1e9:.2f}",
                f"{(peak - 2 * moments) / 1e9:.2f}"]

    for job in jobs:
        summary = job["summary"]
        low, high = (summary.get(f"iterations_per_second_mean_{end}") for end in ("low", "high"))
        yield row(job["backend"], summary["outcome"].removeprefix("OUTCOME_").replace("_", " ").lower(),
                  summary.get("iterations_per_second_median") or None, f"{low:.2f} to {high:.2f}" if high else "one run",
                  int(summary.get("peak_allocated_bytes", 0)))
    for line in lines:
        if (line["batch"], line["sequence_length"]) == (batch, length):
            yield row(f"peer: {line['implementation']}", line["outcome"], line.get("iterations_per_second"), "one run",
                      line.get("peak_allocated_bytes", 0))


def table(path):
    """Markdown of raw results with their .peer.jsonl."""
    results = json.loads(path.read_text())
    lines = read_lines(path.with_suffix(".peer.jsonl"))
    heads = ["shape", "implementation", "it/s", "95 % interval", "MFU", "peak, GB", "less parameters, GB"]
    rows = [row for benchmark in (results if isinstance(results, list) else [results])
            for row in table_rows(benchmark, lines)]
    return "".join(f"| {' | '.join(row)} |\n" for row in [heads, ["---"] * 2 + ["---:"] * 5, *rows])


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attnfleet", default="attnfleet", help="the program")
    parser.add_argument("--preset", choices=["published", "stock"])
    parser.add_argument("--shapes")
    parser.add_argument("--compare", type=pathlib.Path, help="raw results with their .peer.jsonl: measure nothing")
    parser.add_argument("--table", type=pathlib.Path, help="raw results with their .peer.jsonl, as one Markdown table")
    parser.add_argument("--backends", default="eager,sdpa,flash2,efficient,cudnn")
    parser.add_argument("--peers", default="eager,sdpa", help="implementations of hugging_face.py")
    parser.add_argument("--random-boxes", action="store_true",
                        help="full sequences with random boxes, instead of the stock preset's documents")
    parser.add_argument("--flex-tiles", help="settings of FlexAttention's tiles to choose from; all")
    parser.add_argument("--repetitions", type=int, default=2)
    parser.add_argument("--peer-turns", type=int, choices=[1, 2], default=2, help="1: none behind attnfleet's")
    parser.add_argument("--peer-steps", type=int, default=40)
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--timeout", type=float, default=600, help="seconds, of one program")
    parser.add_argument("extra", nargs="*", help="more flags of attnfleet run, after --")
    options = parser.parse_args()
    if options.compare:
        results = json.loads(options.compare.read_text())
        for benchmark in results if isinstance(results, list) else [results]:
            compare(benchmark, read_lines(options.compare.with_suffix(".peer.jsonl")))
        return 0
    if options.table:
        print(table(options.table), end="")
        return 0
    if not (options.preset and options.shapes and options.out):
        parser.error("give --preset, --shapes and --out, or --compare or --table")
    options.out.mkdir(parents=True, exist_ok=True)
    for shape in options.shapes.split(","):
        begin = time.monotonic()
        lines = []
        path = options.out / f"{options.preset}-{shape}.json"
        data = None
        if options.preset == "stock" and not options.random_boxes:  # the published preset's boxes are all the same
            data = path.with_suffix(".documents.jsonl")
            write_documents(options, shape, data)
        run_peer(options, shape, data, path, lines)
        result = run_attnfleet(options, shape, path)
        if options.peer_turns > 1:
            run_peer(options, shape, data, path, lines)
        if data:
            data.unlink()
        compare(result, lines)
        print(f"{shape}: {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
