"""What was done, as JSON Lines that outlive the harness, and how others' lines are read while they grow."""

import json
import threading


class Journal:
    def __init__(self, path):
        self._file = open(path, "a", encoding="utf-8")
        self._lock = threading.Lock()

    def write(self, **entry):
        with self._lock:
            self._file.write(json.dumps(entry, sort_keys=True) + "\n")
            self._file.flush()


class Tail:
    """The lines of a file that grows, each given once."""

    def __init__(self, path, from_end=False):
        self.path = path
        self._position = path.stat().st_size if from_end and path.exists() else 0

    def lines(self):
        if not self.path.exists():
            return []
        with open(self.path, "rb") as file:
            file.seek(self._position)
            data = file.read()
        whole = data[:data.rfind(b"\n") + 1]
        self._position += len(whole)
        return whole.decode(errors="replace").splitlines()

    def records(self):
        """Those lines that are JSON objects."""
        return [json.loads(line) for line in self.lines() if line.startswith("{")]
