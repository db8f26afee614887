"""The new program's side of a rehearsal: build the whole machine inert, load it, save it again, tell how it went.

It never runs a main loop, so nothing is read or served; what would open, bind, lock or start asks ``Vm.inert``.

Source: own; docs/decisions/0008.
"""

from __future__ import annotations

import os
from time import monotonic_ns

from instar import log
from instar._version import VERSION
from instar.cli.assembly import assemble
from instar.cli.options import Config, parse
from instar.cli.options.compare import differences
from instar.cli.vm import Vm
from instar.cpr.adopted import adopt_for_rehearsal
from instar.cpr.own import release
from instar.cpr.rehearsal import REPORT, tell
from instar.cpr.versions import readable_versions
from instar.errors import ConfigError, InstarError
from instar.loop import Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from instar.cpr.adopted import Adopted
    from instar.cpr.state import Record


def rehearse(words: list[str]) -> int:
    """Try to become the machine that runs beside this process, tell its program, and end.

    Args:
        words: The command line.

    Returns:
        An exit status, if nobody asked for a rehearsal.
    """
    adopted = adopt_for_rehearsal()
    if adopted is None:
        return 0
    pipe = adopted.fds.find(*REPORT)
    told: Record = {"program": VERSION, "release": release()}
    complaints: list[str] = []
    try:
        _try(words, adopted, told, complaints)
    except Exception as e:  # whatever it is, the update would end in it
        complaints.append(str(e) if isinstance(e, InstarError) else f"{type(e).__name__}: {e}")
    told["complaints"] = complaints
    told["reads"] = {name: list(versions) for name, versions in readable_versions().items()}
    tell(pipe, told)
    os._exit(0)


def _try(words: list[str], adopted: Adopted, told: Record, complaints: list[str]) -> None:
    started_ns = adopted.info.get("started-ns")
    if isinstance(started_ns, int):
        told["begun-ns"] = adopted.started_ns - started_ns
    config = parse(words)
    if not isinstance(config, Config):
        raise ConfigError("the command line asks for a text, not for a machine")
    complaints += _differences(config, adopted)
    if complaints:
        return
    log.hold()
    vm = Vm(Loop(), adopted.fds, config, resumed=True, inert=True)
    fatal: list[str] = []
    assemble(vm, announce=log.warning, on_fatal=fatal.append)
    vm.machine.events.hold()
    vm.migration.restore_host(adopted)
    vm.netdevs.open()
    vm.migration.expect_incoming(adopted)
    built_ns = monotonic_ns()
    told["build-ns"] = built_ns - adopted.started_ns
    vm.migration.rehearse_incoming()
    told["load-ns"] = monotonic_ns() - built_ns
    for name in ("instar.migration.outgoing", "instar.monitor.monitor"):
        __import__(name)  # what settling needs is tried too

    complaints += [
        f"descriptor {entry!r} would have no owner"
        for entry in adopted.fds.unclaimed()
        if not entry.name.startswith("cpr/")
    ]


def _differences(config: Config, adopted: Adopted) -> list[str]:
    """Return how this command line differs from the machine that runs, one sentence each."""
    if not config.incoming:
        return ["the command line has no -incoming: the guest would be started anew"]
    words = adopted.info.get("config")
    rows: list[object] = words if isinstance(words, list) else []  # pyright: ignore[reportUnknownVariableType]
    running = parse([str(word) for word in rows])
    return differences(running, config) if isinstance(running, Config) else []
