"""The whole path on a GPU. Skipped where there is none. Runs on a host with the installed folder alone:
ATTNFLEET_BIN=DIR python3 -m unittest test_gpu"""

import pathlib
import re
import subprocess
import unittest

from harness import FAILED, OK, E2ETest

# What the trainer by hand needs to hold a card for as long as a test lasts.
LOAD = ["--backend=sdpa", "--batch=16", "--sequence-length=512", "--steps=1000000", "--device=cuda"]
PATIENCE = 300
GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden"


def gpus():
    try:
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line for line in listing.stdout.splitlines() if line.startswith("GPU ")]


@unittest.skipUnless(gpus(), "no NVIDIA GPU here")
class Gpu(E2ETest):
    def run_benchmark(self, *args):
        self.attnfleet("run", f"--state-dir={self.state}", "--device=cuda", "--backends=sdpa", "--shapes=16x512",
                       "--repetitions=1", "--steps=30", "--warmup=5", "--warmup-limit=5", "--ci-width=0", "--check=off",
                       *args, timeout=PATIENCE)
        benchmark = self.local_results()
        self.assertEqual(self.outcomes(benchmark), {"MEASURED": 1})
        return benchmark

    def test_a_run_says_which_gpu_it_was_and_that_nothing_disturbed_it(self):
        benchmark = self.run_benchmark()
        (run,) = self.runs(benchmark)
        environment = run["result"]["environment"]
        self.assertIn(environment["device_uuid"], " ".join(gpus()))
        self.assertEqual(environment["device_kind"], "DEVICE_KIND_CUDA")
        self.assertGreater(run["result"]["measurement"]["peak_allocated_bytes"], 1e9)
        self.assertEqual(run["result"].get("contamination", []), [])

    def test_a_run_beside_another_process_on_the_card_is_contaminated(self):
        other = self.start("attnfleet-trainer", *LOAD)
        other.wait_for_line("TRAINER_PHASE_TIMED")
        benchmark = self.run_benchmark()
        other.kill()
        (job,) = benchmark["jobs"]
        contamination = job["runs"][0]["result"]["contamination"]
        self.assertTrue(any("process" in reason or "memory" in reason for reason in contamination), contamination)
        self.assertEqual(job["summary"]["contaminated_runs"], 1)
        table = self.attnfleet("results", f"--state-dir={self.state}").stdout
        self.assertIn("contaminated", table)
        telemetry = job["runs"][0]["result"]["telemetry"]
        if "other processes" not in telemetry.get("unknown", []):
            self.assertIn(other.pid, [int(process["pid"]) for process in telemetry["other_processes"]])

    def test_the_model_is_hugging_faces_on_the_gpu_too(self):
        cases = sorted(GOLDEN.glob("*.safetensors"))
        self.assertGreater(len(cases), 10)
        for case in cases:
            with self.subTest(case=case.name):
                # Exit status 1 is beyond the bound of the CPU's rounding, which a GPU's may be.
                verify, status = self.run_program("attnfleet-trainer", f"--verify={case}", "--backend=eager",
                                                  "--device=cuda", timeout=PATIENCE)
                self.assertIn(status, (OK, FAILED), verify.dump())
                errors = re.findall(r"^  (logits|loss|gradients) +(\S+)", verify.stdout, re.MULTILINE)
                self.assertEqual([name for name, _ in errors], ["logits", "loss", "gradients"], verify.dump())
                for name, error in errors:
                    self.assertLess(float(error), 1e-4, f"{name}\n{verify.stdout}")
                print(case.stem, *(f"{name} {error}" for name, error in errors))


if __name__ == "__main__":
    unittest.main()
