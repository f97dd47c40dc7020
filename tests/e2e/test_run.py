"""`attnfleet run` on this machine: a private coordinator and worker, the trainer double, and faults in the middle."""

import csv
import io
import json
import os
import signal
import socket
import time
import unittest

from harness import (BIN, DOUBLE, FAILED, INTERRUPTED, OK, UNAVAILABLE, USAGE, E2ETest, needs_mounts, wait_until)

SMALL = ["--preset=tiny", "--repetitions=2"]  # eager and sdpa at 4x64 and 4x128: 8 runs
SLOW = "eager:slow=0.3,sdpa:slow=0.3"


class Results(E2ETest):
    def test_table_json_and_csv_show_the_same_numbers_and_results_shows_them_again(self):
        table = self.attnfleet(*self.run_args(*SMALL)).stdout
        benchmark = self.local_results()
        rows = list(csv.DictReader(io.StringIO(self.attnfleet(*self.local("results", "--format=csv")).stdout)))
        self.assertEqual(len(benchmark["jobs"]), 4)
        self.assertEqual(len(rows), 4)
        self.assertEqual(self.outcomes(benchmark), {"MEASURED": 8})
        for job, row in zip(benchmark["jobs"], rows):
            its = job["summary"]["iterations_per_second_median"]
            self.assertGreater(its, 0)
            self.assertAlmostEqual(float(row["iterations_per_second_median"]), its, delta=its * 1e-6)
            self.assertIn(f"{its:.2f}", table)
            self.assertEqual((row["backend"], int(row["batch"])), (job["backend"], job["shape"]["batch"]))
            if job["backend"] != "eager":
                ratio = job["summary"]["ratio_to_eager"]
                self.assertGreater(ratio, 0)
                self.assertIn(f"{ratio:.2f}x", table)
        again = self.attnfleet(*self.local("results")).stdout
        self.assertEqual(again.strip(), table.strip())
        self.assertEqual(len(self.trainer_starts()), 8)
        self.assert_nothing_left()

    def test_runs_of_a_group_are_interleaved(self):
        self.attnfleet(*self.run_args("--backends=eager,sdpa", "--shapes=2x32", "--repetitions=3"))
        order = ["eager" if "--backend=eager" in line else "sdpa" for line in self.trainer_starts()]
        self.assertEqual(order, ["eager", "sdpa"] * 3)

    def test_out_of_memory_and_unsupported_are_cells_not_failures(self):
        run = self.attnfleet(*self.run_args("--backends=eager,sdpa,flash2", "--shapes=4x64,4x128", "--repetitions=2"),
                             double="eager@4x128:oom,flash2:unsupported")
        self.assertIn("OOM", run.stdout)
        self.assertIn("unsupported", run.stdout)
        benchmark = self.local_results()
        self.assertEqual(self.outcomes(benchmark), {"MEASURED": 6, "OUT_OF_MEMORY": 2, "UNSUPPORTED": 4})
        self.assertEqual(len(self.trainer_starts()), 12, "a result is never retried")

    def test_backend_that_this_machine_lacks_is_unsupported_at_once(self):
        for more in ([], ["--placement=every"]):
            run = self.attnfleet(*self.run_args("--backends=fused", "--shapes=2x32", "--repetitions=2", *more))
            self.assertIn("unsupported", run.stdout)
            self.assertIn("no slot offers fused: local cpu0 has no backend fused on cpu", run.stdout)
            self.assertEqual(self.outcomes(self.local_results()), {"UNSUPPORTED": 2})
            self.assertEqual(self.trainer_starts(), [])
        for more in ([], ["--placement=every"]):
            run = self.attnfleet(*self.run_args("--backends=eager,fused", "--shapes=2x32,4x32", *more))
            self.assertIn("unsupported", run.stdout)
            self.assertEqual(self.outcomes(self.local_results()), {"MEASURED": 6, "UNSUPPORTED": 6})
        self.assertIn("consistent", self.run_program("attnfleet-server", "check",
                                                     f"--state-dir={self.state / 'local' / 'server'}")[0].stdout)
        self.assert_nothing_left()

    def test_crash_is_a_failed_run_with_signal_and_log_tail_after_bounded_retries(self):
        run = self.attnfleet(*self.run_args("--shapes=4x64", "--repetitions=1", "--max-attempts=2"), expect=FAILED,
                             double="sdpa:crash=11")
        self.assertIn("signal 11", run.stdout)
        sdpa = self.local_results()["jobs"][1]["runs"][0]
        self.assertEqual(sdpa["result"]["outcome"], "OUTCOME_FAILED")
        self.assertEqual(sdpa["result"]["failure"]["signal"], 11)
        self.assertTrue(sdpa["result"]["failure"]["log_tail"])
        self.assertEqual(sdpa["attempt"], 2)
        self.assertEqual(sum("--backend=sdpa" in line for line in self.trainer_starts()), 2)

    def test_crash_once_is_retried_and_measured(self):
        self.attnfleet(*self.run_args("--shapes=4x64", "--repetitions=1"),
                       double=f"sdpa:crash-first={self.dir / 'crashed'}")
        benchmark = self.local_results()
        self.assertEqual(self.outcomes(benchmark), {"MEASURED": 2})
        self.assertEqual(len(benchmark["jobs"][1]["runs"][0]["failed_attempts"]), 1)

    def test_log_that_is_no_text_is_a_failed_run_like_any_other(self):
        self.attnfleet(*self.run_args("--shapes=4x64", "--repetitions=1", "--max-attempts=1"), expect=FAILED,
                       double="eager:binary")
        benchmark = self.local_results()
        self.assertEqual(benchmark["jobs"][0]["runs"][0]["result"]["failure"]["log_tail"], "caf? ??\n")
        self.assertEqual(self.outcomes(benchmark), {"FAILED": 1, "MEASURED": 1})

    def test_exit_status_and_garbage_are_failures_that_say_so(self):
        run = self.attnfleet(*self.run_args("--shapes=4x64", "--repetitions=1", "--max-attempts=1"), expect=FAILED,
                             double="eager:exit=7,sdpa:garbage")
        self.assertIn("status 7", run.stdout)
        benchmark = self.local_results()
        self.assertEqual(benchmark["jobs"][0]["runs"][0]["result"]["failure"]["exit_status"], 7)
        self.assertEqual(self.outcomes(benchmark), {"FAILED": 2})

    def test_hanging_trainer_ends_at_the_run_timeout(self):
        run = self.attnfleet(*self.run_args("--shapes=4x64", "--backends=eager", "--repetitions=1", "--run-timeout=1"),
                             expect=FAILED, double="eager:hang")
        self.assertIn("stopped after its time limit of 1 s (--run-timeout)", run.stdout)
        self.assertEqual(self.outcomes(self.local_results()), {"FAILED": 1})
        self.assertEqual(len(self.trainer_starts()), 1, "it would only take as long again")
        self.assert_nothing_left()

    def test_dry_run_prints_the_jobs_and_starts_nothing(self):
        out = self.attnfleet(*self.run_args("--dry-run", *SMALL)).stdout
        self.assertIn("4x128", out)
        self.assertIn("sdpa", out)
        self.assertEqual(self.trainer_starts(), [])

    def test_spec_file_and_its_errors_name_the_line(self):
        spec = self.dir / "b.textproto"
        spec.write_text('preset: "tiny"\nrepetitions: 1\nbackends: "eager"\n')
        self.attnfleet(*self.run_args(f"--spec={spec}"))
        self.assertEqual(self.outcomes(self.local_results()), {"MEASURED": 2})
        spec.write_text('preset: "tiny"\nrepetition: 1\n')
        bad = self.attnfleet(*self.run_args(f"--spec={spec}"), expect=USAGE)
        self.assertIn(f"{spec}:2:", bad.stderr)
        self.assertIn('did you mean "repetitions"', bad.stderr)


