"""What runs where and when, over real gRPC: priorities, pauses, drains, deadlines, fleet comparisons, quarantine."""

import csv
import io

from harness import FAILED, FAKE_NVML, USAGE, E2ETest, wait_until

SLOW = "*:slow=0.2"
HANG = "*:hang"


class Scheduling(E2ETest):
    def setUp(self):
        super().setUp()
        self.server = self.start_server()
        self.to_server = f"--server={self.server.address}"

    def submit(self, *args):
        return self.attnfleet("submit", self.to_server, "--preset=tiny", *args).stdout.split()[0]

    def explain(self, number):
        return self.attnfleet("explain", self.to_server, number).stdout

    def finish(self, number):
        self.attnfleet("watch", self.to_server, number)
        return self.results(self.to_server, number)

    def test_priority_goes_first_and_explain_says_so(self):
        held = self.submit("--priority=-1")
        urgent = self.submit("--priority=7")
        self.attnfleet("pause", self.to_server, urgent)  # until both have been seen to wait
        self.start_worker(self.server, double=SLOW)
        wait_until("the first to start", self.trainer_starts)
        self.assertIn(f"attnfleet resume {urgent}", self.explain(urgent))
        self.attnfleet("resume", self.to_server, urgent)
        first = self.finish(urgent)
        later = self.finish(held)
        ended = [max(int(run["ended_unix_ms"]) for run in self.runs(one)) for one in (first, later)]
        self.assertLess(ended[0], ended[1])

    def test_submit_warns_of_what_no_slot_fits(self):
        self.start_worker(self.server)
        fits = self.attnfleet("submit", self.to_server, "--preset=tiny", "--backends=eager", "--repetitions=1")
        self.assertNotIn("warning", fits.stderr)
        unfit = self.attnfleet("submit", self.to_server, "--preset=tiny", "--label=rack=a", "--repetitions=1")
        self.assertIn("warning: nothing of it can start in the fleet as it is: no slot fits: w1 cpu0 lacks the label "
                      "rack=a", unfit.stderr)
        self.assertEqual(self.outcomes(self.finish(fits.stdout.strip())), {"MEASURED": 2})

    def test_backend_that_no_slot_has_waits_for_one_and_holds_the_others_back_no_more(self):
        self.start_worker(self.server)
        submitted = self.attnfleet("submit", self.to_server, "--preset=tiny", "--backends=eager,fused", "--repetitions=2")
        reason = "no slot offers fused: w1 cpu0 has no backend fused on cpu"
        self.assertIn(f"warning: fused cannot start in the fleet as it is: {reason}\n", submitted.stderr)
        number = submitted.stdout.split()[0]
        watch = self.start("attnfleet", "watch", self.to_server, number)
        wait_until("eager", lambda: self.outcomes(self.results(self.to_server, number)) == {"MEASURED": 4, "none": 4})
        wait_until("the reason", lambda: f"attnfleet: nothing runs: {reason}\n" in watch.stderr)
        self.assertRegex(self.explain(number), f"fused +0 of 2 runs ended; waits: {reason}")
        self.server.kill()
        self.server.wait()
        self.server = self.start_server(listen=self.server.address)
        gpus = self.start_worker(self.server, "gpus", slots="gpu", LD_LIBRARY_PATH=str(FAKE_NVML))
        self.assertEqual(watch.wait(), 0, watch.dump())
        benchmark = self.results(self.to_server, number)
        self.assertEqual({(job["backend"], run["worker"]) for job in benchmark["jobs"] for run in job["runs"]},
                         {("eager", "w1"), ("fused", "gpus")})
        self.assertEqual(benchmark["jobs"][1]["summary"]["ratio_pairs"], 0, "on different slots nothing is paired")
        # Where a slot has both they stay together, though another that has one of them is idle.
        second = self.finish(self.submit("--backends=eager,fused", "--repetitions=1"))
        self.assertEqual({run["worker"] for run in self.runs(second)}, {"gpus"}, gpus.dump())

    def test_paused_benchmark_starts_nothing_new_across_a_restart_of_the_server(self):
        self.start_worker(self.server, double=SLOW)
        number = self.submit("--repetitions=3")
        wait_until("a trainer", self.trainer_starts)
        self.attnfleet("pause", self.to_server, number)
        self.assertIn("paused", self.attnfleet("list", self.to_server).stdout)
        wait_until("what runs to end", lambda: "runs 1/" not in self.attnfleet("workers", self.to_server).stdout)
        started = len(self.trainer_starts())
        self.server.kill()
        self.server.wait()
        self.server = self.start_server(listen=self.server.address)
        wait_until("the worker", lambda: "idle" in self.attnfleet("workers", self.to_server).stdout)
        self.assertEqual(len(self.trainer_starts()), started)
        self.attnfleet("resume", self.to_server, number)
        self.assertEqual(self.outcomes(self.finish(number)), {"MEASURED": 12})
        bad = self.attnfleet("pause", self.to_server, number, expect=FAILED)
        self.assertIn(f"benchmark {number} has ended", bad.stderr)

    def test_drained_worker_gets_nothing_new_until_it_is_undrained(self):
        self.start_worker(self.server)
        self.attnfleet("workers", "drain", "w1", self.to_server)
        self.assertIn("drained", self.attnfleet("workers", self.to_server).stdout)
        number = self.submit("--max-slots=1")
        self.assertIn("attnfleet workers undrain w1", self.explain(number))
        self.assertEqual(self.trainer_starts(), [])
        self.attnfleet("workers", "undrain", "w1", self.to_server)
        self.assertEqual(self.outcomes(self.finish(number)), {"MEASURED": 12})
        self.start_worker(self.server, "w2")
        self.attnfleet("workers", "drain", "w1", self.to_server)
        every = self.attnfleet("submit", self.to_server, "--preset=tiny", "--placement=every")
        self.assertIn("as things are, none of w1 (drained)", every.stderr)
        nodes = {job["node"]["worker"] for job in self.finish(every.stdout.strip())["jobs"]}
        self.assertEqual(nodes, {"w2"})
        self.assertIn("nobody", self.attnfleet("workers", "drain", "nobody", self.to_server, expect=USAGE).stderr)
        self.assertIn("available: drain, undrain", self.attnfleet("workers", "drian", "w1", self.to_server, expect=USAGE).stderr)

    def test_deadline_cancels_what_has_not_ended(self):
        self.start_worker(self.server, double=HANG)
        number = self.submit("--deadline=2s")
        self.assertIn("deadline is", self.explain(number))
        benchmark = wait_until("the deadline", lambda: (lambda one: one if one["state"].endswith("CANCELLED") else None)(
            self.results(self.to_server, number)))
        self.assertIn("its deadline passed", benchmark["cancel_reason"])
        self.assertEqual(self.outcomes(benchmark), {"CANCELLED": 12})
        wait_until("the trainer to stop", lambda: not self.running("attnfleet-trainer-double"))

    def test_every_node_is_compared_and_the_slow_one_is_named(self):
        for name in ("w1", "w2", "w3", "w4"):
            self.start_worker(self.server, name, double="*:slower=1.25" if name == "w3" else "")
        number = self.submit("--placement=every", "--count=4", "--repetitions=1")
        benchmark = self.finish(number)
        self.assertEqual(self.outcomes(benchmark), {"MEASURED": 16})
        self.assertEqual({run["worker"] for run in self.runs(benchmark)}, {"w1", "w2", "w3", "w4"})
        slow = [node["node"]["worker"] for node in benchmark["fleet"]["nodes"] if node.get("slow")]
        self.assertEqual(slow, ["w3"])
        table = self.attnfleet("results", self.to_server, number).stdout
        self.assertRegex(table, r"w3 cpu0 .* 80.0.* slow")
        self.assertRegex(table, r"4x64 +eager +4 ")
        rows = list(csv.DictReader(io.StringIO(self.attnfleet("results", self.to_server, number, "--format=csv").stdout)))
        self.assertEqual({row["node_worker"] for row in rows if row["node_slow"] == "true"}, {"w3"})
        self.assertEqual(len(rows), 16)

    def test_run_that_loses_its_worker_twice_is_quarantined_with_its_evidence(self):
        number = self.submit("--backends=eager", "--shapes=4x64", "--repetitions=1")
        for name in ("w1", "w2"):
            worker = self.start_worker(self.server, name, double=HANG)
            wait_until("its trainer to be heard of", lambda: f"is on {name}" in self.explain(number)
                       and self.running("attnfleet-trainer-double"))
            worker.kill()
        benchmark = wait_until("the end", lambda: (lambda one: one if one["state"].endswith("FINISHED") else None)(
            self.results(self.to_server, number)))
        run = self.runs(benchmark)[0]
        self.assertTrue(run["quarantined"])
        self.assertEqual([failure["worker"] for failure in run["failed_attempts"]], ["w1", "w2"])
        self.assertIn("quarantined, it lost its worker 2 times", self.explain(number))
        self.assertIn("quarantined", self.attnfleet("results", self.to_server, number).stdout)
