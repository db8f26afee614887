"""Everything of one running program: the machine, what is around it, and what of that crosses an update."""

from __future__ import annotations

import gc

from instar import log, prepared, signals
from instar.chardev import create
from instar.chardev.named import NamedFdTable
from instar.cli.added import AddedChardevs
from instar.cli.network import Network
from instar.cli.options.config import VirtioVsockConfig
from instar.cpr.fdsets import FdSets
from instar.migration.migration import load_outgoing
from instar.monitor.state import MonitorState
from instar.netdev import Netdevs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import ClassVar, Final

    from instar.block.raw import RawBlock
    from instar.block.throttle import Throttles
    from instar.chardev import Chardev
    from instar.cli.options import ChardevConfig, Config, MonitorConfig
    from instar.cpr.adopted import Adopted
    from instar.cpr.fds import Fds
    from instar.cpr.state import Record, State
    from instar.loop import Loop
    from instar.machine.limiter import DiskLimiter
    from instar.machine.machine import Machine
    from instar.machine.serial import ConsoleLine
    from instar.migration.migration import Migration
    from instar.monitor.monitor import Monitor
    from instar.stateful import Stateful
    from instar.vhostuser import Frontend

CHILD_PATIENCE_S: Final = 5.0  # a program that we have just started takes a moment to listen
_TRIES: Final = 60
_AGAIN_NS: Final = 1_000_000_000
_MAPPING_NS: Final = 2_000_000_000  # so long a source waits for 16 GiB or more to be mapped


class MonitorSlot:
    """Where a monitor will be: monitors are made after the guest runs, their state arrives before."""

    __slots__ = ("config", "front", "monitor", "state", "state_id")
    state_class: ClassVar[type[State]] = MonitorState

    def __init__(self, config: MonitorConfig, front: Chardev) -> None:
        self.config = config
        self.front = front
        self.state_id = f"monitor/{config.id}"
        self.state: MonitorState | None = None
        self.monitor: Monitor | None = None

    def save_state(self) -> MonitorState:
        """Return the monitor's state, or what arrived for it."""
        if self.monitor is not None:
            return self.monitor.save_state()
        return self.state or MonitorState()

    def load_state(self, state: MonitorState) -> None:
        """Keep the state until the monitor is made."""
        self.state = state


if TYPE_CHECKING:
    from typing import Protocol

    class HostPart(Stateful, Protocol):
        """The host's side of a device, with descriptors that it names itself."""

        def close(self) -> None:
            """Leave the host as it was found."""
            ...