GPU = "GPU-11111111-2222-3333-4444-555555555555"


class Proof(E2ETest):
    """What stands beside the figures, on a GPU that the double pretends."""

    def run_on_gpu(self, *args, double="", **kwargs):
        return self.attnfleet(*self.run_args("--preset=tiny", "--shapes=4x64", "--repetitions=3", *args), double=double,
                              ATTNFLEET_DOUBLE_GPU=GPU, **kwargs)

    def sdpa(self, *args):
        return self.results(f"--state-dir={self.state}", *args)["jobs"][1]["summary"]

    def test_contaminated_run_is_marked_and_left_out_unless_asked(self):
        run = self.run_on_gpu(double="sdpa:contaminated=2")
        self.assertIn("1 of 3 runs contaminated and left out: hardware thermal slowdown", run.stdout)
        self.assertIn("contaminated: hardware thermal slowdown", run.stderr)
        without, included = self.sdpa(), self.sdpa("--include-contaminated")
        self.assertEqual((without["measured_runs"], without["contaminated_runs"]), (3, 1))
        self.assertEqual((without["ratio_to_eager_low"], without["ratio_to_eager_high"]), (2, 2))
        self.assertEqual(without["ratio_pairs"], 2)
        self.assertEqual(included["ratio_pairs"], 3)
        self.assertEqual((included["ratio_to_eager_low"], included["ratio_to_eager_high"]), (1, 2))
        self.assertLess(included["iterations_per_second_mean"], without["iterations_per_second_mean"])
        table = self.attnfleet(*self.local("results", "--include-contaminated")).stdout
        self.assertIn("1 of 3 runs contaminated and included", table)
        self.assertIn("781.25!", table)

    def test_run_and_watch_take_the_same_flag(self):
        run = self.run_on_gpu("--include-contaminated", double="sdpa:contaminated=2")
        self.assertIn("contaminated and included", run.stdout)
        server = self.start_server()
        self.start_worker(server, double="sdpa:contaminated=2", ATTNFLEET_DOUBLE_GPU=GPU)
        at = f"--server={server.address}"
        self.attnfleet("submit", at, "--preset=tiny", "--shapes=4x64", "--repetitions=3")
        self.assertIn("left out", self.attnfleet("watch", "1", at).stdout)
        self.assertIn("contaminated and included", self.attnfleet("watch", "1", at, "--include-contaminated").stdout)

    def test_cell_of_contaminated_runs_alone_shows_them_with_a_sign_and_no_ratio(self):
        run = self.run_on_gpu(double="sdpa:contaminated")
        self.assertIn("every run is contaminated: hardware thermal slowdown, other processes on the GPU: intruder 4242",
                      run.stdout)
        self.assertIn("390.62!", run.stdout)
        self.assertEqual(self.sdpa()["ratio_to_eager"], 0)

    def test_every_format_names_gpu_utilization_and_memory(self):
        run = self.run_on_gpu()
        show = lambda form: self.attnfleet(*self.local("results", f"--format={form}")).stdout
        for text in (run.stdout, show("markdown"), show("details")):
            self.assertIn(GPU, text)
            self.assertIn("40.0 %", text)
            self.assertIn("attnfleet run --preset=tiny --shapes=4x64", text)
            self.assertIn("bf16-mixed", text)
        row = list(csv.DictReader(io.StringIO(show("csv"))))[1]
        self.assertEqual((row["device_uuid"], row["model_flops_utilization"]), (GPU, "0.4"))
        for kind in ("allocated", "reserved", "device", "resident"):
            self.assertGreater(int(row[f"peak_{kind}_bytes"]), 0)
        self.assertGreater(self.sdpa()["activation_bytes"], 0)

    def test_details_show_the_proof(self):
        self.run_on_gpu(double="eager:contaminated=1")
        text = self.attnfleet(*self.local("results", "--details")).stdout
        for pattern in ["attention kernels +double_sdpa_backward, double_sdpa_forward",
                        "numerical check +against eager in fp64, 2 samples: output 1e-07, .*query.weight",
                        "SM clock +median 1200 MHz, least 900 MHz . median 1980 MHz",
                        "throttling +hardware thermal slowdown . none seen", "other processes +4242 intruder",
                        "energy +0.384 J per iteration", "build double", "driver 580.0", "after 5 of warm-up .stable"]:
            self.assertRegex(text, pattern)

    def test_what_a_cpu_cannot_tell_is_unknown(self):
        self.attnfleet(*self.run_args(*SMALL))
        text = self.attnfleet(*self.local("results", "--details")).stdout
        for label in ("MFU", "peak allocated", "SM clock", "power", "other processes", "contamination", "energy"):
            self.assertRegex(text, f"{label} +unknown")
        table = self.attnfleet(*self.local("results")).stdout
        self.assertIn("MFU unknown", table)
        self.assertNotIn("numerical check", table)  # fp32, and the double's errors are those of rounding

    def test_raw_results_give_every_output_again_without_a_server(self):
        self.run_on_gpu("--dropout-placement=published", double="sdpa:contaminated=2")
        raw = self.dir / "raw.json"
        self.attnfleet(*self.local("results", "--format=json", f"--output={raw}"))
        again = lambda *args: self.attnfleet("results", f"--input={raw}", *args, TZ="UTC").stdout
        self.assertEqual(again("--format=json"), raw.read_text())
        for form in ("csv", "details"):
            stored = self.attnfleet(*self.local("results", f"--format={form}"), TZ="UTC").stdout
            self.assertEqual(again(f"--format={form}"), stored)
        for form in ("table", "markdown"):
            stored = self.attnfleet(*self.local("results", f"--format={form}"), TZ="UTC").stdout
            self.assertEqual(again(f"--format={form}").split("again:")[0], stored.split("again:")[0])
        self.assertIn("attention dropout drops different things", again())

    def test_several_files_make_one_table(self):
        raw = [self.dir / "a.json", self.dir / "b.json"]
        self.run_on_gpu("--format=json", f"--output={raw[0]}")
        self.attnfleet(*self.run_args("--preset=tiny", "--shapes=8x64", "--format=json", f"--output={raw[1]}"),
                       ATTNFLEET_DOUBLE_GPU="GPU-other")
        both = f"--input={raw[0]},{raw[1]}"
        text = self.attnfleet("results", both).stdout
        for fragment in (GPU, "GPU-other", "4x64: attnfleet run", "8x64: attnfleet run"):
            self.assertIn(fragment, text)
        merged = self.dir / "merged.json"
        self.attnfleet("results", both, "--format=json", f"--output={merged}")
        self.assertEqual(len(json.loads(merged.read_text())), 2)
        self.assertEqual(self.attnfleet("results", f"--input={merged}").stdout.split("again:")[0],
                         text.split("again:")[0])

    def test_wrong_files_are_told_in_one_line(self):
        bad = self.dir / "bad.json"
        bad.write_text('{"speed": 3}')
        for args, fragments in [([f"--input={bad}"], [str(bad), "speed"]), (["--input=/nowhere"], ["/nowhere"]),
                                ([f"--input={bad}", "3"], ["--input", "ID"]),
                                ([f"--input={bad}", "--include-contaminated"], ["--include-contaminated"])]:
            program = self.attnfleet("results", *args, expect=USAGE)
            for fragment in fragments:
                self.assertIn(fragment, program.stderr)
            self.assertLessEqual(len(program.stderr.splitlines()), 2, program.stderr)


