"""The demo itself: boot, give the guest something to do, update twice, look whether it noticed, power off."""

from __future__ import annotations

import hashlib
import random
import time
from typing import TYPE_CHECKING

from demo_lib import image
from demo_lib.errors import DemoError
from demo_lib.facts import Summary, Update
from demo_lib.guest import Console, Shell
from demo_lib.vm import Vm

if TYPE_CHECKING:
    from pathlib import Path

    from demo_lib.releases import Release
    from demo_lib.screen import Screen
    from demo_lib.vm import Message

RAM = "256M"
DISK = 2 << 20  # bytes
BETWEEN = 12  # steps of the counter between two updates
UPDATE = 60.0  # seconds
POWEROFF = 60.0  # seconds
COUNTER = '(n=0; while :; do n=$((n+1)); echo "tick $n"; sleep 0.2; done) &'
READER = (
    "(while :; do dd if=/dev/vda bs=64k iflag=direct 2>/dev/null | sha256sum; done >/tmp/sums) &"
)
REMEMBER = "kept=$((6*7));"
QUIET = "dmesg -n 1;"  # the kernel writes into the middle of other people's lines; it is asked in the end
# What the kernel says when time jumped, a CPU stood still, a disk did not answer or anything broke.
COMPLAINTS = "stall|lockup|hung|blocked for|I/O error|critical|BUG|Oops|WARNING|Call Trace|panic|unstable|clock skew"


def machine_arguments(folder: Path) -> list[str]:
    """Return the options for the guest and its hardware; consoles and monitors apart.

    Args:
        folder: Where the disk is.
    """
    return [
        "-name", "demo",
        "-object", f"memory-backend-memfd,id=ram0,size={RAM}",
        "-machine", "virt,memory-backend=ram0,aux-ram-share=on",
        "-kernel", str(image.path("kernel")), "-initrd", str(image.path("initrd")), "-append", "console=ttyS0",
        "-drive", f"file={folder}/disk,format=raw,if=none,id=disk0", "-device", "virtio-blk-device,drive=disk0",
        "-device", "virtio-rng-device",
    ]  # fmt: skip


def make_disk(folder: Path) -> str:
    """Write a disk; returns its SHA-256."""
    data = random.Random(DISK).randbytes(DISK)  # the same each time
    (folder / "disk").write_bytes(data)
    return hashlib.sha256(data).hexdigest()


class Demo:
    """One run.

    Args:
        screen: Where to show it.
        folder: Empty; for sockets, the disk, the state file.
        old: The release to start with and to come back to.
        new: The one in between.
    """

    def __init__(self, screen: Screen, folder: Path, old: Release, new: Release) -> None:
        self._screen = screen
        self._folder = folder
        self._old = old
        self._new = new
        self._arguments = self._make_arguments()
        self._console = Console(screen.guest, screen.tick)

    def run(self) -> Summary:
        """Do it all.

        Raises:
            DemoError: something did not happen; the VM is gone.
        """
        began = time.monotonic()
        digest = make_disk(self._folder)
        self._screen.step(
            f"Instar {self._old.version} boots Debian, unchanged, for riscv64 ({RAM} of RAM, one CPU)"
        )
        vm = Vm([str(self._old.program), *self._arguments], self._folder, self._console.take)
        try:
            shell = Shell(vm, self._console, self._screen.guest)
            shell.wait_ready()
            booted = time.monotonic()
            self._screen.step(
                "the guest has a shell; it starts to count and to read its disk, over and over"
            )
            for command in (QUIET, REMEMBER, READER, COUNTER):
                shell.ask(command)
            vm.command(
                "migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}]
            )
            for n, (before, after) in enumerate(
                [(self._old, self._new), (self._new, self._old)], 1
            ):
                shell.wait_ticks(BETWEEN)
                self._screen.update(self._update(vm, n, before, after))
            shell.wait_ticks(BETWEEN)
            self._screen.step("asking the guest what it noticed, then powering it off")
            findings = self._ask(shell, digest)
            status = self._power_off(vm)
        finally:
            vm.close()
        return findings._replace(
            exit_status=status, boot_s=booted - began, total_s=time.monotonic() - began
        )

    def _make_arguments(self) -> list[str]:
        here = self._folder
        return [
            *machine_arguments(here),
            "-nodefaults", "-qmp", f"unix:{here}/qmp,server=on,wait=off",
            "-chardev", f"socket,id=serial0,path={here}/serial,server=on,wait=off", "-serial", "chardev:serial0",
        ]  # fmt: skip

    def _update(self, vm: Vm, number: int, before: Release, after: Release) -> Update:
        """Replace the monitor under the guest and return what the new one says about it."""
        self._screen.step(
            f"update {number}: as 'instar update {self._folder}/qmp {after.program}'"
        )
        pid = vm.pid()
        vm.forget_events()
        vm.command("x-update", program=str(after.program))
        info = self._wait_ended(vm)
        update = Update(
            number=number,
            old_version=info["old-version"],
            new_version=info["new-version"],
            mode=info["mode"],
            pid_before=pid,
            pid_after=vm.pid(),
            pause_us=info["pause-us"],
            phases=[(phase["name"], phase["us"]) for phase in info["phases"]],
        )
        if (update.old_version, update.new_version) != (before.version, after.version):
            raise DemoError(
                f"the update went from {update.old_version} to {update.new_version}, "
                f"not from {before.version} to {after.version}"
            )
        return update

    def _wait_ended(self, vm: Vm) -> Message:
        """Return what is told at the end of an update."""
        event = vm.event(["UPDATE_COMPLETED", "UPDATE_FAILED"], UPDATE, "the end of the update")
        info: Message = event["data"]
        if event["event"] == "UPDATE_FAILED":
            raise DemoError(
                f"the update {info['status']}, the guest goes on under the old version: {info.get('reason')}"
            )
        return info

    def _ask(self, shell: Shell, digest: str) -> Summary:
        """Ask the guest what it knows; what only the end can tell is left 0."""
        sums = _counted(shell.ask("sort /tmp/sums | uniq -c;"))
        kept = shell.ask('echo "$kept";')
        complaints = shell.ask(f"dmesg | grep -iE '{COMPLAINTS}';")
        return Summary(
            updates=2,
            connections=1,
            ticks=len(self._console.ticks),
            ticks_missing=self._console.missing(),
            longest_silence_ms=round(self._console.longest_silence_ms()),
            checksums=sum(sums.values()),
            checksums_wrong=sum(n for found, n in sums.items() if found != digest),
            shell_kept=kept == ["42"],
            complaints=complaints,
            exit_status=0,
            boot_s=0.0,
            total_s=0.0,
        )

    def _power_off(self, vm: Vm) -> int:
        vm.forget_events()
        vm.type("poweroff\n")
        vm.event(["SHUTDOWN"], POWEROFF, "the guest to power off")
        return vm.wait_exit(POWEROFF)


def _counted(lines: list[str]) -> dict[str, int]:
    """Return how often each checksum is in what ``uniq -c`` prints of sha256sum's lines."""
    counts: dict[str, int] = {}
    for line in lines:
        match line.split():
            case [count, digest, "-"] if count.isdigit():
                counts[digest] = int(count)
            case _:
                counts[line] = 1  # not a checksum, so a wrong one
    return counts
