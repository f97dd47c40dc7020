"""A small disk of a program's own, which can be full."""

import contextlib
import errno
import os
import subprocess

BLOCK = bytes(4096)


class Disk:
    def __init__(self, path, megabytes):
        self.path = path
        path.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", path], check=True)
        self._filler = path / "filler"

    def fill(self):
        """To the brim; returns the bytes that it took, 0 if it was full."""
        taken = 0
        with open(self._filler, "ab", buffering=0) as file:
            try:
                while True:
                    taken += file.write(BLOCK)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
        return taken

    def free_bytes(self):
        stat = os.statvfs(self.path)
        return stat.f_bavail * stat.f_frsize

    def free(self):
        with contextlib.suppress(FileNotFoundError):
            self._filler.unlink()

    def remove(self):
        subprocess.run(["umount", "--lazy", self.path], check=True)