class WrongInput(E2ETest):
    def test_every_input_error_names_the_flag_and_what_would_be_right(self):
        for args, fragments in [
                (["run", "--backends=flsh", "--shapes=1x8"], ["--backends", 'unknown backend "flsh"', "available:"]),
                (["run", "--shapes=32y128"], ["--shapes", "32y128"]),
                (["run", "--shapes=0x128"], ["--shapes", "0"]),
                (["run", "--preset=tyni"], ["--preset", 'did you mean "tiny"']),
                (["run", "--preset=tiny", "--repetitions=0"], ["--repetitions", "0"]),
                (["run", "--preset=tiny", "--steps=many"], ["--steps", "many"]),
                (["run", "--preset=tiny", "--reptitions=2"], ["--reptitions", "--repetitions"]),
                (["run", "--preset=tiny", "--attention-dropout=1.5"], ["--attention-dropout", "1.5"]),
                (["run", "--preset=tiny", "--format=xml"], ["--format", "xml", "json"]),
                (["run", "--batch=4"], ["--seq"]),
                (["run", "--spec=/nowhere/spec"], ["/nowhere/spec"]),
                (["run"], ["--shapes"]),
                (["rnu"], ['did you mean "run"']),
                (["results", "seven"], ["seven"]),
                (["list", "--server=nonsense"], ["--server", "nonsense"]),
        ]:
            with self.subTest(args=args):
                extra = [f"--state-dir={self.state}"] if args[0] in ("run", "results") else []
                if args[0] == "run":
                    extra.append(f"--trainer={DOUBLE}")
                program = self.attnfleet(args[0], *extra, *args[1:], expect=USAGE)
                for fragment in fragments:
                    self.assertIn(fragment, program.stderr)
                self.assertEqual(program.stdout, "")
                self.assertLessEqual(len(program.stderr.splitlines()), 3, program.stderr)
        self.assertEqual(self.trainer_starts(), [])
        self.assert_nothing_left()

    def test_server_and_worker_flags(self):
        for name, args, fragments in [
                ("attnfleet-server", ["--listen=nonsense"], ["--listen", "nonsense"]),
                ("attnfleet-server", ["--listn=1"], ["listn"]),
                ("attnfleet-server", ["--listen=0.0.0.0:0", "--state-dir=/tmp/x"], ["--insecure"]),
                ("attnfleet-worker", ["--server=nonsense"], ["--server", "nonsense"]),
                ("attnfleet-worker", ["--slots=gpx"], ["--slots", "gpx"]),
                ("attnfleet-worker", ["--nmae=x"], ["nmae"]),
        ]:
            with self.subTest(program=name, args=args):
                program, status = self.run_program(name, f"--state-dir={self.state}", *args)
                self.assertEqual(status, USAGE, program.dump())
                for fragment in fragments:
                    self.assertIn(fragment, program.stderr)

    def test_help_teaches_by_example_and_lists_exit_codes(self):
        for name in ["attnfleet", "attnfleet-server", "attnfleet-worker"]:
            program, status = self.run_program(name, "--help")
            self.assertEqual(status, OK, program.dump())
            self.assertIn(f"{name} ", program.stdout)
            self.assertRegex(program.stdout.lower(), "exit (codes|status)")


