"""The published tables in deploy/results/ are what their raw results and their peers' lines say, to the letter."""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

from harness import BIN

ROOT = pathlib.Path(__file__).resolve().parents[2]
PUBLISHED = ROOT / "deploy" / "results"
FIXTURE = ROOT / "tests" / "golden" / "results"  # made by make_results_fixture.sh there


def render(path):
    """The table of one file of raw results; `again:` in it names the file as seen from its folder."""
    return subprocess.run([BIN / "attnfleet", "results", f"--input={path.name}", "--format=markdown"], cwd=path.parent,
                          check=True, capture_output=True, text=True).stdout


def render_peers(path):
    """The table of one file of raw results and the .peer.jsonl beside it."""
    return subprocess.run([sys.executable, "-B", ROOT / "tests" / "peers" / "side_by_side.py", f"--table={path}"],
                          check=True, capture_output=True, text=True).stdout


def problems(folder):
    """What is wrong in a folder of NAME.json beside NAME.md, and beside NAME.peers.md where there is NAME.peer.jsonl."""
    found = []
    for raw in sorted(folder.glob("*.json")):
        table = raw.with_suffix(".md")
        if not table.exists():
            found.append(f"{table.name} is missing")
        elif table.read_text() != render(raw):
            found.append(f"{table.name} is not what {raw.name} gives")
    for lines in sorted(folder.glob("*.peer.jsonl")):
        raw = folder / lines.name.replace(".peer.jsonl", ".json")
        table = raw.with_suffix(".peers.md")
        if not table.exists():
            found.append(f"{table.name} is missing")
        elif table.read_text() != render_peers(raw):
            found.append(f"{table.name} is not what {raw.name} and {lines.name} give")
    for table in sorted(folder.glob("*.md")):
        if table.name.endswith(".peers.md"):
            if not (folder / table.name.replace(".peers.md", ".peer.jsonl")).exists():
                found.append(f"{table.name} has no {table.name.replace('.peers.md', '.peer.jsonl')}")
        elif table.name != "README.md" and not table.with_suffix(".json").exists():
            found.append(f"{table.name} has no {table.with_suffix('.json').name}")
    return found


class Published(unittest.TestCase):
    def test_every_table_is_what_its_results_give(self):
        self.assertEqual(problems(PUBLISHED), [])


class Machinery(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="attnfleet-published-"))
        self.addCleanup(shutil.rmtree, self.folder)
        for path in FIXTURE.glob("double.*"):
            shutil.copy(path, self.folder)

    def test_fixture_is_in_order_and_an_empty_folder_too(self):
        self.assertEqual(problems(self.folder), [])
        for path in self.folder.iterdir():
            path.unlink()
        (self.folder / "README.md").write_text("no table\n")
        self.assertEqual(problems(self.folder), [])

    def test_a_figure_changed_by_hand_is_found(self):
        table = self.folder / "double.md"
        text = table.read_text()
        self.assertIn("2.00x", text)
        table.write_text(text.replace("2.00x", "2.84x", 1))
        self.assertEqual(problems(self.folder), ["double.md is not what double.json gives"])

    def test_a_result_changed_without_its_table_is_found(self):
        raw = self.folder / "double.json"
        benchmark = json.loads(raw.read_text())
        benchmark["jobs"][0]["summary"]["iterations_per_second_median"] *= 2
        raw.write_text(json.dumps(benchmark))
        self.assertEqual(problems(self.folder), ["double.md is not what double.json gives"])

    def test_a_table_without_results_and_results_without_a_table_are_found(self):
        (self.folder / "double.json").rename(self.folder / "other.json")
        self.assertEqual(problems(self.folder), ["other.md is missing", "double.md has no double.json"])

    def test_a_peers_figure_changed_by_hand_and_a_table_without_its_peer_are_found(self):
        for name in ("fused-step-h100.json", "fused-step-h100.md", "fused-step-h100.peer.jsonl",
                     "fused-step-h100.peers.md"):
            shutil.copy(PUBLISHED / name, self.folder)
        self.assertEqual(problems(self.folder), [])
        lines = self.folder / "fused-step-h100.peer.jsonl"
        text = lines.read_text()
        speed = json.loads(text.splitlines()[0])["iterations_per_second"]
        lines.write_text(text.replace(str(speed), str(speed / 2), 1))
        self.assertEqual(problems(self.folder),
                         ["fused-step-h100.peers.md is not what fused-step-h100.json and fused-step-h100.peer.jsonl give"])
        lines.unlink()
        self.assertEqual(problems(self.folder), ["fused-step-h100.peers.md has no fused-step-h100.peer.jsonl"])


if __name__ == "__main__":
    unittest.main()
