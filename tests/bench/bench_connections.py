"""What each open connection of a service adds to the pause of its update: ``bench_connections.py --count N --runs N``.

A service with none and one with many are updated by turns; after each update every connection is asked for an answer.
The figure is the difference of the medians of the pause, divided by the connections. Nothing is asserted.
``make bench-connections``.
"""

from __future__ import annotations

import argparse
import json
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SERVICE = Path(__file__).with_name("connections_service.py")
PHASES = ("stop", "save", "exec", "load")
SPARE = 200  # descriptors that service and guardian have besides
PATIENCE = 60  # seconds until a hung service ends the run


class Service:
    """One that runs, with so many clients."""

    def __init__(self, folder: Path, count: int) -> None:
        self.count = count
        self.path = folder / f"service-{count}"
        self.process = subprocess.Popen(
            [sys.executable, SERVICE, self.path], stdout=subprocess.PIPE, text=True
        )
        deadline = time.monotonic() + PATIENCE
        while not self.path.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        self.caller = self._connect()
        self.clients = [self._connect() for _ in range(count)]
        self._ask_all()

    def _connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        client.settimeout(PATIENCE)
        while True:
            try:
                client.connect(str(self.path))
            except (BlockingIOError, ConnectionRefusedError):  # its queue is full
                time.sleep(0.001)
            else:
                return client

    def update(self, word: bytes) -> dict:
        """Let it become itself, and return what it tells, with how long a client had to wait (``gap-ns``)."""
        begun = time.monotonic_ns()
        for line in (word + b"\n", b"after\n"):
            self.caller.sendall(line)
            self._answer(self.caller, line)
        gap = time.monotonic_ns() - begun
        told = json.loads(self.process.stdout.readline())
        self._ask_all()
        return {**told, "gap-ns": gap}

    def _ask_all(self) -> None:
        for number, client in enumerate(self.clients):
            client.sendall(b"%d\n" % number)
        for number, client in enumerate(self.clients):
            self._answer(client, b"%d\n" % number)

    def _answer(self, client: socket.socket, expected: bytes) -> None:
        if (answer := client.recv(64)) != expected:
            raise SystemExit(f"a client got {answer!r}, expected {expected!r}")

    def end(self) -> None:
        """Stop it."""
        self.process.kill()
        self.process.wait()
        for client in (self.caller, *self.clients):
            client.close()


def measure(count: int, runs: int) -> dict[str, dict[str, list[float]]]:
    """Return the milliseconds of each update, by service and phase; ``gap`` is what a client saw of a bare one."""
    found = {name: {row: [] for row in ("pause", *PHASES, "gap")} for name in ("none", "many")}
    with tempfile.TemporaryDirectory(prefix="instar-connections-") as folder:
        services = {"none": Service(Path(folder), 0), "many": Service(Path(folder), count)}
        try:
            for run in range(-1, runs):  # the first one warms up
                for name, service in services.items():
                    told, bare = service.update(b"update"), service.update(b"bare")
                    values = {"pause": told["pause-ns"], "gap": bare["gap-ns"], **told["phases"]}
                    for row in found[name] if run >= 0 else ():
                        found[name][row].append(values[row] / 1e6)
                if sys.stderr.isatty():
                    sys.stderr.write(f"\r{run + 1}/{runs} ")
        finally:
            for service in services.values():
                service.end()
    return found


def show(found: dict[str, dict[str, list[float]]], count: int) -> None:
    """Print the table."""
    print(f"{'median, ms':12}{'none':>10}{count:>10,}{'us for each':>14}")
    for row in ("pause", *PHASES, "gap"):
        none, many = (statistics.median(found[name][row]) for name in ("none", "many"))
        print(f"{row:12}{none:10.2f}{many:10.2f}{(many - none) * 1000 / count:14.2f}")


def main() -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--json", action="store_true", help="print all figures as JSON")
    given = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if given.count < 1 or given.runs < 1 or given.count + SPARE > most:
        parser.error(
            f"--count {given.count} --runs {given.runs}: from 1, connections up to {most - SPARE} here"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    found = measure(given.count, given.runs)
    if given.json:
        print(json.dumps({"connections": given.count, "ms": found}))
    else:
        show(found, given.count)
    return 0


if __name__ == "__main__":
    sys.exit(main())