class Interrupted(E2ETest):
    def start_slow(self, *args, **kwargs):
        """A run of which something has been measured and something is being measured."""
        run = self.start("attnfleet", *self.run_args("--shapes=4x64", "--repetitions=10", *args),
                         double=kwargs.pop("double", SLOW), **kwargs)
        wait_until("three trainers", lambda: len(self.trainer_starts()) >= 3 or run.process.poll() is not None)
        self.assertIsNone(run.process.poll(), "ended early")
        return run

    def test_ctrl_c_stops_cleanly_and_keeps_what_was_measured(self):
        run = self.start_slow()
        run.kill(signal.SIGINT)
        self.assertEqual(run.wait(), INTERRUPTED, run.dump())
        self.assertIn("eager", run.stdout)
        self.assert_nothing_left()
        outcomes = self.outcomes(self.local_results())
        self.assertGreaterEqual(outcomes["MEASURED"], 2)
        self.assertEqual(outcomes["MEASURED"] + outcomes["CANCELLED"], 20)

    def test_ctrl_c_twice_stops_at_once_even_with_a_stubborn_trainer(self):
        run = self.start("attnfleet", *self.run_args("--shapes=4x64"), double="eager:stubborn")
        wait_until("a trainer", self.trainer_starts)
        start = time.monotonic()
        run.kill(signal.SIGINT)
        wait_until("the first signal to be seen", lambda: "once more to stop at once" in run.stderr)
        run.kill(signal.SIGINT)
        self.assertEqual(run.wait(15), INTERRUPTED, run.dump())
        self.assertLess(time.monotonic() - start, 4, "one signal alone takes the grace of 5 s")
        self.assert_nothing_left()

    def test_sigterm_is_like_ctrl_c(self):
        run = self.start_slow()
        run.kill(signal.SIGTERM)
        self.assertEqual(run.wait(), INTERRUPTED, run.dump())
        self.assert_nothing_left()

    def test_killed_client_leaves_nothing_running_and_loses_nothing(self):
        run = self.start_slow()
        run.kill()
        run.wait()
        wait_until("every process to be gone", lambda: not self.running(), 15)
        listed = self.attnfleet(*self.local("list"))
        self.assertRegex(listed.stdout, r"1 +cancelled .*interrupted: its client was killed")
        self.assertIn("benchmark 1 was interrupted; what was measured is kept", listed.stderr)
        self.assertGreaterEqual(self.outcomes(self.local_results())["MEASURED"], 2)
        # The next benchmark is not in the way of what was left.
        self.attnfleet(*self.run_args("--shapes=2x32", "--repetitions=1"))
        self.assertEqual(self.outcomes(self.local_results()), {"MEASURED": 2})

    @needs_mounts
    def test_interrupted_benchmark_can_be_read_when_the_disk_is_full(self):
        run = self.start_slow()
        run.kill()
        run.wait()
        wait_until("every process to be gone", lambda: not self.running(), 15)
        database, = self.state.rglob("attnfleet.db")
        # What the store writes next finds no room.
        script = ': >>"$0" && mount --bind /dev/full "$0" && exec "$@"'
        prefix = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, f"{database}-wal"]
        listed = self.attnfleet(*self.local("list"), prefix=prefix)
        self.assertRegex(listed.stdout, r"(?m)^ *1 +cancelled ")
        self.assertRegex(listed.stderr, "what was interrupted cannot be ended: .*No space left on device")
        self.assertNotIn("what was measured is kept", listed.stderr, "it is not saved")
        # And it is ended for good when there is room again.
        listed = self.attnfleet(*self.local("list"))
        self.assertIn("benchmark 1 was interrupted; what was measured is kept", listed.stderr)

    def test_killed_trainer_is_tried_again(self):
        run = self.start_slow()
        os.kill(self.wait_for_process("attnfleet-trainer-double"), signal.SIGKILL)
        self.assertEqual(run.wait(), OK, run.dump())
        self.assertEqual(self.outcomes(self.local_results()), {"MEASURED": 20})

    def test_killed_worker_is_replaced_and_its_trainer_dies(self):
        run = self.start_slow()
        trainer = self.wait_for_process("attnfleet-trainer-double")
        os.kill(self.wait_for_process("attnfleet-worker"), signal.SIGKILL)
        wait_until("the orphan trainer to die", lambda: trainer not in self.running(), 10)
        self.assertEqual(run.wait(), OK, run.dump())
        self.assertEqual(self.outcomes(self.local_results()), {"MEASURED": 20})
        self.assert_nothing_left()

    def test_killed_server_is_replaced_and_nothing_is_counted_twice(self):
        run = self.start_slow()
        os.kill(self.wait_for_process("attnfleet-server"), signal.SIGKILL)
        self.assertEqual(run.wait(), OK, run.dump())
        benchmark = self.local_results()
        self.assertEqual(self.outcomes(benchmark), {"MEASURED": 20})
        self.assertEqual({run["attempt"] for run in self.runs(benchmark)}, {1}, "the worker went on: no run is repeated")
        self.assertEqual(len(self.trainer_starts()), 20)
        self.assert_nothing_left()

    def test_second_run_is_told_who_runs_and_results_still_answers(self):
        run = self.start_slow("--repetitions=200")
        wrong = self.attnfleet(*self.run_args("--shapes=2x32", "--backends=flsh"), expect=USAGE)
        self.assertIn('--backends: unknown backend "flsh"; did you mean "flash2"?', wrong.stderr)
        second = self.attnfleet(*self.run_args("--shapes=2x32"), expect=UNAVAILABLE)
        self.assertRegex(second.stderr, r"process \d+")
        self.assertIn("RUNNING", json.dumps(self.local_results()["state"]))
        run.kill(signal.SIGINT)
        self.assertEqual(run.wait(), INTERRUPTED)


