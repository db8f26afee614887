"""Updates under Debian Linux: the transcript typed at a terminal, and 200 in a row under disk load."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time
from pathlib import Path

import pytest

from harness import PATIENCE, PROGRAM, Console, GoneError, Vm
from instar.block.workers import MAX_THREADS

BAD = re.compile(
    rb"stall|hung task|I/O error|blocked for more than|clocksource.*unstable|Oops|BUG:|WARNING:|DISK ERROR"
)


class Terminal:
    """A person at a terminal: a process whose controlling terminal is a pty."""

    def __init__(self, argv: list[str]) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execv(argv[0], argv)
        self.text = b""

    def type(self, line: str) -> None:
        for key in line + "\r":
            os.write(self.fd, key.encode())

    def wait(self, pattern: bytes, start: int = 0) -> int:
        deadline = time.monotonic() + PATIENCE
        while (at := self.text.find(pattern, start)) < 0:
            if time.monotonic() > deadline:
                raise GoneError(f"no {pattern!r}; the terminal ends with {self.text[-500:]!r}")
            if select.select([self.fd], [], [], 1)[0]:
                self.text += os.read(self.fd, 65536)
        return at + len(pattern)

    def answer(self, line: str, prompt: bytes = b"(instar) ") -> bytes:
        """Type a line at the prompt and return what came until the next prompt."""
        start = len(self.text)
        self.type(line)
        start = self.wait(b"\n", start)
        end = self.wait(prompt, start)
        return self.text[start:end]


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        file.truncate(64 << 20)
    return path


def shell(console: Console, line: str) -> bytes:
    """Type a line into the guest's shell and return what it printed."""
    console.pull_all()
    start = len(console.text)
    console.send(line.encode() + b"\necho 'e''nd'\n")
    end = console.wait(b"end\r\n", start)
    return console.text[start:end]


def number(text: bytes) -> float:
    """The number at the start of a line."""
    return float(re.search(rb"^([0-9.]+)[ \r]", text, re.M)[1])


def test_transcript_typed_by_hand(debian, disk: Path, tmp_path: Path) -> None:
    serial = tmp_path / "serial"
    command = (
        f"{PROGRAM} {' '.join(debian.arguments('console=ttyS0'))} -m 512M"
        " -object memory-backend-memfd,id=ram0,size=512M -machine memory-backend=ram0 -machine aux-ram-share=on"
        f" -drive file={disk},if=none,id=d0,format=raw -device virtio-blk-device,drive=d0"
        f" -serial unix:{serial},server=on,wait=off -monitor stdio"
    )
    argv = command.replace("console=ttyS0", "console=ttyS0").split()
    person = Terminal(argv)
    try:
        person.wait(b"(instar) ")
        console = Console(serial)
        console.wait(b"instar-guest:")
        shell(
            console,
            "X=kept; (n=0; while :; do n=$((n+1)); echo $n > /tmp/count; usleep 100000; done) &",
        )
        shell(console, "sha256sum /dev/vda > /tmp/sum &")
        uptime = number(shell(console, "cat /proc/uptime"))
        count = number(shell(console, "cat /tmp/count"))

        assert b"VM status: running" in person.answer("info status")
        person.answer("migrate_set_parameter mode cpr-exec")
        person.answer(
            f"migrate_set_parameter cpr-exec-command {command} -incoming file:{tmp_path}/vm.state"
        )
        start = len(person.text)
        person.type(f"migrate -d file:{tmp_path}/vm.state")
        person.wait(b"Instar ", start)
        person.wait(b"monitor - type 'help' for more information", start)
        assert b"VM status: running" in person.answer("info status")
        assert b"completed" in person.answer("info migrate")

        assert os.waitpid(person.pid, os.WNOHANG) == (0, 0)  # same PID, still running
        assert b"\nkept\r" in shell(console, "echo $X")
        assert b"X=kept" in shell(console, "history")
        assert number(shell(console, "cat /proc/uptime")) > uptime
        assert number(shell(console, "cat /tmp/count")) > count
        expected = subprocess.check_output(["sha256sum", disk], text=True).split()[0].encode()
        assert expected + b"  /dev/vda" in shell(console, "wait %2; cat /tmp/sum")
        assert not BAD.search(shell(console, "dmesg"))
        person.type("quit")
        assert os.waitstatus_to_exitcode(os.waitpid(person.pid, 0)[1]) == 0
        console.socket.close()
    finally:
        os.close(person.fd)


def memory_kib(vm: Vm) -> int:
    """Private memory of the process, without the guest's (which is shared)."""
    fields = Path(f"/proc/{vm.process.pid}/smaps_rollup").read_text()
    return sum(
        int(re.search(rf"^{name}:\s+(\d+)", fields, re.M)[1]) for name in ("Private_Dirty", "Swap")
    )


def test_200_updates_under_disk_load_lose_nothing_and_nothing_grows(debian, disk: Path) -> None:
    with Vm(
        *debian.arguments("console=ttyS0 quiet instar.diskverify"),
        "-drive", f"file={disk},if=none,id=d0,format=raw", "-device", "virtio-blk-device,drive=d0",
        "-device", "virtio-rng-device", size=256,
    ) as vm:  # fmt: skip
        vm.console.wait(b"DISK OK")
        pid = vm.process.pid
        vm.update()
        footprint = vm.footprint()
        rss = memory_kib(vm)
        for n in range(199):
            assert vm.update()["status"] == "completed"
            if n % 20 == 0:
                vm.console.wait(b"DISK OK", len(vm.console.text))
        assert vm.process.pid == pid
        after = vm.footprint()
        assert after.pop("threads") <= 2 + MAX_THREADS  # disk workers start when there is work
        assert after == {key: value for key, value in footprint.items() if key != "threads"}
        assert memory_kib(vm) < rss * 1.5 + 4096
        vm.console.wait(b"DISK OK", len(vm.console.text))
        vm.qmp.command("stop")
        vm.console.pull_all()
        assert not BAD.search(vm.console.text), BAD.search(vm.console.text)
