"""Two servers that share a PostgreSQL database: one leads, and whatever happens to it, the other goes on."""

import contextlib
import re
import signal
import sqlite3
import time
import unittest
import urllib.request

from harness import FAILED, OK, UNAVAILABLE, USAGE, E2ETest, free_address, wait_until
from postgres import Postgres

SLOW = "eager:slow=0.3,sdpa:slow=0.3"


class SharedStore(E2ETest):
    def setUp(self):
        super().setUp()
        self.postgres = Postgres()
        self.addCleanup(self.postgres.remove)

    def start_shared(self, *args, listen=None):
        # The lease is long: a worker needs up to nine seconds to turn away from a server that hangs.
        return self.start_server(f"--store={self.postgres.url}", "--lease=60s", *args, listen=listen or free_address())

    def wait_to_lead(self, server, times=1):
        wait_until(f"{server.address} to lead", lambda: len(re.findall("leads, epoch", server.stderr)) >= times)


class Failover(SharedStore):
    def setUp(self):
        super().setUp()
        self.leader = self.start_shared()
        self.wait_to_lead(self.leader)
        self.standby = self.start_shared()
        self.servers = f"{self.leader.address},{self.standby.address}"
        self.to_servers = f"--server={self.servers}"

    def submit(self, *args):
        return self.attnfleet("submit", self.to_servers, "--preset=tiny", *args).stdout.split()[0]

    def assert_all_counted_once(self, number, runs):
        """To the end; then nothing is lost, and no run was started a second time. An attempt may be the second: a leader
        that dies between saving an assignment and sending it leaves one that never began."""
        self.attnfleet("watch", self.to_servers, number, timeout=120)
        benchmark = self.results(self.to_servers, number)
        self.assertEqual(self.outcomes(benchmark), {"MEASURED": runs})
        self.assertEqual(len(self.trainer_starts()), runs)
        check, status = self.run_program("attnfleet-server", "check", f"--store={self.postgres.url}")
        self.assertEqual(status, OK, check.dump())
        self.assertIn(f"{runs} runs", check.stdout)

    def test_killed_leader_is_replaced_and_nothing_is_lost_or_counted_twice(self):
        self.start_worker(self.servers, slots="cpu:2", double=SLOW)
        watch = self.start("attnfleet", "watch", self.to_servers, self.submit("--repetitions=5"))
        wait_until("trainers", lambda: len(self.trainer_starts()) >= 3)
        self.leader.kill()
        self.leader.wait()
        self.wait_to_lead(self.standby)
        self.assertEqual(watch.wait(120), OK, watch.dump())
        self.assert_all_counted_once("1", 20)

    def test_frozen_leader_is_passed_over_and_cannot_write_when_it_wakes(self):
        self.start_worker(self.servers, slots="cpu:2", double=SLOW)
        number = self.submit("--repetitions=5")
        wait_until("trainers", lambda: len(self.trainer_starts()) >= 3)
        self.leader.kill(signal.SIGSTOP)
        self.wait_to_lead(self.standby)
        wait_until("the worker to go on", lambda: len(self.trainer_starts()) >= 6)
        epoch = self.postgres.query("SELECT epoch FROM leadership")
        self.leader.kill(signal.SIGCONT)
        wait_until("the old leader to step down", lambda: "leads no more" in self.leader.stderr)
        wait_until("it to stand by", lambda: "on standby" in self.leader.stderr)
        self.assert_all_counted_once(number, 20)
        self.assertEqual(self.postgres.query("SELECT epoch FROM leadership"), epoch, "it did not lead again")

    def test_leader_that_is_told_to_stop_ends_though_it_was_passed_over(self):
        self.start_worker(self.servers, slots="cpu:2", double=SLOW)
        self.submit("--repetitions=5")
        wait_until("trainers", lambda: len(self.trainer_starts()) >= 3)
        self.leader.kill(signal.SIGSTOP)
        self.wait_to_lead(self.standby)
        self.leader.kill(signal.SIGTERM)
        self.leader.kill(signal.SIGCONT)
        self.assertEqual(self.leader.wait(), OK, self.leader.dump())
        self.assertIn("leads no more", self.leader.stderr)

    def test_restart_of_the_database_loses_nothing(self):
        self.start_worker(self.servers, slots="cpu:2", double=SLOW)
        number = self.submit("--repetitions=5")
        wait_until("trainers", lambda: len(self.trainer_starts()) >= 3)
        self.postgres.stop()
        wait_until("the leader to notice", lambda: "nothing is assigned or acknowledged" in self.leader.stderr)
        wait_until("the standby to notice", lambda: "store postgresql" in self.standby.stderr)
        time.sleep(1.5)  # as long as the standby waits for a leader that has lost its connection
        self.postgres.start()
        self.assert_all_counted_once(number, 20)
        self.assertIn("the database answers again", self.standby.stderr)
        self.assertNotIn("leads no more", self.leader.stderr)
        self.assertNotIn("leads, epoch", self.standby.stderr, "the leader was as far from the database as it was")

    def test_database_that_goes_away_as_a_standby_takes_the_lead_does_not_end_it(self):
        self.start_worker(self.servers, slots="cpu:2", double=SLOW)
        number = self.submit("--repetitions=5")
        wait_until("trainers", lambda: len(self.trainer_starts()) >= 3)
        # The session that takes the lead lives on; the one that is to read the store is refused.
        self.postgres.allow_connections(False)
        self.leader.kill()
        self.leader.wait()
        wait_until("it to give the lead up", lambda: "not currently accepting connections" in self.standby.stderr)
        self.postgres.allow_connections(True)
        self.assert_all_counted_once(number, 20)
        self.standby.kill(signal.SIGTERM)
        self.assertEqual(self.standby.wait(), OK, self.standby.dump())

    def test_leader_that_stops_hands_over_at_once_and_a_standby_leads_to_it(self):
        self.attnfleet("list", f"--server={self.standby.address}")
        self.leader.kill(signal.SIGTERM)
        self.assertEqual(self.leader.wait(), OK, self.leader.dump())
        self.wait_to_lead(self.standby)
        again = self.start_shared(listen=self.leader.address)
        wait_until("it to stand by", lambda: "on standby" in again.stderr)
        number = self.attnfleet("submit", f"--server={again.address}", "--preset=tiny").stdout.split()[0]
        self.assertIn(number, self.attnfleet("list", f"--server={self.standby.address}").stdout)