class Disk(E2ETest):
    def mounted(self, options):
        """A prefix that gives the command a tmpfs of its own as state directory."""
        self.state.mkdir()
        script = f'mount -t tmpfs -o {options} tmpfs "$0" && exec "$@"'
        return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, str(self.state)]

    @needs_mounts
    def test_read_only_state_directory(self):
        program = self.attnfleet(*self.run_args(*SMALL), prefix=self.mounted("ro,size=1m"), expect=UNAVAILABLE)
        self.assertIn(str(self.state), program.stderr)
        self.assertIn("Read-only file system", program.stderr)
        self.assert_nothing_left()

    @needs_mounts
    def test_full_disk_from_the_start(self):
        program = self.attnfleet(*self.run_args(*SMALL), prefix=self.mounted("size=4k"), expect=UNAVAILABLE)
        self.assertIn("No space left on device", program.stderr)
        self.assert_nothing_left()


class Output(E2ETest):
    def test_closed_pipe_ends_quietly(self):
        self.attnfleet(*self.run_args(*SMALL))
        command = f'"{BIN}/attnfleet" results --state-dir="{self.state}" --format=json | head -c 10'
        shell, status = self.run_shell(command)
        self.assertEqual(status, OK, shell.dump())
        self.assertEqual(shell.stderr, "")

    def test_full_device_is_an_error(self):
        self.attnfleet(*self.run_args(*SMALL))
        shell, status = self.run_shell(f'"{BIN}/attnfleet" results --state-dir="{self.state}" >/dev/full')
        self.assertEqual(status, FAILED, shell.dump())
        self.assertIn("No space left on device", shell.stderr)

    def run_shell(self, command):
        from harness import Program
        program = Program(self, "shell", ["sh", "-c", command], self.environment())
        self.programs.append(program)
        return program, program.wait()

    def test_piped_output_has_no_control_characters(self):
        program = self.attnfleet(*self.run_args(*SMALL))
        for text in (program.stdout, program.stderr):
            self.assertNotRegex(text, "[\x00-\x08\x0b-\x1f]")

    def test_narrow_terminal(self):
        self.attnfleet(*self.run_args(*SMALL))
        out = self.attnfleet(*self.local("results"), COLUMNS="40").stdout
        self.assertLessEqual(max(map(len, out.splitlines())), 60, out)


if __name__ == "__main__":
    unittest.main()
