"""What an operator sees: logs that follow one request, and a server that stops in order."""

import json
import os
import pathlib
import re
import signal
import unittest

from harness import OK, USAGE, E2ETest, free_address, wait_until

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Logs(E2ETest):
    def lines(self, program):
        """Standard error, every line of which is one JSON object."""
        return [json.loads(line) for line in program.stderr.splitlines()]

    def test_one_request_id_is_found_from_client_to_trainer(self):
        server = self.start_server("--verbose", "--log-format=json")
        worker = self.start_worker(server, "w1", "--verbose", "--log-format=json")
        to_server = f"--server={server.address}"
        self.attnfleet("submit", to_server, "--preset=tiny", "--shapes=4x64", "--backends=sdpa", "--repetitions=1")
        submit = self.attnfleet("submit", to_server, "--preset=tiny", "--shapes=4x64", "--backends=eager",
                                "--repetitions=2", "--request-id=ci:42")
        self.assertIn("request ci:42", submit.stderr)
        number = submit.stdout.split()[0]
        self.attnfleet("watch", to_server, number)

        def messages(program):
            return [line["message"] for line in self.lines(program) if line.get("request_id") == "ci:42"]
        first, second = f"run {number}/0/0", f"run {number}/0/1"
        wait_until("the last run in the server's log", lambda: f"{second} measured" in messages(server))
        self.assertEqual(messages(server), [f"benchmark {number} of 2 runs is submitted", f"{first} is assigned",
                                            f"{first} measured", f"{second} is assigned", f"{second} measured"])
        said = "has begun, says its trainer of request ci:42"
        self.assertEqual(messages(worker), [f"{first} starts: eager 4x64", f"{first} {said}",
                                            f"{first} (eager 4x64) measured", f"{second} starts: eager 4x64",
                                            f"{second} {said}", f"{second} (eager 4x64) measured"])
        for program in (server, worker):
            for line in self.lines(program):
                self.assertLessEqual({"time", "level", "program", "message"}, set(line))
                self.assertEqual(line["program"], program.name)
        line = next(line for line in self.lines(worker) if line.get("request_id") == "ci:42")
        self.assertEqual((line["run"], line["attempt"], line["slot"]), (f"{number}/0/0", "1", "cpu0"))

    def test_the_same_request_id_is_the_same_benchmark(self):
        server = self.start_server()
        numbers = {self.attnfleet("submit", f"--server={server.address}", "--preset=tiny", "--request-id=nightly-7"
                                  ).stdout for _ in range(2)}
        self.assertEqual(len(numbers), 1)

    def test_a_wrong_format_or_id_is_told(self):
        server, status = self.run_program("attnfleet-server", "--log-format=xml")
        self.assertEqual(status, USAGE, server.dump())
        self.assertIn('--log-format: "xml" is none; text or json is possible', server.stderr)
        bad = self.attnfleet("submit", "--server=127.0.0.1:1", "--preset=tiny", "--request-id=two words", expect=USAGE)
        self.assertIn("--request-id: give 1 to 64 letters", bad.stderr)


class StoreBesideOthers(E2ETest):
    def test_check_and_backup_of_a_running_store_take_nothing_from_it(self):
        """The server that reads an ended benchmark back must keep SQLite's locks: who comes beside it would else believe
        itself alone and delete the log that the server writes to."""
        listen = free_address()
        state = f"--state-dir={self.state}"

        def submit():
            return self.attnfleet("submit", f"--server={listen}", "--preset=tiny").stdout.strip()
        server = self.start_server(listen=listen, state=self.state)
        submit()
        self.attnfleet("cancel", "1", f"--server={listen}")
        server.kill(signal.SIGTERM)
        server.wait()
        server = self.start_server(listen=listen, state=self.state)
        self.attnfleet("results", "1", f"--server={listen}")
        submit()
        check, status = self.run_program("attnfleet-server", "check", state)
        self.assertEqual(status, OK, check.dump())
        self.assertEqual(submit(), "3")
        backup, status = self.run_program("attnfleet-server", "backup", str(self.dir / "copy"), state)
        self.assertEqual(status, OK, backup.dump())
        self.assertEqual(submit(), "4")
        check, status = self.run_program("attnfleet-server", "check", state)
        self.assertIn("4 benchmarks", check.stdout + check.stderr)
        server.kill(signal.SIGKILL)
        server.wait()
        files = [self.state / "attnfleet.db", self.state / "attnfleet.db-wal"]
        killed = [file.read_bytes() for file in files]
        check, status = self.run_program("attnfleet-server", "check", state)
        self.assertEqual(status, OK, check.dump())
        self.assertEqual([file.read_bytes() for file in files], killed, "what kill -9 left is the next server's")
        self.start_server(listen=listen, state=self.state)
        self.assertEqual(submit(), "5")
        listed = json.loads(self.attnfleet("list", f"--server={listen}", "--format=json").stdout)
        self.assertEqual(sorted(int(benchmark["id"]) for benchmark in listed["benchmarks"]), [1, 2, 3, 4, 5])


