"""Serial port, logs and monitors while updates happen: nothing lost, added or changed."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import random
import select
import threading
import time
from pathlib import Path

import pytest

from harness import PATIENCE, GoneError, Qmp, QmpError, Vm
from instar.cpu.rv64.asm import assemble
from tickers import Ticker

UPDATES = 20
PATTERN = random.Random(3).randbytes(100_000)
# Says that it is there, then sends back every byte as it comes, also 0, Ctrl-C and 255.
ECHO = """
        .equ UART, 0x10000000
        .equ READY, 0x21                # received a byte, and room to send one
start:  li s1, UART
        li s2, READY
        li t0, 1
        sb t0, 2(s1)
        li t0, 'R'
        sb t0, 0(s1)
loop:   lbu t0, 5(s1)
        andi t0, t0, READY
        bne t0, s2, loop
        lbu t0, 0(s1)
        sb t0, 0(s1)
        j loop
"""
# Each prints more than anybody keeps for a reader that stalls: as a driver that looks at the transmitter ...
UART_COUNT = 200_000
UART_PRINTER = f"""
start:  li s1, 0x10000000
        li s2, {UART_COUNT}
        li s3, 0
loop:   lbu t0, 5(s1)
        andi t0, t0, 0x20               # room to send one
        beqz t0, loop
        srli t0, s3, 8
        xor t0, t0, s3
        sb t0, 0(s1)
        addi s3, s3, 1
        bne s3, s2, loop
done:   j done
"""
UART_PRINTED = bytes((n ^ n >> 8) & 0xFF for n in range(UART_COUNT))
# ... and through the SBI's debug console, which may take less than it was given.
SBI_COUNT = 500
SBI_PRINTER = f"""
start:  li s2, {SBI_COUNT}
        li s3, 0
next:   li s4, 0x80300000
        sd s3, 0(s4)
        li s5, 4096
more:   mv a0, s5
        mv a1, s4
        li a2, 0
        li a6, 0
        li a7, 0x4442434e
        ecall
        bnez a0, done
        add s4, s4, a1
        sub s5, s5, a1
        bnez s5, more
        addi s3, s3, 1
        bne s3, s2, next
done:   j done
"""
SBI_PRINTED = b"".join(n.to_bytes(4096, "little") for n in range(SBI_COUNT))


@pytest.fixture(scope="module")
def echo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("guest") / "echo.bin"
    path.write_bytes(assemble(ECHO, 0x8020_0000).image)
    return path


class Peer:
    """Who sends of the pattern no more than it may, and collects what comes back, in a thread of its own."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self.read_fd, self.write_fd = read_fd, write_fd
        self.got = bytearray()
        self.trouble = ""
        self.allowed = 0
        self.reading = True
        self.total = 0
        self._left = memoryview(b"")
        self._thread = threading.Thread(target=self._run)
        for fd in {read_fd, write_fd}:
            os.set_blocking(fd, False)

    def start(self, data: bytes) -> None:
        self.total = len(data)
        self._left = memoryview(data)
        self._thread.start()

    @property
    def sent(self) -> int:
        return self.total - len(self._left)

    def finish(self) -> bytes:
        self.allowed = self.total
        self._thread.join()
        return bytes(self.got)

    def wait(self, count: int) -> None:
        """Return when so many bytes have come back."""
        while len(self.got) < count and self._thread.is_alive():
            time.sleep(0.001)

    def wait_ready(self) -> None:
        assert select.select([self.read_fd], [], [], PATIENCE)[0]
        assert os.read(self.read_fd, 99) == b"R"

    def _run(self) -> None:
        want, limit = len(self._left), time.monotonic() + 3 * PATIENCE
        try:
            while len(self.got) < want and time.monotonic() < limit:
                self._step()
        except (OSError, GoneError) as e:
            self.trouble = str(e)

    def _step(self) -> None:
        may = self.allowed - self.sent
        readers, writers = [self.read_fd] * self.reading, [self.write_fd] * (may > 0)
        readable, writable, _ = select.select(readers, writers, [], 0.01)
        with contextlib.suppress(BlockingIOError):
            if readable:
                data = os.read(self.read_fd, 65536)
                if not data:
                    raise GoneError("the other end was closed")
                self.got += data
            if writable:
                self._left = self._left[os.write(self.write_fd, self._left[: min(may, 16384)]) :]


def filename(vm: Vm, label: str = "serial0") -> str:
    found = [d["filename"] for d in vm.qmp.command("query-chardev") if d["label"] == label]
    return found[0]


@contextlib.contextmanager
def opened(*fds: int):
    try:
        yield Peer(fds[0], fds[-1])
    finally:
        for fd in fds:
            os.close(fd)


@contextlib.contextmanager
def running(kind: str, folder: Path, echo: Path):
    """A stopped guest whose serial port is of this kind, and who is connected to it."""
    extra = ("-kernel", str(echo), "-S")
    if kind == "tty":
        ours, theirs = pty.openpty()
        with opened(ours) as peer:
            vm = Vm(
                *extra,
                "-chardev",
                "stdio,id=c,signal=off",
                serial="chardev:c",
                stdin=theirs,
                stdout=theirs,
            )
            os.close(theirs)
            with vm:
                yield vm, peer
    elif kind == "pipe":
        for end in ("in", "out"):
            os.mkfifo(folder / f"p.{end}")
        with (
            opened(
                os.open(folder / "p.out", os.O_RDONLY | os.O_NONBLOCK),
                os.open(folder / "p.in", os.O_RDWR),
            ) as peer,
            Vm(*extra, serial=f"pipe:{folder}/p") as vm,
        ):
            yield vm, peer
    else:
        with Vm(*extra) as vm, opened(os.dup(vm.console.socket.fileno())) as peer:
            yield vm, peer


