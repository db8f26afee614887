"""A monitor with the counting guest, and its updates, by the same QMP commands on both sides."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bench_run import RunFailedError
from update_cost import descendants
from update_guest import (
    IDLE_AT,
    MAC,
    QUIET_AT,
    counter,
    counting_initrd,
    kernel_words,
    page_offset,
    wired,
)
from update_ping import Ping
from update_qmp import PATIENCE, Qmp, QmpEndedError
from update_stats import BRIDGE
from update_watch import Console, Watcher

if TYPE_CHECKING:
    from types import TracebackType

    from update_stats import Case

BOOT_PATIENCE_S = 600.0  # a guest of 8 GiB touches them before it counts
_POLL_S = 0.0005


class Side(NamedTuple):
    """A monitor to measure.

    Attributes:
        name: "instar" or "qemu".
        root: What the program sees as ``/``; "" is our own.
        enter: What is put before its command line to start it there.
        program: Its command line's first words.
    """

    name: str
    root: str
    enter: list[str]
    program: list[str]


class Moments(NamedTuple):
    """When an update happened, host monotonic nanoseconds.

    Attributes:
        asked: The command ``migrate`` was sent.
        stopped, resumed: The monitors' events; 0 if nobody heard of it.
        running: The new program answered that the guest runs.
        info: What ``query-migrate`` says afterwards, where the guest was before for cpr-transfer.
    """

    asked: int
    stopped: int
    resumed: int
    running: int
    info: dict[str, Any]


class Vm:
    """A started guest that counts; use it in a ``with`` block.

    Args:
        side: The monitor.
        case: The guest.
        kernel, initrd: Debian's.

    Raises:
        RunFailedError: it did not come up; nothing is left of it.
    """

    def __init__(self, side: Side, case: Case, kernel: str, initrd: str) -> None:
        self._side, self._case = side, case
        self._generation = 0
        with contextlib.ExitStack() as stack:
            self._folder = tempfile.mkdtemp(prefix="bench-", dir=f"{side.root}/tmp")
            stack.callback(shutil.rmtree, self._folder)
            shutil.copy(kernel, f"{self._folder}/kernel")
            counting_initrd(initrd, Path(self._folder, "initrd"), case)
            output, self._input = os.pipe()
            stack.callback(os.close, self._input)
            self.console = Console(output)
            stack.callback(end_all)
            self._process = self._start(self._command(0))
            self._qmp = Qmp(f"{self._folder}/qmp0")
            stack.callback(self._hang_up)
            number = self.console.page_number(self._process, BOOT_PATIENCE_S)
            self._offset = page_offset(number)
            self._memory = self._find_memory()
            stack.callback(os.close, self._memory)
            if case.mode == BRIDGE:
                self._tell(QUIET_AT, 1)
            self.watcher = Watcher(self._memory, self._offset)
            stack.callback(self.watcher.close)
            self.ping = Ping(f"{self._folder}/host", f"{self._folder}/guest")
            stack.callback(self.ping.close)
            if wired(case):
                self.ping.start()
            self._stack = stack.pop_all()

    def __enter__(self) -> Vm:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def idle(self, *, wanted: bool) -> None:
        """Have the guest sleep between its counts, or not."""
        self._tell(IDLE_AT, int(wanted))

    def _tell(self, place: int, word: int) -> None:
        os.pwrite(self._memory, word.to_bytes(8, "little"), self._offset + place)

    def prepare(self) -> None:
        """Do what comes before the command that is measured; for cpr-transfer start the program that takes over."""
        if self._case.mode != "cpr-transfer":
            command = self._command(0, "-incoming", f"file:{self._seen}/state")
            self._qmp.command("migrate-set-parameters", mode="cpr-exec", cpr_exec_command=command)
            return
        number = self._generation + 1
        words: list[str] = []
        for channel, address in self._channels(number):
            words += ["-incoming", json.dumps({"channel-type": channel, "addr": address})]
        self._target = self._start(self._command(number, *words))
        self._qmp.command("migrate-set-parameters", mode="cpr-transfer")
        deadline = time.monotonic() + PATIENCE
        while not os.path.exists(f"{self._folder}/cpr{number}"):
            if self._target.poll() is not None or time.monotonic() > deadline:
                raise RunFailedError(f"{self._side.name}: the program to take over did not listen")
            time.sleep(_POLL_S)

    def update(self) -> Moments:
        """Update; the guest goes on under the new program.

        Raises:
            RunFailedError: it was refused, or failed.
        """
        self._qmp.events.clear()
        moments = self._transfer() if self._case.mode == "cpr-transfer" else self._execute()
        if moments.info.get("status") != "completed":
            why = moments.info.get("error-desc", "no reason was given")
            raise RunFailedError(f"{self._side.name}: {moments.info.get('status')}: {why}")
        return moments

    def _execute(self) -> Moments:
        asked = time.monotonic_ns()
        self._qmp.command("migrate", uri=f"file:{self._seen}/state")
        try:
            self._qmp.until("RESUME")
        except QmpEndedError:
            events = self._qmp.events
            self._qmp.close()
            self._qmp = Qmp(f"{self._folder}/qmp0")
            self._qmp.events[:0] = events
        return self._finished(asked, self._qmp, self._qmp)

    def _transfer(self) -> Moments:
        number = self._generation + 1
        found: list[Qmp | BaseException] = []

        def connect() -> None:
            try:
                found.append(Qmp(f"{self._folder}/qmp{number}"))
            except BaseException as exc:  # raised again by the one who waits
                found.append(exc)

        connecting = threading.Thread(target=connect)
        connecting.start()
        channels = [
            {"channel-type": channel, "addr": address}
            for channel, address in self._channels(number)
        ]
        asked = time.monotonic_ns()
        self._qmp.command("migrate", channels=channels)
        connecting.join()
        target = found[0]
        if isinstance(target, BaseException):
            raise target
        moments = self._finished(asked, self._qmp, target)
        with contextlib.suppress(QmpEndedError, OSError):
            self._qmp.command("quit")
        self._qmp.close()
        self._process.wait(PATIENCE)
        self._qmp, self._process, self._generation = target, self._target, number
        return moments

    def _finished(self, asked: int, source: Qmp, target: Qmp) -> Moments:
        """Wait until the guest runs and the update is over, and return what was heard."""
        deadline = time.monotonic() + PATIENCE
        while target.command("query-status")["status"] != "running":
            if time.monotonic() > deadline:
                raise RunFailedError(f"{self._side.name}: the guest does not run after its update")
            time.sleep(_POLL_S)
        running = time.monotonic_ns()
        ends = ("completed", "failed", "cancelled")
        while (info := source.command("query-migrate")).get("status") not in ends:
            if time.monotonic() > deadline:
                raise RunFailedError(f"{self._side.name}: the update does not end")
            time.sleep(_POLL_S)
        target.command("query-status")  # what happened before has been heard by now
        stopped = next((at for name, at in source.events if name == "STOP"), 0)
        resumed = next((at for name, at in reversed(target.events) if name == "RESUME"), 0)
        return Moments(asked, stopped, resumed, running, info)

    def _hang_up(self) -> None:
        self._qmp.close()

    @property
    def _seen(self) -> str:
        """Our folder as the program sees it."""
        return self._folder.removeprefix(self._side.root)

    @property
    def _bridge(self) -> str:
        return (
            ",x-update-bridge=on"
            if self._case.mode == BRIDGE and self._side.name == "instar"
            else ""
        )

    def _channels(self, number: int) -> list[tuple[str, dict[str, str]]]:
        return [
            (name, {"transport": "socket", "type": "unix", "path": f"{self._seen}/{name}{number}"})
            for name in ("main", "cpr")
        ]

    def _command(self, number: int, *more: str) -> list[str]:
        """Return the command line of the program of that number, as it is executed in its root."""
        size, seen = f"{self._case.memory}M", self._seen
        prealloc = ",prealloc=on" if self._case.state == "prealloc" else ""
        card = [
            "-netdev", f"dgram,id=n0,local.type=unix,local.path={seen}/guest,remote.type=unix,remote.path={seen}/host",
            "-device", f"virtio-net-device,netdev=n0,mac={MAC}",
        ]  # fmt: skip
        return [
            *self._side.program, "-nodefaults", "-display", "none", "-serial", "stdio",
            "-machine", f"virt,memory-backend=ram0,aux-ram-share=on{self._bridge}", "-m", size,
            "-object", f"memory-backend-memfd,id=ram0,size={size},share=on{prealloc}",
            "-qmp", f"unix:{seen}/qmp{number},server=on,wait=off",
            "-kernel", f"{seen}/kernel", "-initrd", f"{seen}/initrd", "-append", kernel_words(self._case),
            *(card if wired(self._case) else []), *more,
        ]  # fmt: skip

    def _start(self, command: list[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*self._side.enter, *command],
            stdin=subprocess.DEVNULL,
            stdout=self._input,
            stderr=self._input,
        )

    def _find_memory(self) -> int:
        """Return a descriptor of the guest's memory, in which the guest counts."""
        folder = f"/proc/{self._process.pid}/fd"
        for name in os.listdir(folder):
            path = f"{folder}/{name}"
            if "memfd:" not in os.readlink(path):
                continue
            descriptor = os.open(path, os.O_RDWR)
            if os.fstat(descriptor).st_size == self._case.memory << 20 and (
                counter(os.pread(descriptor, 64, self._offset)) >= 0
            ):
                return descriptor
            os.close(descriptor)
        raise RunFailedError(
            f"{self._side.name}: no memory in which the guest counts; the command has to execute the program"
        )


def end_all() -> None:
    """End everything that was started here, and what that has started."""
    while pids := descendants(set()):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(-1, 0)
