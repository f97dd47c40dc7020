"""One fault of every kind that is possible here: the short version of fault_campaign.py."""

import json
import pathlib
import random
import shutil
import tempfile
import unittest
import zlib

from faults import round as fault_round
from faults.fleet import FLAVOURS
from faults.kinds import KINDS

LEASE = 3  # seconds; heartbeats must come in time also where other tests slow everything down


def kinds_for(flavour):
    """Each kind is tried once, on the fleet that fewest others are for."""
    usual = {name: [] for name in FLAVOURS}
    for name, kind in sorted(KINDS.items(), key=lambda item: len(item[1].flavours)):
        usual[min(kind.flavours, key=lambda possible: len(usual[possible]))].append(name)
    return usual[flavour]


class Faults(unittest.TestCase):
    def inject(self, flavour):
        reasons = fault_round.reasons()
        wanted = kinds_for(flavour)
        for name in set(wanted) & set(reasons):
            print(f"not injected: {name}: {reasons[name]}")
        faults = [name for name in wanted if name not in reasons]
        seed = zlib.crc32(flavour.encode())  # always this order here; the campaign tries others
        random.Random(seed).shuffle(faults)
        out = pathlib.Path(tempfile.mkdtemp(prefix="attnfleet-faults-"))
        outcome = fault_round.run(flavour, faults, seed, out / "round", LEASE)
        again = (f"python3 -m faults.round {flavour} --seed={seed} --lease={LEASE} --faults='{json.dumps(faults)}' "
                 "--out=.")
        said = (out / "round" / "harness.log").read_text()
        self.assertIsNotNone(outcome, f"{said}\nagain: {again}")
        self.assertEqual(outcome["violations"], [], f"logs: {out}; again: {again}")
        journal = [json.loads(line) for line in (out / "round" / fault_round.JOURNAL).read_text().splitlines()]
        self.assertEqual(sorted(fault["kind"] for fault in journal), sorted(faults))
        # How often the moment was right is for the campaign to count.
        self.assertTrue(any(fault["struck"] for fault in journal), journal)
        shutil.rmtree(out)

    def test_with_one_server(self):
        self.inject("plain")

    @unittest.skipIf("database restart" in fault_round.reasons(), "PostgreSQL is not installed")
    def test_with_two_servers_on_one_database(self):
        self.inject("shared")

    def test_with_clocks_and_messages_astray(self):
        self.inject("layered")


if __name__ == "__main__":
    unittest.main()
