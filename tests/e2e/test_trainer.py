"""The whole path with the real trainer: LayoutLMv3 steps in LibTorch on the CPU, through worker and coordinator."""

import json
import os
import unittest

from harness import BIN, FAILED, OK, UNAVAILABLE, USAGE, E2ETest, wait_until

TRAINER = BIN / "attnfleet-trainer"


class RealTrainer(E2ETest):
    def test_tiny_preset_measures_two_backends_at_two_shapes(self):
        args = ["run", f"--state-dir={self.state}", "--device=cpu", "--preset=tiny", "--repetitions=2", "--steps=5",
                "--warmup=1"]
        table = self.attnfleet(*args, timeout=240).stdout
        benchmark = self.local_results()
        self.assertEqual(self.outcomes(benchmark), {"MEASURED": 8}, table)
        for job in benchmark["jobs"]:
            summary = job["summary"]
            self.assertGreater(summary["iterations_per_second_median"], 0)
            self.assertGreater(summary["peak_resident_bytes"], 50e6)
            for run in job["runs"]:
                measurement = run["result"]["measurement"]
                self.assertEqual(measurement["timed_steps"], 5)
                self.assertEqual(len(measurement["step_seconds"]), 5)
                self.assertAlmostEqual(measurement["iterations_per_second"] * measurement["wall_seconds"], 5, places=3)
                self.assertLessEqual(sum(measurement["step_seconds"]), measurement["wall_seconds"] * 1.01)
                self.assertTrue(run["result"]["environment"]["libtorch_version"].startswith("2.11"))
        # Cross-entropy of an untrained model over 10 labels starts near ln 10.
        first_losses = [run["result"]["measurement"]["first_loss"] for run in self.runs(benchmark)]
        self.assertTrue(all(1.5 < loss < 3.5 for loss in first_losses), first_losses)

    def test_documents_of_a_file_reach_the_trainer_through_the_service(self):
        data = self.dir / "train.jsonl"
        document = {"ids": [0, 7, 8, 2], "boxes": [[0, 0, 0, 0], [1, 2, 3, 4], [5, 2, 9, 4], [0, 0, 0, 0]],
                    "labels": [-100, 3, 1, -100]}
        data.write_text(json.dumps(document) + "\n")
        args = ["run", f"--state-dir={self.state}", "--device=cpu", "--preset=tiny", "--shapes=2x16", "--repetitions=1",
                "--steps=2", "--warmup=1", "--backends=eager,math", f"--data={data}"]
        self.attnfleet(*args, timeout=240)
        runs = self.runs(self.local_results())
        self.assertEqual([run["result"]["measurement"]["tokens_per_iteration"] for run in runs], [8, 8])

        data.write_text(json.dumps({**document, "ids": [0, 7, 8, 20000]}) + "\n")
        failed = self.attnfleet(*args, "--max-attempts=1", timeout=240, expect=FAILED)
        self.assertIn("train.jsonl:1: ids[3]: 20000 is outside the vocabulary", failed.stdout + failed.stderr)

    def test_trainer_by_hand_writes_json_lines(self):
        trainer, status = self.run_program("attnfleet-trainer", "--model=tiny", "--backend=eager", "--batch=2",
                                           "--sequence-length=16", "--warmup=1", "--steps=3", "--device=cpu", timeout=120,
                                           ATTNFLEET_REQUEST_ID="ci:42")
        self.assertEqual(status, OK, trainer.dump())
        for line in trainer.stderr.splitlines():
            self.assertTrue(line.endswith(" request_id=ci:42"), line)
        events = [json.loads(line) for line in trainer.stdout.splitlines()]
        self.assertEqual(events[0]["started"]["request_id"], "ci:42")
        self.assertEqual(events[-1]["result"]["outcome"], "OUTCOME_MEASURED")

    def test_trainer_flag_errors(self):
        for args, fragments in [(["--backend=flsh"], ["flsh", "available"]), (["--batch=0"], ["--batch"]),
                                (["--model=huge"], ["--model", "huge"]), (["--bacth=1"], ["bacth"])]:
            with self.subTest(args=args):
                trainer, status = self.run_program("attnfleet-trainer", *args)
                self.assertEqual(status, USAGE, trainer.dump())
                for fragment in fragments:
                    self.assertIn(fragment, trainer.stderr)

    def test_worker_with_an_unusable_libtorch_says_what_it_needs(self):
        wrong = self.dir / "torch"
        (wrong / "lib").mkdir(parents=True)
        (wrong / "lib" / "libtorch_cpu.so").touch()
        (wrong / "version.py").write_text("__version__ = '2.9.1+cu128'\n")
        run = self.start("attnfleet", "run", f"--state-dir={self.state}", "--device=cpu", "--preset=tiny",
                         f"--torch={wrong}")
        self.assertEqual(run.wait(), UNAVAILABLE, run.dump())
        self.assertEqual(run.stderr, f"attnfleet: LibTorch in {wrong} (from --torch) is 2.9.1+cu128; this trainer needs "
                                     "2.11.x\n")
        self.assert_nothing_left()

    def test_too_large_for_the_host_is_an_out_of_memory_cell(self):
        # The bound that the trainer gives itself, lower: this machine may have any amount of memory.
        bound = ["prlimit", "--data=2000000000"]
        run = self.attnfleet("run", f"--state-dir={self.state}", "--device=cpu", "--preset=tiny", "--shapes=60000x8192",
                             "--backends=eager", "--repetitions=1", prefix=bound, timeout=240)
        self.assertRegex(run.stdout, r"OOM: asked for 3\.9 GB of host memory with [01]\.\d of \d+\.\d GB free \(set-up\)")
        runs = self.runs(self.local_results())
        self.assertEqual([(run["result"]["outcome"], run["attempt"]) for run in runs], [("OUTCOME_OUT_OF_MEMORY", 1)])


if __name__ == "__main__":
    unittest.main()
