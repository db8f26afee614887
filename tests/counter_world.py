"""The example that updates itself, with its console and its clients, for tests that make it fail."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "examples" / "counter_service.py"
PATIENCE = 60  # seconds until a hung service fails the test; nothing is measured


class Service:
    """A copy of the example that runs, its console and its processes.

    Args:
        folder: Where the copy is.
        change: What to replace in its text, and by what.
    """

    def __init__(self, folder: Path, change: tuple[str, str] = ("", "")):
        self.file = folder / "counter_service.py"
        shutil.copy(EXAMPLE, self.file)
        self.text = self.file.read_text().replace(*change) if change[0] else self.file.read_text()
        self.file.write_text(self.text)
        here = os.path.dirname(sys.executable)
        environ = {"PATH": f"{here}:/usr/bin:/bin", "PYTHONPATH": str(ROOT / "src")}
        self.process = subprocess.Popen(
            [self.file, "0"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environ,
        )
        self.pid = self.process.pid
        self.port = int(self.console().split()[-1])

    def console(self) -> str:
        """Return the next line; a service that goes on as another process is known by that from now on."""
        line = self.process.stdout.readline().rstrip()
        moved = re.search(r"goes on as process (\d+)", line)
        if moved:
            self.pid = int(moved[1])
        return line

    def become(self, version: str, patch: str = "") -> None:
        """Install another version, which does ``patch`` before it is ready, but not in a rehearsal."""
        new = re.sub(r'Engine\("\d+"\)', f'Engine("{version}")', self.text)
        body = "".join(f"    {line}\n" for line in patch.splitlines())
        guarded = f"if not engine.rehearsing:\n{body}" if patch else ""
        new = new.replace("print(engine.ready()", f"{guarded}print(engine.ready()")
        self.replace(lambda path: path.write_text(new))

    def replace(self, make) -> None:
        """Put another file in place, as an installation does."""
        made = self.file.with_suffix(".new")
        make(made)
        made.chmod(0o755)
        made.replace(self.file)

    def connect(self) -> Client:
        return Client(self.port)

    def descriptors(self) -> dict[str, str]:
        """Return what it has open; a name that was replaced on the disk is still that name."""
        folder = f"/proc/{self.pid}/fd"
        found = {number: os.readlink(f"{folder}/{number}") for number in os.listdir(folder)}
        return {number: name.removesuffix(" (deleted)") for number, name in found.items()}

    def children(self) -> list[int]:
        """Return the processes that it has started and that are still there."""
        return [
            int(pid)
            for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        ]

    def wait_for_children(self, count: int) -> list[int]:
        """Wait until there are so many; returns them."""
        for _ in range(PATIENCE * 100):
            if len(found := self.children()) >= count:
                return found
            time.sleep(0.01)
        raise TimeoutError(f"{count} children did not start")

    def end(self) -> None:
        """End the process that serves, and wait until it is gone."""
        try:
            process = os.pidfd_open(self.pid)
        except ProcessLookupError:
            pass
        else:
            signal.pidfd_send_signal(process, signal.SIGKILL)
            select.select([process], [], [], PATIENCE)
            os.close(process)
        self.process.wait(PATIENCE)
        self.process.stdout.close()


class Client:
    """A connection that must never break."""

    def __init__(self, port: int):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.lines = self.socket.makefile("r")

    def send(self, text: str) -> None:
        self.socket.sendall(text.encode())

    def answer(self) -> tuple[int, str]:
        count, _, version = self.lines.readline().split()
        return int(count), version

    def ask(self) -> tuple[int, str]:
        self.send("hello\n")
        return self.answer()

    def close(self) -> None:
        self.lines.close()
        self.socket.close()


class Load:
    """Clients that ask all the time; every answer is kept."""

    def __init__(self, service: Service, clients: int = 4):
        self._answers: list[list[int]] = [[] for _ in range(clients)]
        self._over = threading.Event()
        self._clients = [service.connect() for _ in range(clients)]
        self._threads = [
            threading.Thread(target=self._ask, args=pair)
            for pair in zip(self._clients, self._answers, strict=True)
        ]
        for thread in self._threads:
            thread.start()

    def _ask(self, client: Client, answers: list[int]) -> None:
        while not self._over.is_set():
            answers.append(client.ask()[0])
            self._over.wait(0.002)

    def wait(self) -> None:
        """Wait until each client has had an answer."""
        while not all(self._answers):
            self._over.wait(0.01)

    def end(self) -> list[int]:
        """Stop asking; returns all numbers that were given out, in order: without a loss they are 1, 2, 3 and so on."""
        self._over.set()
        for thread in self._threads:
            thread.join(PATIENCE)
        for client in self._clients:
            client.close()
        return sorted(count for answers in self._answers for count in answers)
