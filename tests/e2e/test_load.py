"""Many workers at once, over real gRPC: bench/fleet_load at a small size."""

import json

from harness import OK, E2ETest


class Load(E2ETest):
    def test_every_run_of_300_workers_counts_once_and_no_lease_is_lost(self):
        # No pings, and a long lease: a machine that is busy with other tests is none of this one's business.
        load, status = self.run_program("fleet_load", "--workers=300", "--runs=3000", "--settle=2s", "--heartbeat=500ms",
                                        "--lease=60s", "--nokeepalive", f"--folder={self.dir}", "--json", timeout=240)
        self.assertEqual(status, OK, load.dump())
        figures = json.loads(load.stdout)
        self.assertEqual(figures["runs"], 3000)
        self.assertEqual(figures["runs_counted_once"], 3000)
        self.assertEqual(figures["runs_retried"], 0, "a lease was lost")
        self.assertEqual(figures["faults"], 0)
        self.assertGreater(figures["heartbeats_per_second_idle"], 0)
        self.assert_nothing_left()
