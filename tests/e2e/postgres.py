"""A PostgreSQL of the test's own: in a temporary folder, on a Unix socket there, as a user without rights."""

import os
import pathlib
import pwd
import shutil
import signal
import subprocess
import tempfile
import time


class Postgres:
    def __init__(self):
        self.bin = pathlib.Path(subprocess.check_output(["pg_config", "--bindir"], text=True).strip())
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="attnfleet-pg-"))
        self.unprivileged = []
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            nobody = pwd.getpwnam("nobody")
            os.chown(self.dir, nobody.pw_uid, nobody.pw_gid)
            # It becomes the program, which so stays this process's own child and is reaped at once.
            self.unprivileged = ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups",
                                 "--"]
        self.process = None
        self.url = self._url("attnfleet")
        try:
            self._run("initdb", "-D", self.dir / "data", "-U", "attnfleet", "-A", "trust", "--no-sync", "--locale=C",
                      "-E", "UTF8")
            self.start()
            self._run("createdb", "-h", self.dir, "-U", "attnfleet", "attnfleet")
        except BaseException:
            self.remove()
            raise

    def _url(self, database):
        return f"postgresql:///{database}?host={self.dir}&user=attnfleet"

    def _run(self, program, *args):
        subprocess.run([*self.unprivileged, self.bin / program, *args], check=True, stdout=subprocess.DEVNULL,
                       stdin=subprocess.DEVNULL, cwd="/", timeout=120)

    def start(self):
        with open(self.dir / "log", "ab") as log:
            self.process = subprocess.Popen([*self.unprivileged, self.bin / "postgres", "-D", self.dir / "data", "-k",
                                             self.dir, "-c", "listen_addresses=", "-c", "fsync=off"],
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 60
        while subprocess.run([self.bin / "pg_isready", "-h", self.dir, "-q"]).returncode != 0:
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise AssertionError(f"PostgreSQL does not start:\n{(self.dir / 'log').read_text()}")
            time.sleep(0.05)

    def stop(self):
        """At once, as a power cut would: the next start recovers from the log."""
        if self.process:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(60)
            self.process = None

    def query(self, sql, database="attnfleet"):
        """The first column of the first row, as text."""
        return subprocess.check_output([self.bin / "psql", "-X", "-A", "-t", "-c", sql, self._url(database)], text=True,
                                       timeout=60).split("\n")[0]

    def allow_connections(self, allowed):
        """Whether new ones are let in; those that are there stay."""
        self.query(f"ALTER DATABASE attnfleet ALLOW_CONNECTIONS {allowed}", database="postgres")

    def remove(self):
        self.stop()
        shutil.rmtree(self.dir, ignore_errors=True)
