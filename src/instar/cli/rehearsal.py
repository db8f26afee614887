"""The new program's side of a rehearsal: build the whole machine inert, load it, save it again, tell how it went.

It never runs a main loop, so nothing is read or served; what would open, bind, lock or start asks ``Vm.inert``; and a
filter refuses what slipped through.

Source: own; docs/decisions/0008.
"""

from __future__ import annotations

import os
import sys
from stat import S_ISBLK, S_ISREG
from time import monotonic_ns

from instar import log
from instar._version import VERSION
from instar.cli.assembly import assemble
from instar.cli.options import Config, parse
from instar.cli.options.characters import read_chardev
from instar.cli.options.compare import changes, differences
from instar.cli.options.plain import to_plain
from instar.cli.preparing import prepare
from instar.cli.vm import Vm
from instar.cpr.adopted import adopt_for_rehearsal
from instar.cpr.errors import CprError
from instar.cpr.own import release
from instar.cpr.rehearsal import REPORT, begun_ns, tell
from instar.cpr.versions import readable_versions
from instar.errors import ConfigError, InstarError
from instar.loop import Loop
from instar.migration.again import host_losses
from instar.sandbox.rehearsal import protect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from instar.cpr.adopted import Adopted
    from instar.cpr.state import Record


class _Told:
    """What becomes the answer."""

    __slots__ = ("complaints", "lost", "notes", "record")

    def __init__(self) -> None:
        self.record: Record = {"program": VERSION, "release": release(), "bridges": True}
        self.complaints: list[str] = []
        self.lost: list[str] = []
        self.notes: list[str] = []

    def answer(self) -> Record:
        """Return the answer."""
        # It may not have come that far, and this machine may not have all parts: all states are told.
        for name in ("instar.cli.states", "instar.monitor.state"):
            __import__(name)
        return {
            **self.record,
            "complaints": self.complaints,
            "lost": self.lost,
            "collects": True,
            "notes": [*self.notes, *log.take()],
            "reads": {name: list(versions) for name, versions in readable_versions().items()},
        }


def rehearse(words: list[str], imported_ns: int = 0) -> int:
    """Try to become the machine that runs beside this process, tell its program, and end.

    Args:
        words: The command line.
        imported_ns: How long it took to import this module, which no update does.

    Returns:
        An exit status, if nobody asked for a rehearsal.
    """
    adopted = adopt_for_rehearsal()
    if adopted is None:
        return 0
    log.hold()
    log.ignore_guest()
    pipe = adopted.fds.find(*REPORT)
    told = _Told()
    try:
        told.record["begun-ns"] = begun_ns(adopted) - imported_ns
        _try(words, adopted, told)
    except Exception as e:  # whatever it is, the update would end in it
        told.complaints.append(
            str(e) if isinstance(e, InstarError | CprError) else f"{type(e).__name__}: {e}"
        )
    tell(pipe, told.answer())
    os._exit(0)


def _try(words: list[str], adopted: Adopted, told: _Told) -> None:
    loop = Loop()
    _protect(adopted, loop, told)
    began = monotonic_ns()
    config = parse(words)
    parsed_ns = monotonic_ns() - began
    if not isinstance(config, Config):
        raise ConfigError("the command line asks for a text, not for a machine")
    plain = to_plain(config)  # before anything changes it
    _compare(config, adopted, told)
    if told.complaints:
        return
    began = monotonic_ns()
    vm = Vm(loop, adopted.fds, config, before=adopted, inert=True)
    fatal: list[str] = []
    assemble(vm, announce=log.warning, on_fatal=fatal.append)
    vm.machine.events.hold()
    vm.migration.restore_host(adopted, told.complaints.append)
    vm.netdevs.open()
    vm.migration.expect_incoming(adopted)
    told.record["build-ns"] = parsed_ns + monotonic_ns() - began
    # Before the devices go on: what they then find in the memory of a guest that runs is not in the copy.
    told.lost += host_losses(adopted.info.get("host"), vm.things(), adopted.info.get("versions"))
    tried = vm.migration.rehearse_incoming()
    told.record["load-ns"] = tried.load_ns
    names = list(sys.modules)
    told.lost += tried.lost
    told.notes += [f"{name} is of a newer version, and is kept" for name in tried.kept]
    for name in ("instar.migration.outgoing", "instar.monitor.monitor", "instar.cli.states"):
        __import__(
            name
        )  # what settling needs is tried too, and all states are known for the answer
    told.complaints += [
        f"descriptor {entry!r} would have no owner"
        for entry in adopted.fds.unclaimed()
        if not entry.name.startswith("cpr/")
    ]

    told.record["prepared"] = _prepared(words, plain, names, told)


def _prepared(words: list[str], plain: object, names: list[str], told: _Told) -> bytes:
    """Return what makes the start proper shorter; without it that is an ordinary one."""
    try:
        return prepare(words, plain, names)
    except (OSError, ValueError) as e:
        told.notes.append(f"the start could not be prepared: {e}")
        return b""


def _protect(adopted: Adopted, loop: Loop, told: _Told) -> None:
    """Let the kernel refuse what this process must not do."""
    told.notes += protect(
        [fd for fd in adopted.fds.numbers() if not _is_file(fd)],
        writable=[adopted.fds.find(*REPORT), loop.wake_fd],
    )


def _is_file(fd: int) -> bool:
    """Return whether reading takes nothing away from others."""
    mode = os.fstat(fd).st_mode
    return S_ISREG(mode) or S_ISBLK(mode)


def _compare(config: Config, adopted: Adopted, told: _Told) -> None:
    """Tell how this command line differs from the machine that runs."""
    if not config.incoming:
        told.complaints.append(
            "the command line has no -incoming: the guest would be started anew"
        )
        return
    words = adopted.info.get("config")
    rows: list[object] = words if isinstance(words, list) else []  # pyright: ignore[reportUnknownVariableType]
    running = parse([str(word) for word in rows])
    if not isinstance(running, Config):
        told.complaints.append("the program before did not tell what its machine is")
        return
    told.complaints += differences(running, config, _carried(adopted.info.get("host")))
    told.notes += changes(running, config)


def _carried(host: object) -> set[tuple[str, str]]:
    """Return what was added or removed at run time, as (attribute of Config, id): its state tells, no command line."""
    records: dict[str, Any] = {item["id"]: item["record"] for item in _rows(host)}
    chardevs = _rows(records.get("chardevs-added", {}).get("chardevs"))
    netdevs = records.get("netdevs", {})
    arguments = [str(row["fields"]["argument"]) for row in chardevs]
    found = {("chardevs", read_chardev(argument, []).id) for argument in arguments}
    added = [row for row in _rows(netdevs.get("netdevs")) if row["fields"].get("added")]
    changed = [*added, *_rows(netdevs.get("removed"))]
    return found | {("netdevs", str(row["fields"]["id"])) for row in changed}


def _rows(value: Any) -> list[dict[str, Any]]:  # noqa: ANN401 - the program before wrote it; what is wrong is a complaint
    return value if isinstance(value, list) else []  # pyright: ignore[reportUnknownVariableType]