class Vm:
    """The parts of the program that monitors may act on (their ``Context``) and that an update carries (``Host``).

    Args:
        loop: The main loop.
        fds: Named descriptors, those of the program before among them.
        config: What the command line means.
        before: What the program before told of its host's side; None: there was none.
        inert: This is a rehearsal beside it: nothing is opened, bound, locked, sent or started.
    """

    def __init__(
        self,
        loop: Loop,
        fds: Fds,
        config: Config,
        *,
        before: Adopted | None = None,
        inert: bool = False,
    ) -> None:
        self.resumed = before is not None
        self.had_children = before is not None and _told_of("children", before)
        self.inert = inert
        self.loop = loop
        self.fds = fds
        self.config = config
        self.chardevs: dict[str, Chardev] = {}
        self.added = AddedChardevs(self)
        self.named_fds = NamedFdTable(fds)
        self.fd_sets = FdSets(fds)
        self.monitor_slots: list[MonitorSlot] = []
        self.console_lines: list[ConsoleLine] = []
        self.host_parts: list[HostPart] = []
        self.disks: dict[str, RawBlock] = {}
        self.frontends: list[Frontend] = []  # of vhost-user, host parts too
        self.netdevs = Netdevs(loop, fds, self._emit, inert=inert)
        self.network = Network(self.netdevs)
        self.throttles: Throttles
        self.disk_limiter: DiskLimiter
        self.machine: Machine
        self.migration: Migration

    def add_chardev(self, argument: str, /) -> Chardev:
        """Make a character device for a monitor (see :class:`AddedChardevs`)."""
        return self.added.add(argument)

    def remove_chardev(self, ident: str, /) -> None:
        """Close a character device for a monitor."""
        self.added.remove(ident)

    def make_chardev(self, config: ChardevConfig, announce: Callable[[str], object]) -> None:
        """Make a character device.

        Raises:
            ConfigError: it is impossible.
            HostError: the host refused; in both cases nothing is left behind.
        """
        options = config.options()
        if config.tls_creds:
            from instar.cli.tls import credentials_of  # noqa: PLC0415 - only machines that have some

            options["tls"] = credentials_of(self.config, config)
        self.chardevs[config.id] = create(
            config.kind,
            config.id,
            options,
            self.loop,
            self.fds,
            announce=announce,
            resumed=self.resumed,
            inert=self.inert,
        )

    def _parts_of_chardevs(self) -> list[Chardev]:
        return [part for device in self.chardevs.values() for part in device.parts()]

    def what_cannot_cross(self) -> list[str]:
        """Return why an update would lose something now, a sentence each."""
        return [
            reason for device in self._parts_of_chardevs() if (reason := device.update_blocker())
        ]

    def what_cannot_be_transferred(self) -> list[str]:
        """Return what another program beside this one could not take over, a sentence each.

        Character devices and monitors are not among it: each program has its own.
        """
        only = "only mode cpr-exec keeps it"
        reasons = [
            f"netdev {netdev.id}: a {netdev.spec.kind} back end can serve one program at a time; {only}"
            for netdev in self.netdevs
            if netdev.spec.kind != "tap"  # its descriptors are handed over
        ]
        reasons += [
            f"{front.state_id}: a vhost-user connection can serve one program at a time; {only}"
            for front in self.frontends
        ]
        reasons += [
            f"{device.driver} in slot {device.slot}: its connections come and go while the target is built; {only}"
            for device in self.config.devices
            if isinstance(device, VirtioVsockConfig)
        ]
        reasons += [
            f"child {child.name}: it belongs to this program; {only}"
            for child in self.config.children
        ]
        return reasons

    def on_update(self, event: str, _mode: str) -> None:
        """Hear of updates (see ``Notifiers``): what cannot cross and need not is ended in order."""
        for device in self._parts_of_chardevs():
            if event == "setup":
                device.begin_update()
            elif event == "done":
                device.leave()
            else:
                device.end_update()

    def on_transfer(self, event: str, _mode: str) -> None:
        """Hear of transfers (see ``Notifiers``): an interface that this program went on holding would never be free."""
        if event == "done":
            self.netdevs.give_up()

    def things_on_the_way(self) -> Sequence[Stateful]:
        """Return what of the host's side has state that goes with the guest in a transfer."""
        return [self.netdevs]

    def things(self) -> Sequence[Stateful]:
        """Return what of the host's side has state: character devices, descriptors by name, monitors."""
        return [
            self.added,
            *self._parts_of_chardevs(),
            *self.host_parts,
            *self.disks.values(),
            self.throttles,
            self.netdevs,
            *self.monitor_slots,
        ]

    def save_fds(self, fds: Fds) -> None:
        """Name the descriptors of character devices; the other owners name theirs when they open them."""
        for device in self.chardevs.values():
            device.save_fds(fds)
        self.netdevs.save_fds(fds)

    def command_words(self, incoming: str, /) -> list[str]:
        """Return the words after the program's name that make this machine again, with this ``-incoming``."""
        from instar.cli.live import live_words  # noqa: PLC0415 - nobody resumes into this

        return live_words(self, incoming)

    def began_words(self, incoming: str, /) -> list[str]:
        """Return the words after the program's name that this program was started with, with this ``-incoming``."""
        from instar.cli.live import began_words  # noqa: PLC0415 - nobody resumes into this

        return began_words(self, incoming)

    def problem_of(self, words: list[str], /) -> str:
        """Return why this program would not take over with these arguments; "" if it would."""
        from instar.cli.live import problem_of  # noqa: PLC0415 - nobody resumes into this

        return problem_of(words)

    @property
    def exec_allow(self) -> Sequence[str]:
        """What updates may execute; none: anything."""
        return self.config.exec_allow

    @property
    def wants_bridge(self) -> bool:
        """Whether the vCPUs are to run on in a helper while an update replaces this program."""
        return self.config.machine.update_bridge

    def confinement(self) -> Mapping[str, object]:
        """Return what this program and those after it may not do, for monitors."""
        from instar.cli.confine import confinement  # noqa: PLC0415 - nobody resumes into this

        return confinement(self.config)

    def _emit(self, name: str, data: dict[str, object]) -> None:
        self.machine.events.emit(name, data)

    def settle(self, adopted: Adopted | None) -> None:
        """Do what the guest need not wait for: monitors, reports, descriptors that nobody asked for.

        After an update its devices are served meanwhile: a thread imports what all that needs, which takes longer than
        the pause.
        """

        def load() -> None:
            self._step(adopted, "loading monitors", _load_late)
            self.loop.call_threadsafe(lambda: self._settle(adopted))

        try:
            if adopted is not None:
                signals.start_thread(load)
                return
        except RuntimeError as e:  # the host has no more threads for us
            log.info(f"after the update: {e}; monitors are loaded without one")
        self._settle(adopted)

    def _settle(self, adopted: Adopted | None, tries: int = _TRIES) -> None:
        """Do it, in the main loop.

        After an update the guest runs already: a step that fails costs what it would have brought, never the guest.
        Without monitors nobody could ever update it again, so they are tried once a second, ``tries`` times: the host
        may have been short of something.
        """
        self._step(adopted, "a later update", self._load_what_could_wait)
        for slot in self.monitor_slots:
            self._step(adopted, f"monitor {slot.config.id}", self._make_monitor, slot, adopted)
        if tries and any(slot.monitor is None for slot in self.monitor_slots):
            log.release()
            self.loop.call_later(_AGAIN_NS, lambda: self._settle(adopted, tries - 1))
            return
        self.resumed = False  # character devices that are added from now on are new
        self._step(adopted, "the events held back", self.machine.events.release)
        log.release()
        if adopted is not None:
            self._step(adopted, "the report", self._report, adopted)
            self._step(adopted, "mapping memory again", self._refill)
        if adopted is not None and self.config.sandbox.enabled:
            self._step(adopted, "the look at the sandbox", _check_sandbox)
        prepared.release()
        # What is there by now stays: looking through all of it for garbage would stop the guest's devices for 20 ms.
        gc.freeze()
        gc.enable()
        self._step(adopted, "waiting for a guest", self._await_guest)

    def _step(
        self, adopted: Adopted | None, what: str, work: Callable[..., object], *given: object
    ) -> None:
        """Do one part of settling; on an ordinary start, where nothing is at stake, it may end the program."""
        try:
            work(*given)
        except Exception as e:
            if adopted is None:
                raise
            log.error(
                f"after the update: {what}: {e!r}; the guest goes on without it. Please report it"
            )

    def _load_what_could_wait(self) -> None:
        _load_late()
        self.migration.get_ready()

    def _make_monitor(self, slot: MonitorSlot, adopted: Adopted | None) -> None:
        from instar.monitor.monitor import Monitor  # noqa: PLC0415 - nobody resumes into this

        if slot.monitor is not None:  # an earlier try has made it
            return
        slot.monitor = Monitor(
            "qmp" if slot.config.mode == "control" else "hmp",
            slot.front,
            self,
            slot.config.id,
            pretty=slot.config.pretty,
            state=slot.state,
        )
        slot.state = None
        if adopted is not None:
            slot.monitor.announce_version()

    def _refill(self, then: Callable[[], object] = bool, **how: int) -> None:
        """Map the guest's memory again, one block after the other."""
        from instar.memory.refill import Refill  # noqa: PLC0415 - nobody resumes into this

        blocks = [b.block for b in self.machine.memory_backends if b.block.share]

        def next_one() -> None:
            if blocks:
                Refill(self.loop, blocks.pop(0), next_one, **how).start()
            else:
                then()

        next_one()

    def _await_guest(self) -> None:
        """Let a guest come, if one is to: with its memory mapped, as far as that is done within a moment."""
        if self.migration.arrives:
            self.loop.call_later(_MAPPING_NS, self.migration.warmed_up)
            self._refill(self.migration.warmed_up, rest=0)
        else:
            self.migration.warmed_up()

    def _report(self, adopted: Adopted) -> None:
        self.migration.after_incoming(
            lambda: self.migration.settled(_close_unclaimed(adopted.fds))
        )


