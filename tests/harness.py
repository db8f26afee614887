"""Run real ``instar-system`` processes and talk to them: for tests of kinds guest, peers and faults."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

PROGRAM = Path(sys.executable).parent / "instar-system"
KEEPER = "instar-keeper"  # the task that keeps an old program's memory until the pause is over
# Seconds until a test gives up waiting; machines are noisy, emulated ones slow, and no test measures.
PATIENCE = float(os.environ.get("INSTAR_TEST_PATIENCE", "60"))
# Where a test is to have more patience, an update may take longer, too.
SLOWLY = {"x-update-timeout": int(400 * PATIENCE)} if "INSTAR_TEST_PATIENCE" in os.environ else {}


class Machine(NamedTuple):
    """What depends on the CPU back end: board, words of the command line, and where the guest's RAM begins."""

    board: str
    words: tuple[str, ...]
    ram: int


VIRT = Machine("virt", (), 0x8000_0000)
MICROVM = Machine("microvm", ("-accel", "kvm,x-bare-guest=on"), 0)  # for guests without a kernel


class GoneError(Exception):
    """The process ended, or did not say what was waited for."""


class Qmp:
    """A minimal QMP client that also keeps events; the real client library is used in tests/peers."""

    def __init__(self, path: Path) -> None:
        self.socket = connect(path)
        self.events: list[dict] = []
        self._buffer = b""
        self.greeting = self._read()
        self.command("qmp_capabilities")

    def command(self, name: str, **arguments):
        reply = self.raw(name, **arguments)
        if "error" in reply:
            raise QmpError(reply["error"]["desc"])
        return reply["return"]

    def raw(self, name: str, **arguments) -> dict:
        request = {"execute": name}
        if arguments:
            request["arguments"] = {
                key.replace("_", "-"): value for key, value in arguments.items()
            }
        self.socket.sendall(json.dumps(request).encode())
        while True:
            message = self._read()
            if "event" not in message:
                return message
            self.events.append(message)

    def wait_event(self, name: str, **data) -> dict:
        """Return the first event (from the oldest kept on) of that name with these data, dropping those before it."""
        while True:
            event = self.next_event()
            if event["event"] == name and data.items() <= event.get("data", {}).items():
                return event

    def next_event(self) -> dict:
        """Return the oldest event that nobody took yet."""
        return self.events.pop(0) if self.events else self._read()

    def _read(self) -> dict:
        while b"\n" not in self._buffer:
            data = self.socket.recv(65536)
            if not data:
                raise GoneError("the QMP connection was closed")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return json.loads(line)


class QmpError(Exception):
    """The error reply of a command; str() is its desc."""


def connect(path: Path) -> socket.socket:
    deadline = time.monotonic() + PATIENCE
    while True:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(PATIENCE)
        try:
            client.connect(str(path))
        except OSError:
            client.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return client


class Console:
    """The other end of a unix socket serial port; keeps all that came."""

    def __init__(self, path: Path) -> None:
        self.socket = connect(path)
        self.socket.setblocking(False)
        self.text = b""

    def wait(self, pattern: bytes, start: int = 0) -> int:
        """Return where ``pattern`` ends in the text from ``start`` on, waiting for it."""
        deadline = time.monotonic() + PATIENCE
        while (at := self.text.find(pattern, start)) < 0:
            if time.monotonic() > deadline:
                raise GoneError(
                    f"no {pattern!r} on the console; it ends with {self.text[-500:]!r}"
                )
            self.pull(1.0)
        return at + len(pattern)

    def pull(self, seconds: float) -> None:
        """Take what has come, waiting at most so long for the first of it."""
        if not select.select([self.socket], [], [], seconds)[0]:
            return
        with contextlib.suppress(BlockingIOError):
            data = self.socket.recv(65536)
            if not data:
                raise GoneError(f"the console was closed; it ends with {self.text[-500:]!r}")
            self.text += data

    def pull_all(self) -> None:
        """Take everything until nothing comes for a while; the guest must not print all the time."""
        before, deadline = -1, time.monotonic() + PATIENCE
        while len(self.text) != before:
            if time.monotonic() > deadline:
                raise GoneError(
                    f"the console does not fall silent; it ends with {self.text[-200:]!r}"
                )
            before = len(self.text)
            self.pull(0.5)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)