@pytest.mark.parametrize(
    ("kind", "pattern"),
    [
        ("unix", PATTERN),
        ("tty", PATTERN.replace(b"\n", b"")),  # what a terminal shows begins its lines at the left
    ],
    ids=["unix", "tty"],
)
def test_pattern_comes_back_byte_exact_through_twenty_updates(
    kind: str, pattern: bytes, echo: Path, tmp_path: Path
) -> None:
    with running(kind, tmp_path, echo) as (vm, peer):
        vm.argv.remove("-S")  # updates do not stop it again
        vm.qmp.command("cont")
        peer.wait_ready()
        peer.start(pattern)
        for n in range(UPDATES):
            peer.wait(peer.allowed // 2)
            peer.allowed = (n + 1) * len(pattern) // (UPDATES + 2)
            assert vm.update()["status"] == "completed"
        during = len(peer.got)
        assert peer.finish() == pattern, peer.trouble
        assert during < len(pattern), "the traffic was over before the updates were"


@pytest.mark.parametrize(
    ("program", "printed"),
    [(UART_PRINTER, UART_PRINTED), (SBI_PRINTER, SBI_PRINTED)],
    ids=["uart", "sbi"],
)
def test_reader_that_stalls_makes_the_guest_wait_and_loses_nothing(
    program: str, printed: bytes, tmp_path: Path
) -> None:
    kernel = tmp_path / "printer"
    kernel.write_bytes(assemble(program, 0x8020_0000).image)
    with running("pipe", tmp_path, kernel) as (vm, peer):
        vm.argv.remove("-S")
        vm.qmp.command("cont")
        assert select.select([peer.read_fd], [], [], PATIENCE)[0]
        for _ in range(3):
            assert vm.update()["status"] == "completed"
        got = bytearray()
        while len(got) < len(printed):
            assert select.select([peer.read_fd], [], [], PATIENCE)[0], f"{len(got)} bytes came"
            got += os.read(peer.read_fd, 65536)
        assert got == printed
        vm.update()
        vm.qmp.command("stop")
        assert not select.select([peer.read_fd], [], [], 0)[0], "more came than was printed"


def test_file_log_and_ringbuf_keep_everything_over_twenty_updates(
    guest: Ticker, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"old\n")
    with guest.vm(serial=f"file:{log}") as vm:
        vm.qmp.command(
            "chardev-add", id="ring", backend={"type": "ringbuf", "data": {"size": 1024}}
        )
        vm.qmp.command("chardev-add", id="gone", backend={"type": "null", "data": {}})
        name = vm.qmp.command("chardev-add", id="p", backend={"type": "pty", "data": {}})["pty"]
        vm.qmp.command("chardev-remove", id="gone")
        for n in range(UPDATES):
            vm.qmp.command("ringbuf-write", device="ring", data=f"{n} ")
            vm.update()
        labels = {d["label"] for d in vm.qmp.command("query-chardev")}
        assert labels == {"serial0", "compat_monitor0", "ring", "p"}
        assert filename(vm, "p") == f"pty:{name}"
        expected = "".join(f"{n} " for n in range(UPDATES))
        assert vm.qmp.command("ringbuf-read", device="ring", size=1000) == expected
        with pytest.raises(QmpError, match="Chardev 'serial0' is busy"):
            vm.qmp.command("chardev-remove", id="serial0")
        with pytest.raises(QmpError, match="Chardev 'gone' not found"):
            vm.qmp.command("chardev-remove", id="gone")
        with pytest.raises(QmpError, match="Chardev with id 'p' already exists"):
            vm.qmp.command("chardev-add", id="p", backend={"type": "pty", "data": {}})
        vm.qmp.command("stop")
    lines = log.read_bytes().splitlines()
    ticks = [int(line.split()[1]) for line in lines if line.startswith(b"tick ")]
    assert ticks[:-1] == list(range(1, len(ticks)))
    assert len(ticks) > 1


class Asker:
    """A client that sends requests in a tight loop and notes the answers' ids, in a thread of its own."""

    def __init__(self, path: Path) -> None:
        self.qmp = Qmp(path)
        self.sent = 0
        self.answers: list[object] = []
        self.stop = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def finish(self) -> None:
        self.stop = True
        self._thread.join()
        self.qmp.socket.close()

    def _run(self) -> None:
        stream = self.qmp.socket.makefile("rb")
        while not self.stop:
            for _ in range(3):  # several are under way at any time
                request = {"execute": "query-status", "id": self.sent}
                self.qmp.socket.sendall(json.dumps(request).encode() + b"\n")
                self.sent += 1
            while len(self.answers) < self.sent:
                self._note(json.loads(stream.readline()))

    def _note(self, message: dict) -> None:
        if "event" not in message:
            self.answers.append(message.get("id") if "return" in message else message)


def test_every_request_gets_one_answer_in_order_across_a_hundred_updates(
    ticker: Path, tmp_path: Path
) -> None:
    extra = ("-qmp", f"unix:{tmp_path}/second,server=on,wait=off")
    with Vm("-kernel", str(ticker), *extra) as vm:
        asker = Asker(tmp_path / "second")
        try:
            for _ in range(100):
                vm.update()
        finally:
            asker.finish()
        assert asker.answers == list(range(asker.sent))
        assert asker.sent > 100
