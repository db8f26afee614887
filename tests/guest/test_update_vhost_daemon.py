"""A vhost-user disk with a list of its requests: updated, its daemon killed, muted, resized; none lost or doubled."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness import PATIENCE, Vm

DAEMON = Path(__file__).parents[1] / "blk_daemon.py"
SIZE = 16 << 20


def until(condition) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Daemon:
    """The daemon on a file, started again when a test wants it."""

    def __init__(self, folder: Path) -> None:
        self.socket, self.file, self.journal = (
            folder / name for name in ("socket", "image", "journal")
        )
        with self.file.open("wb") as file:
            file.truncate(SIZE)
        self.process: subprocess.Popen | None = None

    def start(self, **options) -> None:
        """Start it; it listens when this returns."""
        self.socket.unlink(missing_ok=True)
        words = [f"{key.replace('_', '-')}={value}" for key, value in options.items()]
        command = [
            sys.executable,
            DAEMON,
            self.socket,
            self.file,
            f"journal={self.journal}",
            *words,
        ]
        self.process = subprocess.Popen(command)
        until(self.socket.exists)

    def tell(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def arguments(self, *, chardev: str = "", device: str = "") -> list[str]:
        return [
            "-chardev", f"socket,id=c,path={self.socket}{chardev}",
            "-device", f"vhost-user-blk-device,chardev=c,id=disk0{device}",
        ]  # fmt: skip

    def requests(self, ring: int = 0) -> dict[str, list[int]]:
        """Positions in a ring, by what happened there."""
        found: dict[str, list[int]] = {"t": [], "r": [], "u": []}
        for line in self.journal.read_text().splitlines():
            index, what, position, _ = line.split()
            if int(index) == ring:
                found[what].append(int(position))
        return found


@pytest.fixture
def daemon(tmp_path: Path):
    made = Daemon(tmp_path)
    with contextlib.ExitStack() as stack:
        stack.callback(made.kill)
        yield made


def shell(vm: Vm, line: str) -> bytes:
    """Type a line into the guest's shell and return what it printed."""
    vm.console.pull(0)
    start = len(vm.console.text)
    vm.console.send(line.encode() + b"\necho 'e''nd'\n")
    end = vm.console.wait(b"end\r\n", start)
    return vm.console.text[start:end]


def verified(vm: Vm) -> None:
    """Wait until the guest has written, read back and compared once more."""
    vm.console.pull(0)
    vm.console.wait(b"DISK OK", vm.console.wait(b"DISK OK", len(vm.console.text)))


def test_no_request_is_lost_or_doubled_in_20_updates_and_three_deaths_of_the_daemon(
    debian, daemon
) -> None:
    daemon.start(die_at=40)
    with Vm(
        *debian.arguments("console=ttyS0 quiet instar.diskverify"),
        *daemon.arguments(chardev=",reconnect-ms=20"), size=256,
    ) as vm:  # fmt: skip
        vm.console.wait(b"DISK OK")
        vm.update()
        footprint = vm.footprint()
        for _ in range(6):
            assert vm.update()["status"] == "completed"
        assert daemon.process.wait(PATIENCE) == 9  # while it had a request
        daemon.start()
        verified(vm)
        for _ in range(6):
            assert vm.update()["status"] == "completed"

        daemon.kill()  # an update while there is none
        assert vm.update()["status"] == "completed"
        daemon.start()
        verified(vm)
        for _ in range(5):
            assert vm.update()["status"] == "completed"

        capability = {"capability": "pause-before-switchover", "state": True}
        uri = vm.prepare_update()
        vm.qmp.command("migrate-set-capabilities", capabilities=[capability])
        vm.qmp.command("migrate", uri=uri)
        vm.qmp.wait_event("MIGRATION", status="pre-switchover")
        daemon.kill()  # in the middle of an update
        vm.qmp.command("migrate-continue", state="pre-switchover")
        vm.qmp.wait_event("MIGRATION", status="completed")
        daemon.start()
        verified(vm)
        assert vm.footprint() == footprint
        vm.qmp.command("stop")  # everything in flight is finished
        seen = daemon.requests()
        assert len(seen["r"]) >= 1  # begun by the one that died, done by the next
        assert seen["t"] == list(range(len(seen["t"])))  # each was begun once
        assert seen["u"] == seen["t"]  # and answered once
        vm.qmp.command("cont")
        verified(vm)
        assert "needs a reset" not in vm.said()
        assert b"error" not in shell(vm, "dmesg | grep -e vda -e blk")


def test_update_while_the_daemon_is_silent_is_refused_and_the_guest_goes_on(
    debian, daemon
) -> None:
    daemon.start(mute_at=20)
    with Vm(
        *debian.arguments("console=ttyS0 quiet instar.diskverify"),
        *daemon.arguments(device=",drain-ms=200"), size=256,
    ) as vm:  # fmt: skip
        until(lambda: daemon.journal.exists() and len(daemon.requests()["t"]) == 20)
        uri = vm.prepare_update()
        vm.qmp.command("migrate", uri=uri)
        vm.qmp.wait_event("MIGRATION", status="failed")
        why = vm.qmp.command("query-migrate")["error-desc"]
        assert "did not finish its work in 200 ms" in why
        assert vm.qmp.command("query-status")["status"] == "running"
        assert b"alive" in shell(vm, "echo al''ive")
        daemon.tell(signal.SIGUSR2)
        verified(vm)
        assert vm.update()["status"] == "completed"
        verified(vm)
        assert "needs a reset" not in vm.said()


def test_guest_sees_the_new_size_that_the_daemon_tells_and_uses_both_queues(
    debian, daemon
) -> None:
    daemon.start(queues=2)
    with Vm(
        *debian.arguments("console=ttyS0 quiet"), "-smp", "2",
        *daemon.arguments(device=",num-queues=2"), size=256,
    ) as vm:  # fmt: skip
        vm.console.wait(b"instar-guest:")
        assert b"0\r\n1\r\n" in shell(vm, "ls /sys/block/vda/mq | cat")
        read = "taskset -p %d $$ >/dev/null; dd if=/dev/vda of=/dev/null bs=64k count=4 iflag=direct 2>/dev/null"
        for mask in (1, 2):
            shell(vm, read % mask)
        assert vm.update()["status"] == "completed"
        for mask in (1, 2):
            shell(vm, read % mask)
        for ring in (0, 1):
            seen = daemon.requests(ring)
            assert len(seen["u"]) >= 8
            assert seen["t"] == seen["u"] == list(range(len(seen["u"])))

        def grow(size: int) -> None:
            with daemon.file.open("r+b") as file:
                file.truncate(size)
            daemon.tell(signal.SIGUSR1)

        wait = "while [ $(cat /sys/block/vda/size) != %d ]; do sleep 0.1; done"
        grow(2 * SIZE)
        shell(vm, wait % (2 * SIZE // 512))
        vm.qmp.command("stop")
        grow(3 * SIZE)  # told while it stands still
        assert vm.update()["status"] == "completed"
        vm.qmp.command("cont")
        shell(vm, wait % (3 * SIZE // 512))
