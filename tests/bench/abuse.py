#!/usr/bin/env python3
"""What hostile peers cost a coordinator and its honest users. A benchmark, not a test; only on loopback.

    python3 tests/bench/abuse.py --bin build/release/bin [--seconds 8] [--connections 10000] [--only slow_readers,...]

Starts a server with TLS and roles (certificates from deploy/certificates.sh), and an honest viewer that calls List
10 times a second on one connection of its own. Then, one after the other and each for --seconds: nothing (twice: before
and after), and the attacks below, by a peer with a valid certificate at another loopback address. Prints for each the
honest calls' median and p99 latency, how many failed, and the server's resident memory at its highest so far.
"""

import argparse
import contextlib
import multiprocessing
import pathlib
import re
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "e2e"))
import http2  # noqa: E402

LIST = "/attnfleet.v1.BenchmarkService/List"
GET = "/attnfleet.v1.BenchmarkService/Get"
PAUSE = "/attnfleet.v1.BenchmarkService/Pause"
RESUME = "/attnfleet.v1.BenchmarkService/Resume"
SUBMIT = "/attnfleet.v1.BenchmarkService/Submit"
CONNECT = "/attnfleet.v1.WorkerService/Connect"
HOSTILE = "127.0.0.2"


class Attack:
    """Connections that are held until the end of the attack, and what was refused."""

    def __init__(self, address, context, seconds, connections):
        self.address, self.context, self.connections = address, context, connections
        self.end = time.monotonic() + seconds
        self.held = []
        self.refused = 0

    def over(self):
        return time.monotonic() > self.end

    def connect(self, **more):
        """A connection that is held; None if the server does not take it."""
        try:
            self.held.append(http2.Connection(self.address, self.context, HOSTILE, timeout=10, **more))
            return self.held[-1]
        except OSError:
            self.refused += 1
            return None

    def rest(self):
        time.sleep(max(0.0, self.end - time.monotonic()))

    def close(self):
        for one in self.held:
            with contextlib.suppress(OSError):
                one.close()


def nothing(attack):
    attack.rest()


def connections_without_handshake(attack):
    host, port = attack.address.rsplit(":", 1)
    for _ in range(attack.connections):
        if attack.over():
            break
        try:
            attack.held.append(socket.create_connection((host, int(port)), 5, (HOSTILE, 0)))
        except OSError:
            attack.refused += 1
    attack.rest()


def connections_with_handshake(attack):
    while len(attack.held) + attack.refused < attack.connections and not attack.over():
        attack.connect()
    attack.rest()


def half_open_streams(attack):
    """Streams with headers and no message, 100 on each of up to 250 connections."""
    for _ in range(250):
        connection = None if attack.over() else attack.connect()
        if connection is None:
            break
        with contextlib.suppress(OSError):
            for _ in range(100):
                connection.start(LIST)
    attack.rest()


def slow_writers(attack):
    """Messages that claim 60 MB and come byte by byte."""
    streams = []
    for _ in range(30):
        connection = attack.connect()
        for _ in range(10 if connection else 0):
            stream = connection.start(SUBMIT)
            connection.send(http2.frame(http2.DATA, 0, stream, http2.message(b"", 60 << 20)))
            streams.append((connection, stream))
    while not attack.over():
        for connection, stream in streams:
            with contextlib.suppress(OSError):
                connection.send(http2.frame(http2.DATA, 0, stream, b"x"))
        time.sleep(0.2)


def slow_readers(attack):
    """Asks for the largest benchmark there is and never reads: no window for the answer."""
    for _ in range(100):
        connection = None if attack.over() else attack.connect(window=0)
        if connection is None:
            break
        with contextlib.suppress(OSError):
            for _ in range(10):
                stream = connection.start(GET)
                connection.send(http2.frame(http2.DATA, http2.END_STREAM, stream, http2.message(b"")))
    attack.rest()


def slow_readers_of_change(attack):
    """The same while the benchmark changes twice in a second, so that no two answers need be the same."""
    changer = attack.connect()
    for i in range(100):
        connection = None if attack.over() else attack.connect(window=0)
        if connection is None:
            break
        with contextlib.suppress(OSError):
            for _ in range(10):
                stream = connection.start(GET)
                connection.send(http2.frame(http2.DATA, http2.END_STREAM, stream, http2.message(b"")))
        change(changer, i)
    while not attack.over():
        change(changer, i := i + 1)
        time.sleep(0.5)


def change(connection, number):
    with contextlib.suppress(OSError):
        stream = connection.start((PAUSE, RESUME)[number % 2])
        connection.send(http2.frame(http2.DATA, http2.END_STREAM, stream, http2.message(b"\x08\x01")))  # id 1


