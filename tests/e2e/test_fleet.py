"""A server with workers, over real gRPC: every command, and kill -9 of each program in the middle of a benchmark."""

import json
import os
import signal
import socket
import unittest
import urllib.request

from harness import (BIN, DOUBLE, FAILED, INTERRUPTED, OK, UNAVAILABLE, USAGE, E2ETest, free_address, needs_mounts,
                     wait_until)

SLOW = "eager:slow=0.2,sdpa:slow=0.2"


class Commands(E2ETest):
    def setUp(self):
        super().setUp()
        self.server = self.start_server()
        self.to_server = f"--server={self.server.address}"

    def submit(self, *args):
        return int(self.attnfleet("submit", self.to_server, *args).stdout.split()[0])

    def test_submit_watch_list_results_workers_backends_explain(self):
        worker = self.start_worker(self.server, slots="cpu:2")
        number = self.submit("--preset=tiny", "--repetitions=2", "--name=first")
        watched = self.attnfleet("watch", self.to_server, str(number))
        self.assertIn("sdpa", watched.stdout)
        self.assertEqual(self.outcomes(self.results(self.to_server, str(number))), {"MEASURED": 8})
        self.assertIn("first", self.attnfleet("list", self.to_server).stdout)
        self.assertIn("w1", self.attnfleet("workers", self.to_server).stdout)
        self.assertIn("flash2", self.attnfleet("backends", self.to_server).stdout)
        self.assertTrue(self.attnfleet("explain", self.to_server, str(number)).stdout.strip())
        for command in ("list", "workers", "backends"):
            json.loads(self.attnfleet(command, self.to_server, "--format=json").stdout)

    def test_explain_says_why_a_job_waits(self):
        number = self.submit("--preset=tiny")
        self.assertIn("no worker", self.attnfleet("explain", self.to_server, str(number)).stdout)
        self.start_worker(self.server)
        second = self.submit("--preset=tiny", "--device=cuda")
        self.assertIn("cuda", self.attnfleet("explain", self.to_server, str(second)).stdout.lower())

    def test_a_worker_can_be_started_with_sigchld_ignored(self):
        self.start_worker(self.server, prefix=["bash", "-c", "trap '' CHLD; exec \"$@\"", "bash"])
        number = self.submit("--preset=tiny", "--repetitions=1")
        self.attnfleet("watch", self.to_server, str(number))

    def test_watch_says_why_nothing_runs(self):
        number = self.submit("--preset=tiny", "--repetitions=1")
        watch = self.start("attnfleet", "watch", self.to_server, str(number))
        wait_until("a line at once", lambda: f"attnfleet: benchmark {number}: 0 of 4 runs have ended\n" in watch.stderr)
        wait_until("the reason", lambda: "attnfleet: waiting: no worker is connected\n" in watch.stderr)
        self.start_worker(self.server)
        self.assertEqual(watch.wait(), OK, watch.dump())
        self.assertEqual(watch.stderr.count("waiting"), 1, watch.stderr)

    def test_unknown_backend_is_refused_with_what_there_is(self):
        self.start_worker(self.server)
        bad = self.attnfleet("submit", self.to_server, "--preset=tiny", "--backends=flsh", expect=USAGE)
        self.assertIn('unknown backend "flsh"', bad.stderr)
        self.assertIn("flash2", bad.stderr)

    def test_cancel_keeps_what_was_measured_and_is_idempotent(self):
        self.start_worker(self.server, double=SLOW)
        number = str(self.submit("--preset=tiny", "--repetitions=10"))
        wait_until("three trainers", lambda: len(self.trainer_starts()) >= 3)
        first = self.attnfleet("cancel", self.to_server, number)
        self.assertIn("is cancelled; what was measured is kept", first.stderr)
        second = self.attnfleet("cancel", self.to_server, number)
        self.assertIn("was cancelled already (cancelled by its user)", second.stderr)
        self.attnfleet("watch", self.to_server, number, expect=FAILED)
        for command in ("pause", "resume"):
            self.assertIn("has ended", self.attnfleet(command, self.to_server, number, expect=FAILED).stderr)
        benchmark = self.results(self.to_server, number)
        self.assertEqual(benchmark["state"], "BENCHMARK_STATE_CANCELLED")
        outcomes = self.outcomes(benchmark)
        self.assertEqual(outcomes["MEASURED"] + outcomes["CANCELLED"], 40)
        wait_until("the trainer to stop", lambda: not self.running("attnfleet-trainer-double"), 15)

    def test_unknown_benchmark(self):
        for command in ("watch", "results", "cancel", "explain"):
            bad = self.attnfleet(command, self.to_server, "99", expect=USAGE)
            self.assertIn("99", bad.stderr)

    def test_watch_interrupted_leaves_the_benchmark_running(self):
        self.start_worker(self.server, double=SLOW)
        number = str(self.submit("--preset=tiny", "--repetitions=3"))
        for how in (signal.SIGINT, signal.SIGKILL):
            watch = self.start("attnfleet", "watch", self.to_server, number)
            seen = len(self.trainer_starts())
            wait_until("a trainer", lambda: len(self.trainer_starts()) > seen)
            watch.kill(how)
            self.assertEqual(watch.wait(), INTERRUPTED if how == signal.SIGINT else -signal.SIGKILL)
        self.attnfleet("watch", self.to_server, number)
        self.assertEqual(self.outcomes(self.results(self.to_server, number)), {"MEASURED": 12})


