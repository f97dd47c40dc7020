"""A real Prometheus scrapes a running server and worker; promtool judges the metrics, the rules and the alerts."""

import json
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import unittest
import urllib.parse
import urllib.request

from harness import FAKE_NVML, OK, UNAVAILABLE, USAGE, E2ETest, free_address, wait_until

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy" / "prometheus"
# A package's own, or the one that deploy/setup.sh has unpacked.
SEARCH = ":".join(["/usr/local/bin", "/usr/bin", str(ROOT / ".deps" / "prometheus" / "usr" / "bin")])
PROMETHEUS = shutil.which("prometheus", path=SEARCH)
PROMTOOL = shutil.which("promtool", path=SEARCH)

needs_prometheus = unittest.skipUnless(PROMETHEUS and PROMTOOL, "no prometheus and promtool here")


def get(url):
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.read().decode()


def families(text):
    return set(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE))


@needs_prometheus
class Rules(unittest.TestCase):
    def promtool(self, *args, **kwargs):
        done = subprocess.run([PROMTOOL, *args], cwd=DEPLOY, capture_output=True, text=True, **kwargs)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_the_example_and_the_rules_are_valid(self):
        self.promtool("check", "config", "prometheus.yml")
        self.promtool("check", "rules", "attnfleet.rules.yml")

    def test_alerts_come_when_they_should_and_only_then(self):
        self.promtool("test", "rules", "attnfleet.rules.test.yml")

    def test_every_alert_has_a_test_that_it_comes_and_one_that_it_does_not(self):
        rules = (DEPLOY / "attnfleet.rules.yml").read_text()
        tests = (DEPLOY / "attnfleet.rules.test.yml").read_text()
        for alert in re.findall(r"- alert: (\w+)", rules):
            self.assertRegex(tests, rf"alertname: {alert}, exp_alerts: \[\]")
            self.assertRegex(tests, rf"alertname: {alert}\n +exp_alerts:\n")


