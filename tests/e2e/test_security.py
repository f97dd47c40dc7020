"""The real programs over a network that is not trusted: certificates, roles, hostile strings and hostile peers."""

import os
import pathlib
import re
import shutil
import socket
import subprocess
import time
import unittest

import http2
from harness import BIN, DOUBLE, OK, FAILED, REFUSED, UNAVAILABLE, USAGE, E2ETest, wait_until

ROOT = pathlib.Path(__file__).resolve().parents[2]
SUBMIT = "/attnfleet.v1.BenchmarkService/Submit"
LIST = "/attnfleet.v1.BenchmarkService/List"
CONNECT = "/attnfleet.v1.WorkerService/Connect"
UNAUTHENTICATED, RESOURCE_EXHAUSTED, INVALID_ARGUMENT = 16, 8, 3


class Secured(E2ETest):
    """A server behind TLS, with certificates made by the script that users have."""

    ROLES = "alice submitter\nbob submitter\nops admin\nw1 worker\neve submitter\n"

    def setUp(self):
        super().setUp()
        self.certificates = self.dir / "certificates"
        self.script("ca")
        self.script("server", "server", "localhost", "127.0.0.1")
        self.roles = self.dir / "roles"
        self.set_roles(self.ROLES)

    def script(self, *args, days="1"):
        subprocess.run(["bash", ROOT / "deploy" / "certificates.sh", self.certificates, *args], check=True,
                       env={**os.environ, "DAYS": days}, capture_output=True)

    def files(self, name):
        return [str(self.certificates / "ca.pem"), str(self.certificates / f"{name}.pem"),
                str(self.certificates / f"{name}.key")]

    def flags(self, name):
        if not (self.certificates / f"{name}.pem").exists():
            self.script("client", name)
        return [flag + path for flag, path in zip(("--ca=", "--cert=", "--key="), self.files(name))]

    def set_roles(self, text):
        new = self.roles.with_suffix(".new")
        new.write_text(text)
        new.rename(self.roles)

    def start_secured(self, *args):
        return self.start_server(*self.flags("server"), f"--roles={self.roles}", *args)

    def as_(self, name, server):
        return [f"--server={server.address}", *self.flags(name)]