class Faults(E2ETest):
    def submit(self, server, *args):
        return self.attnfleet("submit", f"--server={server.address}", "--preset=tiny", *args).stdout.split()[0]

    def finish(self, server, number, runs):
        self.attnfleet("watch", f"--server={server.address}", number)
        benchmark = self.results(f"--server={server.address}", number)
        self.assertEqual(self.outcomes(benchmark), {"MEASURED": runs})
        return benchmark

    def test_server_killed_and_restarted_loses_nothing_and_counts_nothing_twice(self):
        listen = free_address()
        server = self.start_server(listen=listen)
        self.start_worker(server, slots="cpu:2", double=SLOW)
        number = self.submit(server, "--repetitions=5")
        for killed_after in (3, 9):
            wait_until("trainers", lambda: len(self.trainer_starts()) >= killed_after)
            server.kill()
            server.wait()
            server = self.start_server(listen=listen)
        benchmark = self.finish(server, number, 20)
        self.assertEqual(len(self.trainer_starts()), 20, "the worker went on, so no run was started twice")
        # An assignment that was saved and not yet sent when the server died is an attempt that never began: at most one
        # for each slot and kill.
        self.assertLessEqual(sum(run["attempt"] - 1 for run in self.runs(benchmark)), 2 * 2)

    def lose_the_server_during_a_run(self, double):
        """Where the server was, the worker that runs on, and the benchmark of four runs."""
        listen = free_address()
        server = self.start_server(listen=listen)
        worker = self.start_worker(server, double=double)
        number = self.submit(server, "--repetitions=1")
        wait_until("a trainer", self.trainer_starts)
        server.kill()
        server.wait()
        return listen, worker, number

    def end_a_run_without_a_server(self):
        """The same, and the worker has a result that it cannot deliver."""
        listen, worker, number = self.lose_the_server_during_a_run("eager:slow=1,sdpa:slow=1")
        wait_until("the run to end", lambda: not self.running("attnfleet-trainer-double"))
        return listen, worker, number

    def test_results_made_while_the_server_is_away_are_delivered(self):
        listen, _, number = self.end_a_run_without_a_server()
        server = self.start_server(listen=listen)
        self.finish(server, number, 4)
        self.assertEqual(len(self.trainer_starts()), 4)

    def test_result_survives_the_worker_being_killed_before_it_was_acknowledged(self):
        listen, worker, number = self.end_a_run_without_a_server()
        spool = self.dir / "worker-w1"
        wait_until("the result on disk", lambda: any(p.suffix == ".pb" for p in spool.rglob("*")))
        worker.kill()
        worker.wait()
        server = self.start_server(listen=listen)
        self.start_worker(server)
        self.finish(server, number, 4)
        self.assertEqual(len(self.trainer_starts()), 4, "the spooled result was taken, its run not repeated")

    def test_a_worker_that_stops_while_the_server_is_away_says_what_it_keeps(self):
        listen, worker, number = self.end_a_run_without_a_server()
        worker.kill(signal.SIGTERM)
        self.assertEqual(worker.wait(), OK, worker.dump())
        self.assertIn(f"1 result is not delivered yet; kept in {self.dir / 'worker-w1' / 'spool'}", worker.stderr)
        server = self.start_server(listen=listen)
        again = self.start_worker(server)
        self.finish(server, number, 4)
        self.assertEqual(len(self.trainer_starts()), 4, "what it kept was a result, and the run is not repeated")
        again.kill(signal.SIGTERM)
        self.assertEqual(again.wait(), OK, again.dump())
        self.assertNotIn("not delivered", again.stderr)

    def test_a_run_that_is_handed_back_while_the_server_is_away_is_no_result(self):
        listen, worker, number = self.lose_the_server_during_a_run("eager:hang,sdpa:hang")
        wait_until("the worker to notice", lambda: "connection to" in worker.stderr)
        worker.kill(signal.SIGTERM)
        self.assertEqual(worker.wait(), OK, worker.dump())
        self.assertIn("the return of 1 run is not delivered yet", worker.stderr)
        self.assertNotIn("result is", worker.stderr)
        server = self.start_server(listen=listen)
        self.start_worker(server)
        self.finish(server, number, 4)
        self.assertEqual(len(self.trainer_starts()), 5, "that run alone is repeated")

    def test_a_second_worker_of_a_name_ends_and_says_why_while_the_first_lives(self):
        server = self.start_server()
        first = self.start_worker(server)
        second = self.start_worker(server, state=self.dir / "second", wait=False)
        self.assertEqual(second.wait(), UNAVAILABLE, second.dump())
        self.assertIn(f"{server.address} does not accept this worker yet: a worker named w1 is connected already",
                      second.stderr)
        self.assertIn("refuses this worker: a worker named w1 is running already; give this one another --name",
                      second.stderr)
        self.finish(server, self.submit(server, "--repetitions=1"), 4)
        self.assertIsNone(first.process.poll(), first.dump())

    def test_killed_workers_runs_go_elsewhere(self):
        server = self.start_server()
        first = self.start_worker(server, "w1", double="eager:hang,sdpa:hang")
        number = self.submit(server, "--repetitions=1")
        wait_until("a trainer", self.trainer_starts)
        first.kill()
        first.wait()
        wait_until("the orphan trainer to die", lambda: not self.running("attnfleet-trainer-double"), 10)
        self.start_worker(server, "w2")
        benchmark = self.finish(server, number, 4)
        self.assertEqual({run["worker"] for run in self.runs(benchmark)}, {"w2"})

    def test_frozen_worker_loses_its_run_and_its_late_result_is_not_counted(self):
        server = self.start_server()
        first = self.start_worker(server, "w1", double="eager:slow=1,sdpa:slow=1")
        number = self.submit(server, "--repetitions=1", "--shapes=4x64")
        wait_until("a trainer", self.trainer_starts)
        first.kill(signal.SIGSTOP)
        self.start_worker(server, "w2")
        benchmark = self.finish(server, number, 2)
        self.assertEqual({run["worker"] for run in self.runs(benchmark)}, {"w2"})
        first.kill(signal.SIGCONT)
        # Its trainer ends only now, and its report is dropped from the spool once the server has answered it.
        wait_until("w1 to be back", lambda: "w1" in self.attnfleet("workers", f"--server={server.address}").stdout)
        spool = self.dir / "worker-w1" / "spool"
        wait_until("w1's late report to be answered", lambda: spool.is_dir() and not list(spool.iterdir()))
        again = self.results(f"--server={server.address}", number)
        self.assertEqual({run["worker"] for run in self.runs(again)}, {"w2"})

    def test_sigterm_of_a_worker_hands_its_run_back(self):
        server = self.start_server()
        first = self.start_worker(server, "w1", double="eager:hang,sdpa:hang")
        number = self.submit(server, "--repetitions=1", "--max-attempts=1")
        wait_until("a trainer", self.trainer_starts)
        first.kill(signal.SIGTERM)
        self.assertEqual(first.wait(), OK, first.dump())
        self.start_worker(server, "w2")
        self.finish(server, number, 4)  # though one attempt is all: handing back counts as none
        self.assertRegex(self.attnfleet("workers", f"--server={server.address}").stdout, r"(?m)^w1 .* stopped ")

    def test_a_run_that_is_handed_back_is_no_failure_though_the_server_dies_before_it_has_saved_that(self):
        listen = free_address()
        server = self.start_server(listen=listen)
        first = self.start_worker(server, "w1", double="eager:hang,sdpa:hang")
        number = self.submit(server, "--repetitions=1", "--max-attempts=1")
        wait_until("a trainer", self.trainer_starts)
        server.kill(signal.SIGSTOP)
        first.kill(signal.SIGTERM)
        wait_until("the trainer to stop", lambda: not self.running("attnfleet-trainer-double"))
        server.kill()
        server.wait()
        server = self.start_server("--lease=20s", listen=listen)
        self.assertEqual(first.wait(), OK, first.dump())
        if "not delivered" in first.stderr:  # the server was long in coming
            self.start_worker(server, "w1")
        self.start_worker(server, "w2")
        self.finish(server, number, 4)

    def test_slot_of_a_trainer_that_cannot_be_killed_is_out_of_service_until_it_has_ended(self):
        server = self.start_server()
        to_server = f"--server={server.address}"

        def submit(shapes):
            return self.attnfleet("submit", to_server, "--preset=tiny", f"--shapes={shapes}",
                                  "--backends=eager", "--repetitions=1").stdout.split()[0]

        stuck = self.start_worker(server, "w1", double="*:unkillable")
        cancelled = submit("1x64")
        pid = int(wait_until("a trainer", self.trainer_starts)[0].split()[0])
        self.start_worker(server, "w2")
        self.attnfleet("cancel", to_server, cancelled)
        number = submit("1x64,2x64,3x64,4x64")  # the first of them waits for the trainer that is to be killed
        self.attnfleet("watch", to_server, number)
        benchmark = self.results(to_server, number)
        self.assertEqual(self.outcomes(benchmark), {"MEASURED": 4})
        self.assertEqual([run.get("failed_attempts", []) for run in self.runs(benchmark)], [[]] * 4)
        self.assertRegex(stuck.stderr, rf"error .*process {pid} \(state S\) has not ended 30 s after SIGKILL")
        self.assertRegex(self.attnfleet("workers", to_server).stdout, "w1 .*draining")
        os.kill(pid, signal.SIGKILL)
        wait_until("the slot", lambda: "draining" not in self.attnfleet("workers", to_server).stdout)

    def test_second_worker_of_the_same_name_or_state_is_told(self):
        server = self.start_server()
        self.start_worker(server, "w1")
        same_state = self.start_worker(server, "w2", state=self.dir / "worker-w1", wait=False)
        self.assertEqual(same_state.wait(), UNAVAILABLE, same_state.dump())
        self.assertRegex(same_state.stderr, r"held by process \d+")
        same_name = self.start_worker(server, "w1", state=self.dir / "other", wait=False)
        self.assertEqual(same_name.wait(), UNAVAILABLE, same_name.dump())
        self.assertIn("w1", same_name.stderr)


