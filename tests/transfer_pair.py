"""A running guest and a program that takes it over by cpr-transfer: for tests of kinds guest and faults."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from pathlib import Path

from harness import PATIENCE, PROGRAM, Console, Qmp, Vm


def unix(path: Path) -> dict:
    return {"transport": "socket", "type": "unix", "path": str(path)}


class Pair:
    """A :class:`Vm` that runs and the means to start targets beside it."""

    def __init__(self, vm: Vm) -> None:
        self.vm = vm
        self.main = vm.folder / "main.sock"
        self.cpr = vm.folder / "cpr.sock"
        self.main_address = unix(self.main)
        vm.qmp.command("migrate-set-parameters", mode="cpr-transfer")
        capabilities = [{"capability": "events", "state": True}]
        vm.qmp.command("migrate-set-capabilities", capabilities=capabilities)

    def target(
        self, *extra: str, incoming: str = "", program: Path = PROGRAM, **options
    ) -> Target:
        """Start a target with the same command line, but sockets of its own; it waits for its descriptors."""
        return Target(self, extra, incoming or f"unix:{self.main}", program, **options)

    @property
    def channels(self) -> list[dict]:
        return [
            {"channel-type": "main", "addr": self.main_address},
            {"channel-type": "cpr", "addr": unix(self.cpr)},
        ]

    def migrate(self) -> None:
        self.vm.qmp.command("migrate", channels=self.channels)

    def transfer(self) -> dict:
        """Hand the guest over; returns query-migrate of the source."""
        self.migrate()
        self.vm.qmp.wait_event("MIGRATION", status="completed")
        return self.vm.qmp.command("query-migrate")

    def fail(self) -> str:
        """Try to hand the guest over; returns why it failed, once the guest runs here again."""
        self.migrate()
        self.vm.qmp.wait_event("MIGRATION", status="failed")
        assert self.vm.qmp.command("query-status")["running"] is True
        self.vm.console.wait(b"tick", len(self.vm.console.text))
        return self.vm.qmp.command("query-migrate")["error-desc"]


class Target(Vm):
    """The other program; ``qmp`` and ``console`` are there after :meth:`connect`."""

    def __init__(
        self, pair: Pair, extra: tuple[str, ...], incoming: str, program: Path, **options
    ) -> None:
        self.machine = pair.vm.machine
        self.folder = Path(tempfile.mkdtemp(prefix="instar-test-"))
        replaced = [
            word.replace(f"{pair.vm.folder}/serial", f"{self.folder}/serial").replace(
                f"{pair.vm.folder}/qmp", f"{self.folder}/qmp"
            )
            for word in pair.vm.argv[1:]
        ]
        cpr = f"cpr,addr.transport=socket,addr.type=unix,addr.path={pair.cpr}"
        self.argv = [str(program), *replaced, *extra, "-incoming", incoming, "-incoming", cpr]
        self.stderr = open(self.folder / "stderr", "w+b")  # noqa: SIM115 - closed in close()
        self.process = subprocess.Popen(
            self.argv, stderr=self.stderr, stdin=subprocess.DEVNULL, **options
        )
        deadline = time.monotonic() + PATIENCE
        while not listens(pair.cpr) and self.process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def connect(self) -> Target:
        self.qmp = Qmp(self.folder / "qmp")
        self.console = Console(self.folder / "serial")
        return self


def hand_over(vm: Vm) -> Target:
    """Have another program take the guest over, end the one that had it, and return the other."""
    pair = Pair(vm)
    target = pair.target()
    try:
        assert pair.transfer()["status"] == "completed"
        target.connect()
    except BaseException:
        target.close()
        raise
    finally:
        vm.close()
    target.argv = target.argv[:-4]  # what it waited for has come
    return target


def listens(path: Path) -> bool:
    """Whether somebody listens on a socket file; without connecting, which would be noticed."""
    rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return any(row[3] == "00010000" and row[-1] == str(path) for row in rows)


def alive(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False