class Fleet(Secured):
    def test_a_benchmark_runs_and_each_role_does_what_it_may(self):
        server = self.start_secured()
        worker = self.start_worker(server, "w1", *self.flags("w1"))
        args = ["--preset=tiny", "--repetitions=1", "--device=cpu"]
        number = self.attnfleet("submit", *args, *self.as_("alice", server)).stdout.split()[0]
        self.attnfleet("watch", number, *self.as_("alice", server))
        benchmark = self.results(number, *self.as_("alice", server))
        self.assertEqual(self.outcomes(benchmark), {"MEASURED": 4})
        self.assertEqual(benchmark["spec"]["submitter"], "alice")
        refused = self.attnfleet("cancel", number, *self.as_("bob", server), expect=REFUSED)
        self.assertIn(f"benchmark {number} is alice's", refused.stderr)
        self.attnfleet("cancel", number, *self.as_("ops", server))
        # The certificates from the environment.
        ca, cert, key = self.files("alice")
        self.attnfleet("list", f"--server={server.address}", ATTNFLEET_CA=ca, ATTNFLEET_CERT=cert, ATTNFLEET_KEY=key)

        # Revoked while it is connected: the stream is cut, and the worker cannot come back until it is listed again.
        self.set_roles(self.ROLES.replace("w1 worker\n", ""))
        wait_until("the worker to be cut off", lambda: "w1 is not in the server's list of roles" in worker.stderr)
        self.assertIsNone(worker.process.poll())
        self.set_roles(self.ROLES)
        number = self.attnfleet("submit", *args, *self.as_("bob", server)).stdout.split()[0]
        self.attnfleet("watch", number, *self.as_("bob", server))

    def test_a_worker_has_the_name_of_its_certificate(self):
        server = self.start_secured()
        worker = self.start_worker(server, "w2", *self.flags("w1"), wait=False)
        self.assertEqual(worker.wait(), USAGE, worker.dump())
        self.assertIn("the certificate is that of w1", worker.stderr)

    def test_what_is_wrong_with_the_files_is_said(self):
        server = self.start_secured()
        ca, cert, key = self.flags("alice")
        self.script("client", "old", days="-1")
        for flags, text in (([ca, cert], "--key: missing"),
                            ([ca, "--cert=/none.pem", key], "--cert: cannot read /none.pem"),
                            ([ca, cert, self.flags("bob")[2]], "is not the key of the certificate"),
                            (self.flags("old"), "has expired on")):
            failed = self.attnfleet("list", f"--server={server.address}", *flags, expect=USAGE)
            self.assertIn(text, failed.stderr)
            self.assertIn(text, self.run_program("attnfleet-worker", f"--server={server.address}", *flags,
                                                 f"--trainer={DOUBLE}")[0].stderr)
        plain = self.attnfleet("list", f"--server={server.address}", "--timeout=1s", expect=UNAVAILABLE)
        self.assertIn("does the server want TLS?", plain.stderr)
        other = self.start_server(state=self.dir / "plain")
        # gRPC leaks what a handshake that failed had made; AddressSanitizer would tell.
        tls = self.attnfleet("list", f"--server={other.address}", *self.flags("alice"), "--timeout=1s",
                             expect=UNAVAILABLE, ASAN_OPTIONS="detect_leaks=0")
        self.assertRegex(tls.stderr, "^attnfleet: cannot reach the server at .*\n$", "and no line of gRPC's own")

    def test_a_server_without_all_it_needs_is_refused(self):
        for args, text in ((["--listen=0.0.0.0:0"], "--insecure"),
                           (["--listen=0.0.0.0:0", *self.flags("server")], "--roles: missing"),
                           ([f"--roles={self.roles}"], "--ca: missing"),
                           ([*self.flags("server"), "--roles=/none"], "--roles: "),
                           (["--max-connections=0"], "--max-connections: ")):
            program, status = self.run_program("attnfleet-server", *args, f"--state-dir={self.dir}/other")
            self.assertEqual(status, USAGE, program.dump())
            self.assertIn(text, program.stderr)


class HostileStrings(E2ETest):
    """No text of a spec reaches a shell, or a path outside the worker's folders."""

    def setUp(self):
        super().setUp()
        self.server = self.start_server()
        self.files_dir = self.dir / "files"
        self.files_dir.mkdir()
        self.bait = self.dir / "bait"
        self.start_worker(self.server, "w1", f"--files={self.files_dir}")

    def submit(self, *args, expect=OK):
        return self.attnfleet("submit", f"--server={self.server.address}", "--preset=tiny", "--repetitions=1",
                              "--device=cpu", *args, expect=expect)

    def test_texts_are_data_wherever_they_go(self):
        evil = f"$(touch {self.bait}); `touch {self.bait}` | touch {self.bait} & '\"\\ \x1b[2J --torch=/evil %s%n"
        number = self.submit(f"--name={evil}").stdout.split()[0]
        self.attnfleet("watch", number, f"--server={self.server.address}")
        benchmark = self.results(number, f"--server={self.server.address}")
        self.assertEqual(self.outcomes(benchmark), {"MEASURED": 4})
        self.assertEqual(benchmark["spec"]["name"], evil)
        self.assertFalse(self.bait.exists())
        for line in self.trainer_starts():
            self.assertNotIn("touch", line)
            self.assertNotIn("/evil", line)

    def test_names_that_would_become_arguments_or_paths_are_refused(self):
        (self.dir / "secret").write_text("secret")
        (self.files_dir / "link").symlink_to("/etc/hostname")
        for flag in (f"--backends=eager;touch {self.bait}", f"--backends=$(touch {self.bait})",
                     "--backends=--torch=/evil", "--data-file=../secret", "--data-file=/etc/passwd", "--data-file=..",
                     "--weights-file=a/b", "--weights-file=../files/link"):
            refused = self.submit(flag, expect=USAGE)
            self.assertRegex(refused.stderr, "backend|-file", flag)
        self.assertEqual(self.trainer_starts(), [])
        self.assertFalse(self.bait.exists())

    def test_a_file_name_that_looks_like_a_flag_is_a_name(self):
        number = self.submit("--data-file=--torch=evil;x").stdout.split()[0]
        self.attnfleet("watch", number, f"--server={self.server.address}", expect=FAILED)
        self.assertEqual(self.trainer_starts(), [])  # there is no such file, so no trainer was started