def large_messages(attack):
    """Uploads of 1 GiB, four at a time, as fast as the server takes them."""
    def upload():
        while not attack.over():
            connection = attack.connect()
            with contextlib.suppress(OSError, AttributeError):
                connection.upload(connection.start(SUBMIT), 1 << 30, attack.over)
            attack.refused += 1
            time.sleep(0.05)
    threads = [threading.Thread(target=upload) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def header_floods(attack):
    """15 MB of headers without end on each of 50 connections that acknowledge no limit."""
    for _ in range(50):
        connection = None if attack.over() else attack.connect()
        if connection is None:
            break
        with contextlib.suppress(OSError):
            stream = connection.start(LIST, flags=0)
            for i in range(950):
                connection.send(http2.frame(http2.CONTINUATION, 0, stream, http2.header(f"x-{i}", "x" * 16000)))
    attack.rest()


def a_billion_runs(attack):
    request = http2.axes_of_a_billion_runs()
    connection = attack.connect()
    while not attack.over():
        with contextlib.suppress(OSError):
            stream = connection.start(SUBMIT)
            connection.send(http2.frame(http2.DATA, http2.END_STREAM, stream, http2.message(request)))
            connection.finish(stream)
            attack.refused += 1
            continue
        connection = attack.connect() or connection
        time.sleep(0.05)


ATTACKS = [nothing, connections_without_handshake, connections_with_handshake, half_open_streams, slow_writers,
           slow_readers, slow_readers_of_change, large_messages, header_floods, a_billion_runs, nothing]


def honest(address, files, stop, queue):
    """Calls List 10 times a second until told to stop; puts (time, seconds or None) for each."""
    context = http2.tls_context(*files)
    connection = None
    while not stop.is_set():
        begin = time.monotonic()
        try:
            connection = connection or http2.Connection(address, context, timeout=5)
            stream = connection.start(LIST)
            connection.send(http2.frame(http2.DATA, http2.END_STREAM, stream, http2.message(b"")))
            answered = False
            while True:
                kind, flags, of, _ = connection.read()
                answered = answered or (kind == http2.DATA and of == stream)
                if of == stream and (flags & http2.END_STREAM or kind == http2.RST_STREAM):
                    break
            queue.put((begin, time.monotonic() - begin if answered else None))
        except OSError:
            connection = None
            queue.put((begin, None))
        time.sleep(max(0.0, 0.1 - (time.monotonic() - begin)))


def highest_memory(pid):
    return int(re.search(r"VmHWM:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text()).group(1)) / 1024


def resident(pid):
    return int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text()).group(1)) / 1024


def start_server(binaries, folder):
    script = ["bash", ROOT / "deploy" / "certificates.sh", folder]
    for arguments in (["ca"], ["server", "server", "127.0.0.1"], ["client", "alice"], ["client", "eve"]):
        subprocess.run([*script, *arguments], check=True, capture_output=True)
    (folder / "roles").write_text("alice viewer\neve submitter,worker\n")
    server = subprocess.Popen([binaries / "attnfleet-server", "--listen=127.0.0.1:0", f"--state-dir={folder}/state",
                               "--metrics-listen=off", f"--ca={folder}/ca.pem", f"--cert={folder}/server.pem",
                               f"--key={folder}/server.key", f"--roles={folder}/roles"],
                              stdout=subprocess.PIPE, stderr=open(folder / "server.log", "w"), text=True)
    line = server.stdout.readline()
    if not line.startswith("ready "):
        raise SystemExit((folder / "server.log").read_text())
    return server, line.split()[1]


def files(folder, name):
    return [str(folder / "ca.pem"), str(folder / f"{name}.pem"), str(folder / f"{name}.key")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", type=pathlib.Path, default=ROOT / "build/release/bin")
    parser.add_argument("--seconds", type=float, default=8, help="of each attack")
    parser.add_argument("--connections", type=int, default=10000)
    parser.add_argument("--only", type=lambda names: names.split(","), help="names of attacks; default: all of them")
    options = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory(prefix="attnfleet-bench-") as name:
        folder = pathlib.Path(name)
        server, address = start_server(options.bin.resolve(), folder)
        stop, queue = multiprocessing.Event(), multiprocessing.Queue()
        alice = multiprocessing.Process(target=honest, args=(address, files(folder, "alice"), stop, queue))
        try:
            # The largest answer to ask for: a benchmark of 96,000 runs.
            axes = ",".join(f"{batch}x64" for batch in range(1, 49))
            subprocess.run([options.bin / "attnfleet", "submit", f"--server={address}", "--preset=tiny", "--steps=1",
                            "--backends=eager,sdpa", f"--shapes={axes}", "--repetitions=1000",
                            *(flag + path for flag, path in zip(("--ca=", "--cert=", "--key="), files(folder, "eve")))],
                           check=True, capture_output=True)
            alice.start()
            print("| attack | honest calls | failed | median ms | p99 ms | refused | server RSS MB | highest MB |")
            print("|---|---|---|---|---|---|---|---|")
            context = http2.tls_context(*files(folder, "eve"))
            for run in ATTACKS:
                if options.only and run.__name__ not in options.only:
                    continue
                while not queue.empty():
                    queue.get()
                attack = Attack(address, context, options.seconds, options.connections)
                run(attack)
                during = resident(server.pid)
                calls = []
                while not queue.empty():
                    calls.append(queue.get()[1])
                attack.close()
                good = sorted(seconds for seconds in calls if seconds is not None)
                median = 1e3 * statistics.median(good) if good else float("nan")
                p99 = 1e3 * good[max(0, int(len(good) * 0.99) - 1)] if good else float("nan")
                print(f"| {run.__name__.replace('_', ' ')} | {len(calls)} | {len(calls) - len(good)} | {median:.1f} | "
                      f"{p99:.1f} | {attack.refused} | {during:.0f} | {highest_memory(server.pid):.0f} |", flush=True)
                if server.poll() is not None:
                    raise SystemExit(f"the server has ended\n{(folder / 'server.log').read_text()}")
                time.sleep(1)
        finally:
            stop.set()
            if alice.pid:
                alice.join(10)
                alice.terminate()
            server.terminate()
            server.wait(20)


if __name__ == "__main__":
    main()
