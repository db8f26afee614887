"""The helper of a bridge: the harts and the guest's memory, and nothing else, for as long as no monitor is there.

It runs in a process of the new program, started beside the old one. The harts stop before the first instruction that
would reach a device; whoever asks gets them. Its end of the socket is its life: when nobody holds the other end any
more, the guest has no monitor and ends.

Not on the resume path. Source: own; docs/decisions/0011.
"""

from __future__ import annotations

import mmap
import os
import signal
from time import monotonic_ns
from typing import TYPE_CHECKING

from instar import log
from instar.boards import virt
from instar.cli.options import Config, parse
from instar.cpr.adopted import BRIDGE
from instar.cpr.encoding import decode, encode
from instar.cpr.errors import CprError
from instar.cpr.fds import Fds
from instar.cpr.versions import versions_for
from instar.cpu.rv64 import Core, address_of
from instar.cpu.rv64.state import ModelState
from instar.cpu.rv64.vcpus import Rv64Vcpus
from instar.errors import ConfigError, InstarError
from instar.memory.refill import map_now
from instar.migration.bridge_link import MAX_MESSAGE
from instar.migration.saving import host_records
from instar.migration.sections import read_records

if TYPE_CHECKING:
    from typing import Any, Final

    from instar.cpr.state import Record

_NEVER: Final = -1
_MAPPING_NS: Final = 2_000_000_000  # for 16 GiB or more
_FAILED: Final = 1


class NoDevices:
    """The bus of a core that defers: it is never asked."""

    def mmio_read(self, gpa: int, size: int, /) -> int:
        """Answer nothing."""
        raise AssertionError(f"a load of {size} bytes at {gpa:#x} was not deferred")

    def mmio_write(self, gpa: int, size: int, value: int, /) -> int:
        """Answer nothing."""
        raise AssertionError(f"a store of {value:#x}, {size} bytes, at {gpa:#x} was not deferred")

    def sbi(self, hart: int, eid: int, fid: int, args: tuple[int, ...], /) -> tuple[int, int]:
        """Answer nothing."""
        raise AssertionError(f"SBI call {eid:#x}/{fid} {args} of hart {hart} was not deferred")


class DeviceTimer:
    """Where a machine's virtual timers would be: when the first one is due, the harts have to wait for its device."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self.vcpus: Rv64Vcpus
        self.at_ns = _NEVER

    def next_ns(self) -> int:
        """Return when it is due, -1 if there is none."""
        return self.at_ns

    def fire(self) -> int:
        """Stop the harts if it is due; return when it is, -1 if there is none."""
        if self.at_ns != _NEVER and self._core.now_ns() >= self.at_ns:
            self.vcpus.hold()
            return _NEVER
        return self.at_ns


class Helper:
    """The harts, and what may be asked of them.

    Args:
        ram: The guest's memory, shared.
        config: The machine that the new program will be.
    """

    def __init__(self, ram: mmap.mmap, config: Config) -> None:
        shift = -1 if config.icount is None else config.icount.shift
        self._ram = memoryview(ram)
        self._core = Core(
            ram_addr=address_of(self._ram),
            ram_base=virt.RAM_BASE,
            ram_size=len(ram),
            harts=config.smp.cpus,
            bus=NoDevices(),
            icount_shift=shift,
            flush_everything=config.cpu.flush_everything,
            sstc=config.cpu.sstc,
            defers=True,
        )
        self._timer = DeviceTimer(self._core)
        self._why = ""
        self._vcpus = self._timer.vcpus = Rv64Vcpus(
            self._core,
            model=ModelState(harts=config.smp.cpus, sstc=config.cpu.sstc, icount_shift=shift),
            icount_sleep=config.icount is not None and config.icount.sleep,
            timers=self._timer,
            on_break=lambda: None,
            on_bug=self._note_bug,
        )
        self._vcpus.get_ready()

    def _note_bug(self, error: BaseException) -> None:
        self._why = f"{type(error).__name__}: {error}"

    def do(self, request: Record) -> Record | None:
        """Do what was asked and return the answer, if there is one."""
        match request.get("do"):
            case "load":
                return self._load(request)
            case "go":
                self._core.clock_start()
                self._vcpus.resume()
                return None
            case "stop":
                return self._stop(request)
            case _:
                return {"error": "not understood"}

    def _load(self, request: Record) -> Record:
        read_records(request.get("states"), self._vcpus.harts).apply()
        at_ns, at_count = request.get("timer"), request.get("stop_at")
        self._timer.at_ns = at_ns if isinstance(at_ns, int) else _NEVER
        self._core.set_break(at_count if isinstance(at_count, int) else _NEVER)
        return {}

    def _stop(self, request: Record) -> Record:
        self._vcpus.pause()
        self._core.clock_stop()
        stopped_ns = monotonic_ns()
        versions = versions_for(request.get("reads"))
        states = host_records(self._vcpus.harts, Fds(), versions)
        return {"states": states, "why": self._why, "stopped-ns": stopped_ns}


def serve(words: list[str]) -> int:
    """Be the helper until nobody needs it; returns the exit status.

    Args:
        words: The command line of the machine that the new program will be.
    """
    # Whatever would end this process would end the guest: nothing is let in. (SIGKILL is, as with every monitor.)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    fd, ram_fd = (int(number) for number in os.environ.pop(BRIDGE).split(","))
    os.set_inheritable(fd, False)  # noqa: FBT003 - positional only
    try:
        helper = _make(words, ram_fd)
    except (InstarError, CprError, OSError, ValueError) as e:
        _answer(fd, {"error": str(e)})
        return _FAILED
    _answer(fd, {"ready": 1})
    while data := os.read(fd, MAX_MESSAGE):
        request: Any = decode(data, "bridge")
        if request.get("do") == "end":
            break
        try:
            answer = helper.do(request)
        except (InstarError, CprError, ValueError) as e:
            answer = {"error": str(e)}
        if answer is not None:
            _answer(fd, {**answer, "id": request.get("id")})
    # The harts' thread may be in the middle of the guest: there is nothing to tidy up.
    os._exit(0)


def _make(words: list[str], ram_fd: int) -> Helper:
    config = parse(words)
    if not isinstance(config, Config):
        raise ConfigError("the command line asks for a text, not for a machine")
    ram = mmap.mmap(ram_fd, os.fstat(ram_fd).st_size)
    map_now(ram_fd, ram, _MAPPING_NS)  # the guest runs elsewhere: it would wait here for each page
    os.close(ram_fd)
    return Helper(ram, config)


def _answer(fd: int, record: Record) -> None:
    try:
        os.write(fd, encode(record))
    except OSError as e:
        log.error(f"the bridge's monitor is gone: {os.strerror(e.errno or 0)}")