def _load_late() -> None:
    """Import what monitors and later updates need; the files may be gone when somebody asks for it."""
    from instar.cli import confine, live  # noqa: F401, PLC0415 # pyright: ignore[reportUnusedImport]
    from instar.migration import reboot, transfer  # noqa: F401, PLC0415 # pyright: ignore[reportUnusedImport]
    from instar.monitor import monitor  # noqa: F401, PLC0415 # pyright: ignore[reportUnusedImport]

    load_outgoing()


def _told_of(ident: str, adopted: Adopted) -> bool:
    """Return whether the program before had a part of its host's side that is called ``ident``."""
    listed = adopted.info.get("host")
    rows: list[object] = listed if isinstance(listed, list) else []  # pyright: ignore[reportUnknownVariableType]
    records: list[Record] = [row for row in rows if isinstance(row, dict)]
    return any(row.get("id") == ident for row in records)


def _check_sandbox() -> None:
    from instar.cli.sandbox import check_still_confined  # noqa: PLC0415 - nobody resumes into this

    check_still_confined()


def _close_unclaimed(fds: Fds) -> list[str]:
    """Close what nobody asked for, and return the names."""
    names = fds.close_unclaimed()
    for name in names:
        log.warning(f"descriptor {name} of the program before: nobody asked for it, closed")
    return names
