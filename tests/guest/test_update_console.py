"""virtio-console under Debian: every kind of back end byte-exact through updates, stalled readers, sizes, hvc0."""

from __future__ import annotations

import contextlib
import os
import pty
import random
import socket
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_update_channels import Peer, filename
from test_update_linux import BAD, Terminal, shell

from harness import PATIENCE, PROGRAM, Console, GoneError, Vm, connect

UPDATES = 20
PATTERN = random.Random(7).randbytes(1_000_000)
KINDS = ("stdio", "pty", "unix", "tcp", "pipe", "unix-client", "tcp-client")
STALLED = ("pty", "unix", "pipe")
MORE = 3  # parts of the pattern that are kept back until the updates begin
ECHO = (
    "(stty raw -echo; cat) <>/dev/hvc0 >&0 & "
    "for n in 1 2 3 4 5 6; do (cat <>/dev/vport0p$n >&0) & done"
)


def listener(address: str | tuple[str, int]) -> socket.socket:
    made = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
    made.bind(address)
    made.listen()
    made.settimeout(PATIENCE)
    return made


class Consoles:
    """A guest with a port of each kind that sends back what comes, and who is at the other ends."""

    def __init__(self, stack: contextlib.ExitStack, folder: Path, debian) -> None:
        self.stack = stack
        for end in ("in", "out"):
            os.mkfifo(folder / f"p.{end}")
        unix = stack.enter_context(listener(f"{folder}/client"))
        tcp = stack.enter_context(listener(("127.0.0.1", 0)))
        (guest_in, to_guest), (from_guest, guest_out) = os.pipe(), os.pipe()
        back_ends = {
            "pty": "pty",
            "unix": f"socket,path={folder}/unix,server=on,wait=off",
            "tcp": "socket,host=127.0.0.1,port=0,server=on,wait=off,nodelay=on",
            "pipe": f"pipe,path={folder}/p",
            "unix-client": f"socket,path={folder}/client,reconnect-ms=50",
            "tcp-client": f"socket,host=127.0.0.1,port={tcp.getsockname()[1]},reconnect-ms=50",
        }
        ports = [
            word
            for kind, options in back_ends.items()
            for word in (
                "-chardev", options.replace(",", f",id={kind},", 1) if "," in options else f"{options},id={kind}",
                "-device", f"virtserialport,chardev={kind},name=test.{kind}",
            )
        ]  # fmt: skip
        self.vm = stack.enter_context(
            Vm(
                *debian.arguments("console=ttyS0 quiet"),
                "-device", "virtio-serial-device", "-chardev", "stdio,id=stdio", "-device", "virtconsole,chardev=stdio",
                *ports, size=256, stdin=guest_in, stdout=guest_out,
            )
        )  # fmt: skip
        os.close(guest_in)
        os.close(guest_out)
        port = int(filename(self.vm, "tcp").partition(",")[0].rpartition(":")[2])
        client = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self.pty = filename(self.vm, "pty")
        out, into = os.open(folder / "p.out", os.O_RDWR), os.open(folder / "p.in", os.O_RDWR)
        self.peers = {
            "stdio": self.peer(from_guest, to_guest),
            "pty": self.peer(os.open(self.pty.removeprefix("pty:"), os.O_RDWR | os.O_NOCTTY)),
            "unix": self.peer(connect(folder / "unix").detach()),
            "tcp": self.peer(client.detach()),
            "pipe": self.peer(out, into),
            "unix-client": self.peer(unix.accept()[0].detach()),
            "tcp-client": self.peer(tcp.accept()[0].detach()),
        }

    def peer(self, *fds: int) -> Peer:
        for fd in fds:
            self.stack.callback(os.close, fd)
        return Peer(fds[0], fds[-1])

    def run(self) -> None:
        """Send the pattern both ways through all of them, and update meanwhile."""
        self.vm.console.wait(b"instar-guest:")
        self.names = shell(self.vm.console, "cat /sys/class/virtio-ports/vport0p*/name")
        shell(self.vm.console, ECHO)
        for peer in self.peers.values():
            peer.start(PATTERN)
        for n in range(UPDATES):
            for peer in self.peers.values():
                peer.allowed = (n + 1) * len(PATTERN) // (UPDATES + MORE)
            assert self.vm.update()["status"] == "completed"
        self.during = {kind: len(peer.got) for kind, peer in self.peers.items()}
        for peer in self.peers.values():
            peer.allowed = len(PATTERN)
        for peer in self.peers.values():
            peer.finish()

    def stall(self) -> dict[str, Peer]:
        """Send twice the pattern to some, who read nothing of what comes back before two updates are over."""
        peers = {kind: self.again(kind) for kind in STALLED}
        for peer in peers.values():
            peer.reading = False
            peer.allowed = 2 * len(PATTERN)
            peer.start(2 * PATTERN)
        deadline = time.monotonic() + PATIENCE
        while min(peer.sent for peer in peers.values()) < len(PATTERN):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        for _ in range(2):
            assert self.vm.update()["status"] == "completed"
        self.before_reading = {kind: peer.sent for kind, peer in peers.items()}
        for peer in peers.values():
            peer.reading = True
        for peer in peers.values():
            peer.finish()
        return peers

    def again(self, kind: str) -> Peer:
        return Peer(self.peers[kind].read_fd, self.peers[kind].write_fd)