class Shutdown(E2ETest):
    def test_connections_that_end_for_their_age_lose_nothing(self):
        server = self.start_server("--max-connection-age=1s", "--verbose")
        self.start_worker(server, double="eager:slow=0.3,sdpa:slow=0.3")
        number = self.attnfleet("submit", f"--server={server.address}", "--preset=tiny",
                                "--repetitions=5").stdout.split()[0]
        self.attnfleet("watch", f"--server={server.address}", number)
        self.assertEqual(self.outcomes(self.results(f"--server={server.address}", number)), {"MEASURED": 20})
        self.assertEqual(len(self.trainer_starts()), 20, "what runs while the worker comes back goes on")
        self.assertGreaterEqual(server.stderr.count("worker w1 is connected"), 2)

    def test_sigterm_tells_workers_and_watchers_who_go_on_with_the_next_server(self):
        listen = free_address()
        server = self.start_server(listen=listen)
        worker = self.start_worker(server, double="eager:slow=0.3,sdpa:slow=0.3")
        number = self.attnfleet("submit", f"--server={listen}", "--preset=tiny", "--repetitions=2").stdout.split()[0]
        watch = self.start("attnfleet", "watch", f"--server={listen}", number)
        wait_until("two trainers", lambda: len(self.trainer_starts()) >= 2)
        server.kill(signal.SIGTERM)
        self.assertEqual(server.wait(), OK, server.dump())
        wait_until("the worker to be told", lambda: "the coordinator is stopping" in worker.stderr)
        self.start_server(listen=listen)
        self.assertEqual(watch.wait(), OK, watch.dump())
        benchmark = self.results(f"--server={listen}", number)
        self.assertEqual(self.outcomes(benchmark), {"MEASURED": 8})
        self.assertEqual(len(self.trainer_starts()), 8, "no run was started twice")


class Systemd(E2ETest):
    def test_the_units_stop_lets_runs_end_within_the_drain_timeout(self):
        unit = (ROOT / "deploy" / "systemd" / "attnfleet-worker.service").read_text()
        mode = re.search(r"^KillMode=(.*)$", unit, re.MULTILINE)
        server = self.start_server()
        worker = self.start_worker(server, "w1", "--drain-timeout=60s", double="eager:slow=2")
        number = self.attnfleet("submit", f"--server={server.address}", "--preset=tiny", "--shapes=4x64",
                                "--backends=eager", "--repetitions=1").stdout.split()[0]
        wait_until("its trainer", self.trainer_starts)
        # As systemd does; without a word in the unit SIGTERM is for all of its processes.
        to_all = mode is None or mode.group(1) == "control-group"
        for pid in [worker.pid, *(self.running("attnfleet-trainer-double") if to_all else [])]:
            os.kill(pid, signal.SIGTERM)
        self.assertEqual(worker.wait(), OK, worker.dump())
        run, = self.runs(self.results(f"--server={server.address}", number))
        self.assertEqual((run["attempt"], run["result"]["outcome"]), (1, "OUTCOME_MEASURED"))


if __name__ == "__main__":
    unittest.main()
