"""Packets dropped by nftables in the fleet's own network namespace, and counted there."""

import json
import subprocess


def _nft(rules):
    subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True, capture_output=True)


class Filter:
    """Drops packets from and to a TCP port of the loopback: all of them, or so many of a hundred."""

    def __init__(self, name, address, percent=100):
        self._name = name
        port = address.rsplit(":", 1)[1]
        chance = "" if percent == 100 else f"numgen random mod 100 < {percent} "
        _nft(f"""table inet {name} {{
  chain input {{
    type filter hook input priority 0;
    tcp dport {port} {chance}counter drop
    tcp sport {port} {chance}counter drop
  }}
}}
""")

    def remove(self):
        """Returns (packets, bytes) that were dropped."""
        listing = json.loads(subprocess.check_output(["nft", "-j", "list", "table", "inet", self._name], text=True))
        counters = [part["counter"] for entry in listing["nftables"] if "rule" in entry
                    for part in entry["rule"]["expr"] if "counter" in part]
        _nft(f"delete table inet {self._name}\n")
        return sum(c["packets"] for c in counters), sum(c["bytes"] for c in counters)
