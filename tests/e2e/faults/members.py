"""The programs of a fleet that faults happen to."""

import re
import signal
import threading
import time

from harness import DOUBLE, FAILED, OK, UNAVAILABLE

from .journal import Tail

RUNS_TAKE = "eager:slow=0.9,sdpa:slow=1.3"  # seconds


class Member:
    """A program that is started again when it was killed. Who does something to it holds its lock."""

    def __init__(self, fleet, name):
        self.fleet = fleet
        self.name = name
        self.lock = threading.Lock()
        self.program = None
        self.wanted = False  # it is to be alive
        self.disk = None
        self.clock = None
        self.proxy = None
        self.messages = None

    @property
    def pid(self):
        return self.program.pid

    def belongs(self, trainer):
        """Whether that trainer's run is this program's work."""
        raise NotImplementedError

    def mark(self):
        """Of this moment, for worked_since."""
        return time.monotonic()

    def worked_since(self, mark):
        """Whether a run of its was started after that moment."""
        return bool(self.fleet.trainers.started_since(mark, self.belongs))

    def kill(self):
        """kill -9; returns the wait status."""
        self.wanted = False
        self.program.kill()
        return self.program.wait()

    def signal(self, how):
        self.program.process.send_signal(how)

    def died_by_itself(self):
        return self.wanted and self.program.process.poll() is not None

    def log(self):
        """Its log from here on, in JSON Lines."""
        return Tail(self.program.stderr_path, from_end=True)

    def stop(self):
        """In order; returns the exit status."""
        self.wanted = False
        self.signal(signal.SIGTERM)
        return self.program.wait()

    def _clock_environment(self):
        return self.clock.environment() if self.clock else {}


class Server(Member):
    def __init__(self, fleet, name, address):
        super().__init__(fleet, name)
        self.address = address

    def belongs(self, trainer):
        return True

    def start(self):
        fleet = self.fleet
        store = f"--store={fleet.postgres.url}" if fleet.postgres else f"--state-dir={self.state}"
        self.program = fleet.start("attnfleet-server", f"--listen={self.address}", store, "--metrics-listen=off",
                                   f"--lease={fleet.lease}s", f"--heartbeat={fleet.lease / 6:.3f}s", "--verbose",
                                   "--log-format=json", **self._clock_environment())
        self.program.wait_for_line(r"^ready ")
        self.wanted = True

    @property
    def state(self):
        return (self.disk.path if self.disk else self.fleet.dir) / f"state-{self.name}"

    def leads(self):
        said = re.findall(r"leads, epoch|leads no more", self.program.stderr)
        return self.wanted and bool(said) and said[-1] != "leads no more"


class Database(Member):
    """The PostgreSQL of two servers."""

    def __init__(self, fleet, postgres):
        super().__init__(fleet, "postgres")
        self.postgres = postgres
        self.wanted = True

    def belongs(self, trainer):
        return True

    def stop_at_once(self):
        """Returns what can be told of its death."""
        process = self.postgres.process
        self._log = Tail(self.postgres.dir / "log", from_end=True)
        self.postgres.stop()
        return {"pid": process.pid, "wait_status": process.returncode}

    def start(self):
        self.postgres.start()

    def recovery(self):
        """The line of its log in which it says that it was not stopped in order, or ""."""
        return next((line for line in self._log.lines() if "automatic recovery in progress" in line), "")

    def died_by_itself(self):
        return self.postgres.process is None or self.postgres.process.poll() is not None


class Worker(Member):
    def __init__(self, fleet, name, servers):
        super().__init__(fleet, name)
        self.servers = servers

    def belongs(self, trainer):
        return trainer.worker == self.pid

    def start(self):
        folder = (self.disk.path if self.disk else self.fleet.dir) / f"state-{self.name}"
        self.program = self.fleet.start("attnfleet-worker", f"--server={self.servers}", f"--name={self.name}",
                                        "--slots=cpu:2", f"--state-dir={folder}", f"--trainer={DOUBLE}", "--verbose",
                                        "--log-format=json", double=RUNS_TAKE,
                                        ATTNFLEET_DOUBLE_ENDS=str(self.fleet.ends), **self._clock_environment())
        self.wanted = True


class Client(Member):
    """Submits one benchmark after another and watches it to its end, whatever happens."""

    def __init__(self, fleet, name, servers):
        super().__init__(fleet, name)
        self.servers = servers
        self.benchmark = None  # the ordinal of the one that it watches
        self._changing = threading.Lock()  # program and wanted
        self._thread = threading.Thread(target=self._work, name=name)

    def belongs(self, trainer):
        return trainer.benchmark == self.benchmark

    def start_thread(self):
        self._thread.start()

    def join(self, timeout):
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _work(self):
        try:
            while not self.fleet.draining.is_set():
                self._one_benchmark(self.fleet.next_benchmark())
        except Exception as error:  # of this thread; the round reports it
            self.fleet.violation(f"{self.name}: {error}")

    def _one_benchmark(self, benchmark):
        self._until_answered("submit", *benchmark.submit_flags())
        benchmark.number = self.program.stdout.split()[0]
        self.benchmark = benchmark.ordinal
        while True:
            with self._changing:
                self.program = self.fleet.start("attnfleet", "watch", f"--server={self.servers}", benchmark.number)
                self.wanted = True
            status = self.program.wait(self.fleet.BENCHMARK_LIMIT)
            with self._changing:
                killed, self.wanted = not self.wanted, False
            if status == OK:
                break
            if not killed:
                raise AssertionError(f"watch of {benchmark.number} ended with {status}\n{self.program.dump()}")
        self._until_answered("results", "--format=json", benchmark.number)
        benchmark.take_results(self.program.stdout)

    def mark(self):
        return self.benchmark, self.pid, self.program.stderr_path.stat().st_size

    def worked_since(self, mark):
        """Whether it had news of a run that ended, or has gone on to the next benchmark."""
        now = self.mark()
        return now[0] != mark[0] or now[2] > (mark[2] if now[1] == mark[1] else 0)

    def kill(self):
        with self._changing:
            return super().kill() if self.wanted else None  # it has just ended

    def died_by_itself(self):
        return False  # its own thread looks after it

    def _until_answered(self, command, *args):
        """The same again for as long as no server can be reached, or it says that it cannot save."""
        deadline = time.monotonic() + self.fleet.BENCHMARK_LIMIT
        while True:
            self.program = self.fleet.start("attnfleet", command, f"--server={self.servers}", "--timeout=3", *args)
            status = self.program.wait()
            if status == OK:
                return
            told_full = status == FAILED and "No space left on device" in self.program.stderr
            if not (status == UNAVAILABLE or told_full) or time.monotonic() > deadline:
                raise AssertionError(f"{command} ended with {status}\n{self.program.dump()}")
            time.sleep(0.2)


class StreamProxy(Member):
    """Between one worker and the server: duplicates and reorders messages as its control file says."""

    def __init__(self, fleet, name, address, server):
        super().__init__(fleet, name)
        self.address = address
        self._server = server
        self._control = fleet.dir / f"control-{name}"
        self.ask("")

    def start(self):
        self.program = self.fleet.start("attnfleet-stream-proxy", self.address, self._server, self._control)
        self.program.wait_for_line(r"^ready")
        self.wanted = True

    def ask(self, what):
        """"duplicate" or "reorder" from now on, or "": pass everything on as it is."""
        fresh = self._control.with_suffix(".new")
        fresh.write_text(what + "\n")
        fresh.rename(self._control)
