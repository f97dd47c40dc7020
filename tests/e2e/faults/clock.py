"""A program's own clock, by libfaketime: it can jump while the machine's stays as it is."""

from .surroundings import libfaketime


class Clock:
    def __init__(self, path):
        self._path = path
        self.offset = 0
        self.jump_to(0)

    def jump_to(self, offset):
        """Seconds from the machine's clock."""
        self.offset = offset
        fresh = self._path.with_suffix(".new")
        fresh.write_text(f"{offset:+d}\n")
        fresh.rename(self._path)

    def environment(self):
        # A jump of the wall clock never moves the monotonic one.
        return {"LD_PRELOAD": str(libfaketime()), "FAKETIME_TIMESTAMP_FILE": str(self._path),
                "FAKETIME_CACHE_DURATION": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