@needs_prometheus
class Scrape(E2ETest):
    def query(self, expression):
        """{labels without name, instance and job: value} of an instant query."""
        answer = json.loads(get(f"http://{self.prometheus}/api/v1/query?" + urllib.parse.urlencode({"query": expression})))
        self.assertEqual(answer["status"], "success", answer)
        return {tuple(sorted((k, v) for k, v in sample["metric"].items() if k not in ("__name__", "instance", "job"))):
                float(sample["value"][1]) for sample in answer["data"]["result"]}

    def expect(self, expression, wanted):
        """Waits until the query answers `wanted`: {((label, value), ...): value}, or a value for the only sample."""
        wanted = wanted if isinstance(wanted, dict) else {(): wanted}
        last = {}

        def right():
            last["answer"] = self.query(expression)
            return last["answer"] == wanted
        try:
            wait_until(expression, right)
        except AssertionError as error:
            raise AssertionError(f"{error}: wanted {wanted}, got {last['answer']}") from None

    def start_prometheus(self, server, worker):
        """With the rules of the repository and targets of this test."""
        self.prometheus = free_address()
        config = self.dir / "prometheus.yml"
        config.write_text(f"""
global: {{scrape_interval: 1s, evaluation_interval: 1s}}
rule_files: ["{DEPLOY}/attnfleet.rules.yml"]
scrape_configs:
  - {{job_name: attnfleet-server, static_configs: [{{targets: ["{server}"]}}]}}
  - {{job_name: attnfleet-worker, static_configs: [{{targets: ["{worker}"]}}]}}
""")
        self.start_other("prometheus", [PROMETHEUS, f"--config.file={config}", f"--storage.tsdb.path={self.dir}/tsdb",
                                        f"--web.listen-address={self.prometheus}"])

        def ready():
            try:
                return "ready" in get(f"http://{self.prometheus}/-/ready").lower()
            except OSError:
                return False
        wait_until("Prometheus to be ready", ready)

    def test_a_fleet_is_seen_as_it_is(self):
        server_metrics, worker_metrics = free_address(), free_address()
        server = self.start_server(f"--metrics-listen={server_metrics}")
        # Its trainer pretends to be on a GPU that a pretended driver tells of.
        self.start_worker(server, "w1", f"--metrics-listen={worker_metrics}", f"--lock-dir={self.dir}/locks",
                          slots="gpu", double="flash2:hang", LD_LIBRARY_PATH=str(FAKE_NVML))
        self.start_prometheus(server_metrics, worker_metrics)
        to_server = f"--server={server.address}"
        number = self.attnfleet("submit", to_server, "--preset=tiny", "--repetitions=2", "--shapes=4x64",
                                "--backends=eager,sdpa").stdout.split()[0]
        self.attnfleet("watch", to_server, number)
        self.attnfleet("submit", to_server, "--preset=tiny", "--repetitions=3", "--shapes=4x64", "--backends=flash2")
        self.attnfleet("explain", to_server, "4711", expect=USAGE)  # an RPC that fails
        wait_until("the trainer that hangs", lambda: len(self.trainer_starts()) == 5)

        self.expect('sum by (outcome) (attnfleet_runs_ended_total) > 0', {(("outcome", "measured"),): 4})
        self.expect("attnfleet_runs > 0", {(("priority", "normal"), ("state", "active")): 1,
                                           (("priority", "normal"), ("state", "queued")): 2})
        self.expect("sum by (state) (attnfleet_workers)",
                    {(("state", "connected"),): 1, (("state", "draining"),): 0, (("state", "lost"),): 0,
                     (("state", "stopped"),): 0})
        self.expect("sum(attnfleet_slots)", 2)
        self.expect("attnfleet:slots_busy:ratio", 0.5)
        self.expect("sum(attnfleet_run_queue_seconds_count)", 5)
        self.expect('attnfleet_rpcs_total{method="BenchmarkService/Submit",code="OK"}',
                    {(("code", "OK"), ("method", "BenchmarkService/Submit")): 2})
        self.expect('sum(attnfleet_rpcs_total{method="BenchmarkService/Explain",code="NOT_FOUND"})', 1)
        self.expect('sum(attnfleet_rpc_seconds_count{method="BenchmarkService/Submit"})', 2)
        self.expect('sum(attnfleet_rpcs_open{method="WorkerService/Connect"})', 1)
        self.assertGreater(self.query("sum(attnfleet_store_save_seconds_count)")[()], 4)
        self.expect("sum(attnfleet_store_save_failures_total)", 0)

        labels = (("device", "Double"), ("model", "tiny"), ("precision", "bf16-mixed"), ("shape", "4x64"),
                  ("step", "reference"))
        eager, sdpa = ((("backend", "eager"),) + labels, (("backend", "sdpa"),) + labels)
        self.expect("attnfleet_benchmark_eager_speed_ratio", {eager: 1, sdpa: 2})
        speed = self.query("attnfleet_benchmark_iterations_per_second")
        self.assertAlmostEqual(speed[eager], 390.625, places=2)
        self.expect("attnfleet_benchmark_peak_allocated_bytes", {eager: 256e6, sdpa: 128e6})

        self.expect("attnfleet_worker_connected", 1)
        self.expect("attnfleet_worker_slots",
                    {(("state", "busy"),): 1, (("state", "idle"),): 1, (("state", "out_of_service"),): 0})
        self.expect("sum by (backend, shape, model) (attnfleet_worker_run_info)",
                    {(("backend", "flash2"), ("model", "tiny"), ("shape", "4x64")): 1})
        self.expect("attnfleet_worker_trainer_starts_total", 5)
        self.expect('attnfleet_worker_trainer_exits_total{outcome="measured"}', {(("outcome", "measured"),): 4})
        self.expect("attnfleet_worker_undelivered_results", 0)
        # The second card has no sensor of power: absent, not 0.
        first, second = ((("device", "Fake GPU"), ("slot", f"GPU-fake-{i}")) for i in (0, 1))
        self.expect("attnfleet_gpu_temperature_celsius", {first: 41, second: 42})
        self.expect("attnfleet_gpu_power_watts", {first: 250.5})
        self.expect("attnfleet_gpu_utilization_ratio", {first: 0.75, second: 0.75})
        self.expect("attnfleet_gpu_sm_clock_hertz", {first: 1.98e9, second: 1.98e9})
        self.expect("attnfleet_gpu_memory_used_bytes", {first: 1e9, second: 1e9})
        self.expect('ALERTS{alertstate="firing"}', {})

        known = set()
        for address in (server_metrics, worker_metrics):
            text = get(f"http://{address}/metrics")
            self.assertNotRegex(text, r'="w1"|[{,](job|benchmark|run|request|worker|user|submitter)\w*="')
            judged = subprocess.run([PROMTOOL, "check", "metrics"], input=text, capture_output=True, text=True)
            self.assertEqual((judged.returncode, judged.stdout + judged.stderr), (0, ""))
            known |= families(text)
        self.check_dashboard(known | {"attnfleet_node_slow"})  # which needs three nodes to compare

    def check_dashboard(self, families):
        """Every metric that a panel or a rule names is one that exists."""
        rules = (DEPLOY / "attnfleet.rules.yml").read_text()
        recorded = set(re.findall(r"- record: (\S+)", rules))
        dashboard = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
        expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
        self.assertGreater(len(expressions), 20)
        self.assertEqual(len({panel["id"] for panel in dashboard["panels"]}), len(dashboard["panels"]))
        for expression in expressions + re.findall(r"expr: (?:\|\n)?((?:.*\n)(?: {12}.*\n)*)", rules):
            for name in re.findall(r"attnfleet[a-z0-9_:]*", expression):
                if name in ("attnfleet", "attnfleet-server"):
                    continue
                plain = re.sub(r"_(bucket|sum|count)$", "", name)
                self.assertTrue({name, plain} & (families | recorded), f"{name} of {expression!r} does not exist")


class FiguresOfAWorker(E2ETest):
    def test_metrics_are_off_unless_asked_for_and_a_taken_port_is_told(self):
        server = self.start_server()
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = "127.0.0.1:%d" % taken.getsockname()[1]
            worker = self.start_worker(server, "w1", f"--metrics-listen={address}", wait=False)
            self.assertEqual(worker.wait(), UNAVAILABLE, worker.dump())
            self.assertIn(f"--metrics-listen: cannot listen on {address}: the port is taken", worker.stderr)
        worker = self.start_worker(server, "w1", "--metrics-listen=unix:/x", wait=False)
        self.assertEqual(worker.wait(), USAGE, worker.dump())
        self.assertIn("--metrics-listen: give HOST:PORT", worker.stderr)

    def test_a_driver_that_hangs_hides_its_gpus_alone_and_does_not_hold_up_the_end(self):
        server = self.start_server()
        address = free_address()
        worker = self.start_worker(server, "w1", f"--metrics-listen={address}", f"--lock-dir={self.dir}/locks",
                                   slots="gpu", LD_LIBRARY_PATH=str(FAKE_NVML), ATTNFLEET_FAKE_NVML="hang")
        for _ in range(2):
            text = get(f"http://{address}/metrics")
            self.assertIn('attnfleet_worker_slots{state="out_of_service"} 0\n', text)
            self.assertNotIn("attnfleet_gpu", text)
        worker.kill(signal.SIGTERM)
        self.assertEqual(worker.wait(), OK, worker.dump())


if __name__ == "__main__":
    unittest.main()
