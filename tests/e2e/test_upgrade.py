"""Rolling upgrade from release 0, in both orders and in the middle of a benchmark; old and new clients."""

import json
import os
import signal
import unittest

from harness import BIN, OK, E2ETest, free_address, wait_until

RELEASE_0 = BIN.parent / "release-0" / "source" / "build" / "release" / "bin"  # made by build_release_0.sh


@unittest.skipUnless(os.access(RELEASE_0 / "attnfleet", os.X_OK), "release 0 is not built: see e2e.build_release_0")
class Upgrade(E2ETest):
    RUNS = 20

    def setUp(self):
        super().setUp()
        self.listen = free_address()
        self.to_server = f"--server={self.listen}"

    def server(self, programs):
        return self.start_server(listen=self.listen, programs=programs)

    def worker(self, programs):
        return self.start_worker(self.listen, "w1", "--drain-timeout=60s", f"--trainer={programs}/attnfleet-trainer-double",
                                 slots="cpu:2", double="eager:slow=0.2,sdpa:slow=0.2", programs=programs)

    def submit(self, programs):
        return self.attnfleet("submit", self.to_server, "--preset=tiny", "--repetitions=5",
                              programs=programs).stdout.split()[0]

    def after(self, starts):
        wait_until(f"{starts} trainers", lambda: len(self.trainer_starts()) >= starts)

    def stop(self, program):
        program.kill(signal.SIGTERM)
        self.assertEqual(program.wait(), OK, program.dump())

    def check(self, number, ended=0):
        """Every run was measured and started once. Of each program that ended meanwhile two attempts, one a slot, may have
        come to nothing: a server saved them and sent them no more, or they crossed a worker's word that it drains."""
        self.attnfleet("watch", self.to_server, number)
        benchmark = self.results(self.to_server, number)
        self.assertEqual(self.outcomes(benchmark), {"MEASURED": self.RUNS})
        self.assertLessEqual(sum(run["attempt"] - 1 for run in self.runs(benchmark)), 2 * ended)
        self.assertEqual(len(self.trainer_starts()), self.RUNS)

    def test_the_server_first_then_the_worker(self):
        server, worker = self.server(RELEASE_0), self.worker(RELEASE_0)
        number = self.submit(RELEASE_0)
        self.after(3)
        self.stop(server)
        self.server(BIN)
        self.after(8)
        listed = json.loads(self.attnfleet("workers", self.to_server, "--format=json").stdout)
        self.assertEqual(len(listed["workers"]), 1, "the old worker is with the new server")
        self.stop(worker)
        self.worker(BIN)
        self.check(number, ended=2)

    def test_the_worker_first_then_the_server(self):
        server, worker = self.server(RELEASE_0), self.worker(RELEASE_0)
        number = self.submit(RELEASE_0)
        self.after(3)
        self.stop(worker)
        self.worker(BIN)
        self.after(8)
        self.stop(server)
        self.server(BIN)
        self.check(number, ended=2)

    def test_the_old_server_killed_while_the_old_worker_holds_results(self):
        server = self.server(RELEASE_0)
        self.worker(RELEASE_0)
        number = self.submit(RELEASE_0)
        self.after(3)
        server.kill()
        server.wait()
        wait_until("the runs to end", lambda: not self.running("attnfleet-trainer-double"))
        self.server(BIN)
        self.check(number, ended=1)

    def test_an_old_worker_gets_no_run_of_a_step_that_it_does_not_know(self):
        self.server(BIN)
        old = self.worker(RELEASE_0)
        submitted = self.attnfleet("submit", self.to_server, "--preset=tiny", "--repetitions=5", "--step=fused")
        self.assertIn("w1 cpu0 does not announce the step fused; a newer worker does", submitted.stderr)
        self.stop(old)
        self.assertEqual(self.trainer_starts(), [])
        self.worker(BIN)
        self.check(submitted.stdout.split()[0])

    def test_an_old_client_can_call_everything(self):
        self.server(BIN)
        self.worker(RELEASE_0)
        number = self.submit(RELEASE_0)
        for command in (["watch", number], ["explain", number], ["list"], ["workers"], ["backends"], ["cancel", number]):
            self.attnfleet(command[0], self.to_server, *command[1:], programs=RELEASE_0)
        old = json.loads(self.attnfleet("results", self.to_server, "--format=json", number, programs=RELEASE_0).stdout)
        self.assertEqual(self.outcomes(old), {"MEASURED": self.RUNS})

    def test_a_new_client_and_worker_with_an_old_server(self):
        self.server(RELEASE_0)
        self.worker(BIN)
        number = self.submit(BIN)
        self.attnfleet("workers", self.to_server)
        self.check(number)


if __name__ == "__main__":
    unittest.main()