@pytest.fixture(scope="module")
def consoles(debian, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Consoles]:
    with contextlib.ExitStack() as stack:
        made = Consoles(stack, tmp_path_factory.mktemp("consoles"), debian)
        made.run()
        yield made


@pytest.mark.parametrize("kind", KINDS)
def test_megabyte_each_way_is_byte_exact_through_twenty_updates(consoles: Consoles, kind) -> None:
    peer = consoles.peers[kind]
    assert peer.got == PATTERN, peer.trouble
    assert 0 < consoles.during[kind] < len(PATTERN)


def test_ports_have_their_names_and_terminals_their_paths(consoles: Consoles) -> None:
    assert all(f"test.{kind}\r\n".encode() in consoles.names for kind in KINDS[1:])
    assert filename(consoles.vm, "pty") == consoles.pty
    assert not BAD.search(shell(consoles.vm.console, "dmesg"))


def test_readers_that_stall_make_the_guest_wait_and_lose_nothing(consoles: Consoles) -> None:
    for kind, peer in consoles.stall().items():
        assert peer.got == 2 * PATTERN, (kind, peer.trouble)
        assert consoles.before_reading[kind] < len(peer.got), f"{kind}: the guest did not wait"


def until_answer(console: Console, line: str, expected: bytes) -> None:
    """Type a line into the guest's shell until it prints what is expected."""
    deadline = time.monotonic() + PATIENCE
    while expected not in (answer := shell(console, line)):
        if time.monotonic() > deadline:
            raise GoneError(f"{line!r} did not print {expected!r} but {answer!r}")


def test_terminals_have_the_size_of_the_hosts_and_keep_it_through_updates(
    debian, tmp_path: Path
) -> None:
    """A window that is resized (pty), and a socket whose client tells of it through a monitor."""
    with Vm(
        *debian.arguments("console=ttyS0 quiet"), "-device", "virtio-serial-device",
        "-chardev", f"socket,id=s,path={tmp_path}/s,server=on,wait=off", "-device", "virtconsole,chardev=s",
        "-chardev", "pty,id=p", "-device", "virtconsole,chardev=p", size=256,
    ) as vm:  # fmt: skip
        window = os.open(filename(vm, "p").removeprefix("pty:"), os.O_RDWR | os.O_NOCTTY)
        termios.tcsetwinsize(window, (33, 101))
        vm.console.wait(b"instar-guest:")
        until_answer(vm.console, "stty size < /dev/hvc1", b"\n33 101\r")
        vm.qmp.command("chardev-window-size-changed", id="s", cols=77, rows=22)
        until_answer(vm.console, "stty size < /dev/hvc0", b"\n22 77\r")
        shell(vm.console, "stty -F /dev/hvc0 cols 5 rows 5")  # what the guest sets itself it keeps
        vm.update()
        vm.qmp.command("stop")
        vm.qmp.command("chardev-window-size-changed", id="s", cols=78, rows=23)
        termios.tcsetwinsize(window, (34, 102))
        vm.update()
        vm.qmp.command("cont")
        until_answer(vm.console, "stty size < /dev/hvc0", b"\n23 78\r")
        until_answer(vm.console, "stty size < /dev/hvc1", b"\n34 102\r")
        os.close(window)