@unittest.skipUnless(shutil.which("systemd-analyze"), "no systemd-analyze here (Debian package systemd)")
class Units(unittest.TestCase):
    def test_the_systemd_units_are_hardened(self):
        for program in ("server", "worker"):
            unit = ROOT / "deploy" / "systemd" / f"attnfleet-{program}.service"
            # The threshold is in tenths: 2.0 of 10.
            done = subprocess.run(["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager",
                                   unit], capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            self.assertIn("Overall exposure level", done.stdout)
            program_flags = subprocess.run([BIN / f"attnfleet-{program}", "--help"], capture_output=True,
                                           text=True).stdout
            for flag in re.findall(r" (--[a-z-]+)=", unit.read_text()):
                self.assertIn(flag + "=", program_flags)


class Abuse(Secured):
    """What tests/bench/abuse.py does at length: refused properly, and the server answers others meanwhile."""

    def setUp(self):
        super().setUp()
        self.server = self.start_secured("--max-connections-per-address=20")
        self.flags("eve")
        self.context = http2.tls_context(*self.files("eve"))
        self.open = []

    def tearDown(self):
        for connection in self.open:
            connection.close()
        super().tearDown()

    def eve(self, **more):
        """A connection of Eve's, from an address of her own."""
        self.open.append(http2.Connection(self.server.address, self.context, source="127.0.0.2", **more))
        return self.open[-1]

    def assert_server_answers(self):
        self.attnfleet("list", *self.as_("alice", self.server))
        self.assertIsNone(self.server.process.poll())

    def test_a_message_larger_than_any_is_refused(self):
        eve = self.eve()
        self.assertEqual(eve.upload(eve.start(SUBMIT), 80 << 20), RESOURCE_EXHAUSTED)
        self.assert_server_answers()

    def test_a_billion_runs_are_refused(self):
        self.assertEqual(self.eve().call(SUBMIT, http2.axes_of_a_billion_runs()), INVALID_ARGUMENT)
        self.assert_server_answers()

    def test_large_headers_are_refused_and_endless_ones_harm_nobody(self):
        eve = self.eve()
        stream = eve.start(LIST, more=[("x-flood", "x" * 10000)])
        eve.send(http2.frame(http2.DATA, http2.END_STREAM, stream, http2.message(b"")))
        self.assertEqual(eve.finish(stream), RESOURCE_EXHAUSTED)
        eve = self.eve()
        stream = eve.start(LIST, flags=0)
        for _ in range(1000):  # 16 MB
            eve.send(http2.frame(http2.CONTINUATION, 0, stream, http2.header("x-flood", "x" * 16000)))
        self.assert_server_answers()

    def test_connections_without_end_are_refused_and_others_served(self):
        held = []
        for _ in range(60):
            one = socket.create_connection(self.server.address.rsplit(":", 1), 10, ("127.0.0.2", 0))
            held.append(one)
        self.assert_server_answers()

        def closed(one):
            one.setblocking(False)
            try:
                return one.recv(1, socket.MSG_PEEK) == b""
            except BlockingIOError:
                return False
            except OSError:
                return True
        wait_until("40 of 60 to be closed", lambda: sum(map(closed, held)) >= 40, 20)
        for one in held:
            one.close()

    def test_streams_that_say_nothing_are_ended(self):
        self.set_roles(self.ROLES.replace("eve submitter", "eve worker"))
        # Until the new role is read, the call is refused.
        deadline = time.monotonic() + 30
        while True:
            eve = self.eve()
            begin = time.monotonic()
            status = eve.finish(eve.start(CONNECT))
            if status != 7 or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        self.assertEqual(status, 1)  # CANCELLED
        self.assertGreater(time.monotonic() - begin, 5)
        self.assert_server_answers()