class ServerStart(E2ETest):
    def start_failing(self, *args, **kwargs):
        return self.run_program("attnfleet-server", "--metrics-listen=off", *args, **kwargs)

    def test_port_in_use(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = "127.0.0.1:%d" % taken.getsockname()[1]
            program, status = self.start_failing(f"--listen={address}", f"--state-dir={self.state}")
            self.assertEqual(status, UNAVAILABLE, program.dump())
            self.assertIn(address, program.stderr)
            program, status = self.run_program("attnfleet-server", "--listen=127.0.0.1:0", f"--state-dir={self.state}",
                                               f"--metrics-listen={address}")
            self.assertEqual(status, UNAVAILABLE, program.dump())
            self.assertIn(f"--metrics-listen: cannot listen on {address}: the port is taken", program.stderr)

    def test_a_value_that_is_none_of_its_flag_is_told_with_one_that_is(self):
        for flag, words in (("--max-connection-age=10", "30s, 5m or 6h"), ("--lease=soon", "30s, 5m or 6h"),
                            ("--max-connections=many", "give a whole number")):
            program, status = self.start_failing(flag)
            self.assertEqual(status, USAGE, program.dump())
            self.assertIn(words, program.stderr)
            self.assertIn(flag.split("=")[0], program.stderr)

    def test_port_of_another_server(self):
        server = self.start_server(state=self.state)
        program, status = self.start_failing(f"--listen={server.address}", f"--state-dir={self.state}-other")
        self.assertEqual(status, UNAVAILABLE, program.dump())
        self.assertIn(server.address, program.stderr)

    def test_state_directory_in_use(self):
        self.start_server(state=self.state)
        program, status = self.start_failing("--listen=127.0.0.1:0", f"--state-dir={self.state}")
        self.assertEqual(status, UNAVAILABLE, program.dump())
        self.assertRegex(program.stderr, r"process \d+")

    def test_truncated_database_is_refused_and_left_as_it_is(self):
        server = self.start_server(state=self.state)
        self.start_worker(server)
        number = self.attnfleet("submit", f"--server={server.address}", "--preset=tiny").stdout.split()[0]
        self.attnfleet("watch", f"--server={server.address}", number)
        server.kill(signal.SIGTERM)
        self.assertEqual(server.wait(), OK, server.dump())
        database = max(self.state.glob("*.db"), key=lambda p: p.stat().st_size)
        for wal in self.state.glob("*.db-*"):
            wal.unlink()
        data = database.read_bytes()
        database.write_bytes(data[:len(data) // 2 + 100])
        damaged = database.read_bytes()
        program, status = self.start_failing("--listen=127.0.0.1:0", f"--state-dir={self.state}")
        self.assertEqual(status, FAILED, program.dump())
        self.assertIn(str(database), program.stderr)
        self.assertEqual(database.read_bytes(), damaged)

    def test_unreachable_server(self):
        address = free_address()
        for command in ("list", "workers"):
            program = self.attnfleet(command, f"--server={address}", "--timeout=2", expect=UNAVAILABLE)
            self.assertIn(address, program.stderr)
        worker, status = self.run_program("attnfleet-worker", f"--server={address}", f"--state-dir={self.state}",
                                          "--slots=cpu", f"--trainer={DOUBLE}", "--connect-timeout=1s")
        self.assertEqual(status, UNAVAILABLE, worker.dump())
        self.assertIn(address, worker.stderr)

    def test_metrics(self):
        metrics = free_address()
        server = self.start("attnfleet-server", "--listen=127.0.0.1:0", f"--state-dir={self.state}",
                            f"--metrics-listen={metrics}")
        server.address = server.wait_for_line(r"^ready (\S+)$").group(1)
        self.start_worker(server)
        number = self.attnfleet("submit", f"--server={server.address}", "--preset=tiny").stdout.split()[0]
        self.attnfleet("watch", f"--server={server.address}", number)
        text = urllib.request.urlopen(f"http://{metrics}/metrics", timeout=10).read().decode()
        self.assertRegex(text, r'attnfleet_runs_ended_total\{[^}]*outcome="measured"[^}]*\} 12')
        self.assertRegex(text, r"attnfleet_workers\{[^}]*\} 1|attnfleet_workers_connected 1")

    @needs_mounts
    def test_disk_full_in_the_middle_loses_nothing(self):
        disk = self.dir / "disk"
        disk.mkdir()
        control = self.dir / "control"
        control.mkdir()
        # The server lives in a mount namespace with a small disk; a filler inside it fills the disk and frees it again.
        script = ('mount -t tmpfs -o size=2m tmpfs "$0"; (while sleep 0.05; do '
                  f'if [ -e "{control}/fill" ]; then cat /dev/zero >"$0/filler" 2>/dev/null; mv "{control}/fill" "{control}/filled"; fi; '
                  f'if [ -e "{control}/free" ]; then rm -f "$0/filler"; exit; fi; done) & exec "$@"')
        prefix = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, str(disk)]
        server = self.start_server(state=disk / "state", prefix=prefix)
        self.start_worker(server, double=SLOW)
        number = self.attnfleet("submit", f"--server={server.address}", "--preset=tiny",
                                "--repetitions=3").stdout.split()[0]
        wait_until("three trainers", lambda: len(self.trainer_starts()) >= 3)
        (control / "fill").touch()
        wait_until("the disk to be full", (control / "filled").exists)
        wait_until("the server to say so", lambda: "full" in server.stderr or "No space" in server.stderr)
        (control / "free").touch()
        self.attnfleet("watch", f"--server={server.address}", number)
        benchmark = self.results(f"--server={server.address}", number)
        self.assertEqual(self.outcomes(benchmark), {"MEASURED": 12})
        self.assertEqual(len(self.trainer_starts()), 12)


if __name__ == "__main__":
    unittest.main()