class Window(Terminal):
    """A terminal with a size, and how it was before the program came."""

    def __init__(self, argv: list[str], rows: int, cols: int) -> None:
        fresh = pty.openpty()
        self.before = termios.tcgetattr(fresh[1])
        for fd in fresh:
            os.close(fd)
        super().__init__(argv)
        self.resize(rows, cols)

    def resize(self, rows: int, cols: int) -> None:
        termios.tcsetwinsize(self.fd, (rows, cols))

    def until(self, line: str, expected: bytes) -> None:
        """Type a line at the shell until it prints what is expected."""
        deadline = time.monotonic() + PATIENCE
        prompt = b"instar-guest:/# "
        while expected not in (answer := self.answer(line, prompt).replace(b"\r", b"")):
            if time.monotonic() > deadline:
                raise GoneError(f"{line!r} did not print {expected!r} but {answer!r}")

    def switch(self, prompt: bytes) -> None:
        """Ctrl-A c, and wait for who is there now."""
        start = len(self.text)
        os.write(self.fd, b"\x01c")
        self.wait(prompt, start)


def test_kernel_console_and_monitor_share_a_terminal_through_updates(
    debian, tmp_path: Path
) -> None:
    """A person at a real terminal: raw until the end, its size in the guest, Ctrl-A cut in two by an update."""
    uri = f"file:{tmp_path}/vm.state"
    argv = [
        str(PROGRAM), "-nodefaults", *debian.arguments("console=hvc0"), "-m", "256M",
        "-object", "memory-backend-memfd,id=ram0,size=256M", "-machine", "virt,memory-backend=ram0,aux-ram-share=on",
        "-chardev", "stdio,id=t,mux=on,signal=off", "-mon", "chardev=t",
        "-device", "virtio-serial-device", "-device", "virtconsole,chardev=t",
    ]  # fmt: skip
    person = Window(argv, 40, 120)
    try:
        person.wait(b"(instar) ")
        person.switch(b"")
        person.wait(b"instar-guest:/# ")
        raw = termios.tcgetattr(person.fd)
        assert raw != person.before
        person.until("X=kept; cat /sys/class/tty/console/active", b"hvc0\n")
        person.until("stty size", b"40 120\n")
        person.resize(50, 132)
        person.until("stty size", b"50 132\n")

        person.switch(b"(instar) ")
        person.answer("migrate_set_parameter mode cpr-exec")
        person.answer(f"migrate_set_parameter cpr-exec-command {' '.join(argv)} -incoming {uri}")
        for n, cut in enumerate((False, True, False)):
            start = len(person.text)
            person.type(f"migrate -d {uri}")
            if cut:
                os.write(person.fd, b"\x01")
            person.wait(b"monitor - type 'help' for more information", start)
            if not cut:  # the monitor still has the focus
                assert b"completed" in person.answer("info migrate")
                os.write(person.fd, b"\x01")
            os.write(person.fd, b"c")
            person.resize(51 + n, 132)
            person.until("echo $X; stty size", f"kept\n{51 + n} 132\n".encode())
            person.switch(b"(instar) ")
        assert termios.tcgetattr(person.fd) == raw
        person.type("quit")
        assert os.waitstatus_to_exitcode(os.waitpid(person.pid, 0)[1]) == 0
        assert termios.tcgetattr(person.fd) == person.before
    finally:
        os.close(person.fd)
