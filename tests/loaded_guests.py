"""Guests that work all the time and can tell whether an update cost them anything."""

from __future__ import annotations

import re
import time
from pathlib import Path

from conftest import Debian
from harness import PATIENCE, PROGRAM, Vm, connect
from instar.block.workers import MAX_THREADS
from instar.image.ticker import STATUS_ADDRESS, STATUS_SIZE, read_status, ticker_image
from wires import ADDRESSES, StreamWire, card

BAD = re.compile(
    rb"stall|lockup|hung task|I/O error|blocked for more than|clocksource.*unstable|Oops|BUG:|WARNING:|DISK ERROR"
)
_BAD_THERE = (  # the same for the guest's grep, written so that the command's echo is none of them
    "st[a]ll|lock[u]p|hung t[a]sk|I/O [e]rror|blocked for m[o]re|unst[a]ble|Oo[p]s|BU[G]:|WARNIN[G]:"
)
# What is typed may be echoed right before it.
_TICK = re.compile(rb"(tick\S*) (\d+)\r?\n")
_DISK = 16 << 20  # bytes
_COUNTER = b"(n=0; while :; do n=$((n+1)); echo tick $n; usleep 100000; done) &\n"
_COUNTER_OF_EACH = (  # slower: each character that the guest prints is an exit, and Python in the lab is slow
    b"for c in 0 1; do (taskset -p $((1 << c)) $(exec sh -c 'echo $PPID'); n=0; "
    b"while :; do n=$((n+1)); echo tick$c $n; usleep 200000; done) & done\n"
)


class GuestFaultError(Exception):
    """What a guest lost or found wrong; one sentence."""


class LoadedGuest:
    """A guest that counts on its console.

    Attributes:
        vm: The machine; its owner sets ``vm.pid`` when the guest is another process's.
        spare_threads: How many threads of the program come and go with the guest's work.
        spare_bytes: How much of its memory does: an allocator's noise and, with a guest that runs now this and now
            that, the code decoded since the last update. Not a share of each update.
        counters: How the lines begin in which it counts.
    """

    vm: Vm
    spare_threads = 0
    spare_bytes = 4 << 20
    counters: tuple[bytes, ...] = (b"tick",)

    def __init__(self) -> None:
        self._seen = 0  # characters of the console that were looked at
        self._next: dict[bytes, int] = {}  # number that has to come, of each counter

    def check(self) -> None:
        """Wait for signs of life that are newer than this call; what it said since the last one has to be right.

        Raises:
            GuestFaultError: It is not.
        """
        console = self.vm.console
        console.pull(0)
        start = len(console.text)
        end = max(console.wait(b"\n", console.wait(name + b" ", start)) for name in self.counters)
        told = console.text[self._seen : end]
        self._seen = end
        if found := BAD.search(told):
            around = told[max(0, found.start() - 200) : found.end() + 2000]
            raise GuestFaultError(f"the guest says {found[0].decode()!r}: {around!r}")
        for found in _TICK.finditer(told):
            counter, number = found[1], int(found[2])
            expected = self._next.get(counter, number)
            self._next[counter] = number + 1
            if number != expected:
                raise GuestFaultError(
                    f"the guest's count {counter.decode()} is {number}, expected {expected}: "
                    f"{told[max(0, found.start() - 1000) : found.end()]!r}"
                )

    def around(self, update) -> None:
        """Do something to the machine; a guest with a network has a frame cut in two by it."""
        update()

    def close(self) -> None:
        """End the machine."""
        self.vm.close()


class Ticker(LoadedGuest):
    """The bare-metal guest: console, clock, floating point and memory; ``busy`` also between its interrupts."""

    def __init__(self, folder: Path, *extra: str, program: Path = PROGRAM, busy: bool) -> None:
        super().__init__()
        image = folder / "ticker.bin"
        image.write_bytes(ticker_image({"TICK_EVERY": 5, "BUSY": int(busy)}))
        self.vm = Vm("-kernel", str(image), *extra, program=program)
        self.vm.console.wait(b"tick ")

    def check(self) -> None:
        """As every guest; it also counts in memory, where it found no error."""
        counter = self._status().counter
        super().check()
        deadline = time.monotonic() + PATIENCE
        while (status := self._status()).counter == counter:
            if time.monotonic() > deadline:
                raise GuestFaultError("the guest does not count on")
            time.sleep(0.01)
        if status.errors:
            raise GuestFaultError(f"the guest found {status.errors} errors")

    def _status(self):
        return read_status(self.vm.guest_memory(STATUS_ADDRESS, STATUS_SIZE))


class Linux(LoadedGuest):
    """Debian: a process that counts, the disk verifier, and a network card that answers ARP requests."""

    spare_threads = MAX_THREADS
    spare_bytes = 24 << 20
    image = "debian"
    board: tuple[str, ...] = ()
    disk_words = ""
    count = _COUNTER

    def __init__(self, folder: Path, *extra: str, program: Path = PROGRAM) -> None:
        super().__init__()
        self.disk, wire = folder / "disk.raw", folder / "net"
        with self.disk.open("wb") as file:
            file.truncate(_DISK)
        self.vm = Vm(
            *self.board, *Debian(self.image).arguments("console=ttyS0 quiet instar.diskverify"),
            "-drive", f"file={self.disk},if=none,id=d0,format=raw{self.disk_words}",
            "-device", "virtio-blk-device,drive=d0",
            "-netdev", f"stream,id=n1,server=on,addr.type=unix,addr.path={wire}", *card(1), *extra,
            size=192, program=program,
        )  # fmt: skip
        self._wire = StreamWire(1, connect(wire))
        self._sequence = 0
        try:
            console = self.vm.console
            console.wait(b"instar-guest:")
            console.send(ADDRESSES.encode() + b"\n" + self.count)
            self._seen = max(console.wait(name + b" 2\r") for name in self.counters)
            console.wait(b"DISK OK", self._seen)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the machine."""
        self._wire.socket.close()
        super().close()

    def check(self) -> None:
        """As every guest; it has also verified another block of its disk."""
        console = self.vm.console
        console.wait(b"\n", console.wait(b"DISK OK", len(console.text)))
        super().check()

    def around(self, update) -> None:
        """Let ``update`` come in the middle of a request to the guest, which it has to answer."""
        self._sequence = (self._sequence + 1) % 100
        self._wire.begin(self._sequence)
        update()
        self._wire.finish()
        if (answered := self._wire.answered()) != self._sequence:
            raise GuestFaultError(
                f"the guest answers request {answered}, expected {self._sequence}"
            )

    def shell(self, line: str) -> bytes:
        """Type a line into the guest's shell and return what came, its counting in between."""
        console = self.vm.console
        start = len(console.text)
        console.send(line.encode() + b"; echo 'e''nd'\n")
        return console.text[start : console.wait(b"end\r\n", start)]

    def look_into_log(self) -> None:
        """Have the guest look through what its kernel has said since the first program began.

        Raises:
            GuestFaultError: There is something that must not be there.
        """
        told = self.shell(f"dmesg | sed '1,/Run .init as init/d' | grep -E '{_BAD_THERE}'")
        if BAD.search(told):
            raise GuestFaultError(f"the guest's kernel says {told[-2000:]!r}")


class PcLinux(Linux):
    """The same on the board ``microvm``, with two processors that each count."""

    image = "debian-amd64"
    board = ("-machine", "microvm", "-smp", "2")
    disk_words = ",throttling.bps-total=1048576"  # requests wait, and the lab's only processor has time for updates
    count = _COUNTER_OF_EACH
    counters = (b"tick0", b"tick1")