class Vm:
    """One instar-system with a QMP socket and a serial socket in a folder of its own.

    ``machine`` is what runs the guest, with ``size`` MiB of RAM in a memfd named ram0, fit for updates. ``extra``
    arguments come last. ``wrapper`` is a command that executes the program or starts it as its only child. ``serial``
    is where the serial port goes instead of to ``console``. A test that lets a guardian take over notes its process
    number in ``pid``.
    """

    _pid = 0

    @property
    def pid(self) -> int:
        """The process that has the guest."""
        return self._pid or self.process.pid

    @pid.setter
    def pid(self, number: int) -> None:
        self._pid = number

    def __init__(
        self,
        *extra: str,
        machine: Machine = VIRT,
        size: int = 64,
        shared: bool = True,
        program: Path = PROGRAM,
        wrapper: tuple[str, ...] = (),
        serial: str = "",
        **popen,
    ) -> None:
        self.machine = machine
        self.folder = Path(tempfile.mkdtemp(prefix="instar-test-"))
        share = "on" if shared else "off"
        own = f"socket,id=con,path={self.folder}/serial,server=on,wait=off"
        self.argv = [
            str(program), "-m", f"{size}M", "-nodefaults",
            "-object", f"memory-backend-memfd,id=ram0,size={size}M,share={share}",
            "-machine", f"{machine.board},memory-backend=ram0,aux-ram-share={share}", *machine.words,
            *(["-serial", serial] if serial else ["-chardev", own, "-serial", "chardev:con"]),
            "-qmp", f"unix:{self.folder}/qmp,server=on,wait=off",
            *extra,
        ]  # fmt: skip
        self.stderr = open(self.folder / "stderr", "w+b")  # noqa: SIM115 - closed in close()
        popen.setdefault("stdin", subprocess.DEVNULL)
        self.process = subprocess.Popen([*wrapper, *self.argv], stderr=self.stderr, **popen)
        try:
            self.qmp = Qmp(self.folder / "qmp")
            if not serial:
                self.console = Console(self.folder / "serial")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Vm:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        for peer in ("qmp", "console"):
            if hasattr(self, peer):
                getattr(self, peer).socket.close()
        for pid in {*self._children_now(), self.pid, self.process.pid}:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.stderr.close()
        for path in self.folder.iterdir():
            path.unlink(missing_ok=True)  # a program that is just ending removes some, too
        self.folder.rmdir()

    def children(self) -> list[int]:
        """The process's children, when the memory of the program before is gone; of a wrapper that is the program."""
        deadline = time.monotonic() + PATIENCE
        while KEEPER in (found := {pid: name_of(pid) for pid in self._children_now()}).values():
            if time.monotonic() > deadline:
                raise GoneError("the memory of the program before is still held")
            time.sleep(0.005)
        return [pid for pid, name in found.items() if name]  # others ended while we looked

    def _children_now(self) -> list[int]:
        try:
            return [
                int(pid)
                for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
            ]
        except FileNotFoundError:
            return []

    def said(self) -> str:
        """What the program wrote to standard error."""
        self.stderr.flush()
        return (self.folder / "stderr").read_text()

    def until_said(self, text: bytes) -> None:
        """Wait until the program has written this to standard error."""
        deadline = time.monotonic() + PATIENCE
        while text not in (self.folder / "stderr").read_bytes():
            if time.monotonic() > deadline:
                raise GoneError(f"not said: {text!r}; but: {self.said()!r}")
            time.sleep(0.01)

    def prepare_update(
        self, *, program: Path | None = None, uri: str = "", command: list[str] | None = None
    ) -> str:
        """Set mode, command and capability events; returns the URI."""
        uri = uri or f"file:{self.folder}/vm.state"
        argv = list(self.argv)
        if program is not None:
            argv[0] = str(program)
        self.qmp.command(
            "migrate-set-parameters",
            **{"mode": "cpr-exec", "cpr-exec-command": command or [*argv, "-incoming", uri]},
            **SLOWLY,
        )
        self.qmp.command(
            "migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}]
        )
        return uri

    def update(self, **options) -> dict:
        """Update and return query-migrate of the new program; QmpError says why it was refused."""
        uri = self.prepare_update(**options)
        self.qmp.events.clear()  # an attempt before this one has told its end
        self.qmp.command("migrate", uri=uri)
        ends = ("completed", "failed", "cancelled")
        while self.qmp.wait_event("MIGRATION")["data"]["status"] not in ends:
            continue
        info = self.qmp.command("query-migrate")
        if info["status"] != "completed":
            raise QmpError(f"{info['status']}: {info.get('error-desc', '')}")
        return info

    def guest_memory(self, gpa: int, length: int) -> bytes:
        """Read guest RAM from outside, through the descriptor of its memfd."""
        for link in Path(f"/proc/{self.pid}/fd").iterdir():
            if "memory-backend-ram0" in fd_name(link):
                with open(link, "rb") as file:
                    return os.pread(file.fileno(), length, gpa - self.machine.ram)
        raise GoneError("the process has no memfd of ram0")

    def wait_exit(self) -> int:
        return self.process.wait(PATIENCE)

    def footprint(self) -> dict[str, object]:
        """What must not grow: descriptors, threads, children, environment."""
        proc = Path(f"/proc/{self.pid}")
        return {
            "children": self.children(),
            "fds": self._least(lambda: sorted(fd_name(link) for link in (proc / "fd").iterdir())),
            "threads": len(self._least(lambda: list((proc / "task").iterdir()))),
            "environ": sorted(
                name
                for row in (proc / "environ").read_bytes().split(b"\0")
                # The kernel shows what exec was given: a way back is not prepared.
                if (name := row.partition(b"=")[0]) != b"INSTAR_CPR_PREPARED"
            ),
        }

    def _least(self, look: Callable[[], list]) -> list:
        """What there is of something at the least: what tidies up after an update may take a moment to end."""
        looks = []
        for _ in range(5):
            looks.append(look())
            time.sleep(0.01)
        return min(looks, key=len)


def name_of(pid: int) -> str:
    """What a process calls itself; empty if it is over."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().rstrip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def fd_name(link: Path) -> str:
    """A name for a descriptor that does not change with its inode number."""
    try:
        name = os.readlink(link)
    except FileNotFoundError:
        return "gone"
    return name.partition(":[")[0] if ":[" in name else name