class Figures(SharedStore):
    def setUp(self):
        super().setUp()
        self.addresses = free_address(), free_address()
        self.leader = self.start_shared(f"--metrics-listen={self.addresses[0]}")
        self.wait_to_lead(self.leader)

    def figures(self, address):
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as answer:
            return answer.read().decode()

    def leads(self, address):
        """What its /metrics says, which tells of the fleet only if it does."""
        text = self.figures(address)
        leads = re.search("^attnfleet_leads ([01])$", text, re.MULTILINE).group(1) == "1"
        if not leads:
            self.assertNotRegex(text, "attnfleet_(runs{|workers|slots|benchmark|node)")
        return leads and "attnfleet_workers{" in text

    def test_each_serves_metrics_and_who_leads_shows_the_fleet(self):
        standby = self.start_shared(f"--metrics-listen={self.addresses[1]}")
        wait_until("it to stand by", lambda: "on standby" in standby.stderr)
        self.assertEqual([self.leads(address) for address in self.addresses], [True, False])
        self.leader.kill(signal.SIGSTOP)
        self.wait_to_lead(standby)
        wait_until("its figures", lambda: self.leads(self.addresses[1]))
        self.leader.kill(signal.SIGCONT)
        wait_until("the other to stand by", lambda: "on standby" in self.leader.stderr)
        self.assertEqual([self.leads(address) for address in self.addresses], [False, True])

    def test_a_standby_that_cannot_serve_metrics_says_so_at_once(self):
        standby, status = self.run_program("attnfleet-server", f"--store={self.postgres.url}",
                                           f"--listen={free_address()}", f"--metrics-listen={self.addresses[0]}")
        self.assertEqual(status, UNAVAILABLE, standby.dump())
        self.assertIn(f"--metrics-listen: cannot listen on {self.addresses[0]}", standby.stderr)


class Administration(SharedStore):
    """check, backup and restore, from a file to a database and back."""

    def admin(self, *args, expect=OK):
        program, status = self.run_program("attnfleet-server", *args)
        self.assertEqual(status, expect, program.dump())
        return program

    def run_benchmark(self, server):
        self.start_worker(server, double="eager:oom")
        number = self.attnfleet("submit", f"--server={server.address}", "--preset=tiny").stdout.split()[0]
        self.attnfleet("watch", f"--server={server.address}", number)
        return self.results(f"--server={server.address}", number)

    def test_backup_of_a_running_file_store_is_restored_into_a_database(self):
        server = self.start_server(state=self.state)
        before = self.run_benchmark(server)
        backup = self.dir / "backup"
        of_file, of_database = f"--state-dir={self.state}", f"--store={self.postgres.url}"
        self.assertIn("1 benchmark, 12 runs", self.admin("backup", backup, of_file).stdout)
        self.assertIn(str(backup), self.admin("backup", backup, of_file, expect=UNAVAILABLE).stderr)
        self.assertIn("consistent", self.admin("check", of_file).stdout)
        self.assertRegex(self.admin("restore", backup, of_file, expect=UNAVAILABLE).stderr, r"process \d+")
        self.admin("restore", backup, of_database)
        self.assertIn("not empty", self.admin("restore", backup, of_database, expect=FAILED).stderr)
        self.assertIn("consistent", self.admin("check", of_database).stdout)
        shared = self.start_shared()
        self.wait_to_lead(shared)
        self.assertEqual(self.results(f"--server={shared.address}", "1"), before)
        self.assertIn(shared.address, self.admin("restore", backup, of_database, expect=UNAVAILABLE).stderr)

    def test_check_names_what_is_damaged(self):
        server = self.start_server(state=self.state)
        self.run_benchmark(server)
        with contextlib.closing(sqlite3.connect(self.state / "attnfleet.db")) as database, database:
            database.execute("UPDATE runs SET state = 1 WHERE job_index = 2 AND repetition = 0")
            database.execute("DELETE FROM runs WHERE job_index = 1 AND repetition = 0")
        found = self.admin("check", f"--state-dir={self.state}", expect=FAILED).stdout
        self.assertIn("run 1/2/0: state is 1 in its column, 4 in its message", found)
        self.assertIn("benchmark 1: has finished, but 11 of its 12 runs have a result", found)

    def test_wrong_usage_is_told(self):
        for args, words in ((("--store=postgresql://a:secret@h/d",), "PGPASSFILE"),
                            (("chek",), 'did you mean "check"'),
                            (("backup",), "FILE"),
                            (("--advertise=a:1",), "--store"),
                            (("--store=mysql://h/d",), "postgresql://"),
                            ((f"--store={self.postgres.url}", "--listen=127.0.0.1:0"), "port")):
            self.assertIn(words, self.admin(*args, expect=USAGE).stderr)
        gone = self.admin("check", f"--store=postgresql:///none?host={self.dir}", expect=UNAVAILABLE)
        self.assertIn("/none", gone.stderr)
        self.assertIn(str(self.state), self.admin("check", f"--state-dir={self.state}", expect=UNAVAILABLE).stderr)


if __name__ == "__main__":
    unittest.main()
