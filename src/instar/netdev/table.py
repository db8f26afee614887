"""All network back ends of a machine: those of the command line, and those added and deleted at run time."""

from __future__ import annotations

from instar.cpr.errors import StateInvalidError
from instar.errors import CommandError, ConfigError
from instar.netdev.spec import ABSENT, NetSpec
from instar.netdev.state import MAX_NETDEVS, NetdevsState, OptionState, RemovedState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import ClassVar, Final, Protocol

    from instar.cpr.state import State
    from instar.loop import Loop
    from instar.netdev.base import Emit, FdTable, NetBackend
    from instar.netdev.state import NetdevState

    class Card(Protocol):
        """The lines to a card."""

        vnet_hdr: bool

        @property
        def queues(self) -> int:
            """How many queues it needs."""
            ...

        def connect(self, backend: NetBackend | None, /) -> None:
            """Take a back end, or lose it."""
            ...


def _tap() -> type[NetBackend]:
    from instar.netdev.tap import TapNet  # noqa: PLC0415 - only machines with one

    return TapNet


def _stream() -> type[NetBackend]:
    from instar.netdev.stream import StreamNet  # noqa: PLC0415 - only machines with one

    return StreamNet


def _dgram() -> type[NetBackend]:
    from instar.netdev.dgram import DgramNet  # noqa: PLC0415 - only machines with one

    return DgramNet


KINDS: Final[dict[str, Callable[[], type[NetBackend]]]] = {
    "tap": _tap,
    "stream": _stream,
    "dgram": _dgram,
}


class Netdevs:
    """Back ends by name, and the cards that want them.

    A card names its back end; it has it whenever one of that name is there.

    Args:
        loop: The main loop; everything happens in its thread.
        fds: Named descriptors that cross an update.
        emit: Tells QMP events.
        inert: This is a rehearsal: back ends that have no descriptor are refused.
    """

    state_id = "netdevs"
    state_class: ClassVar[type[State]] = NetdevsState

    def __init__(self, loop: Loop, fds: FdTable, emit: Emit, *, inert: bool = False) -> None:
        self._inert = inert
        self._loop = loop
        self._fds = fds
        self._emit = emit
        self._planned: dict[str, NetSpec] = {}  # of the command line, until they are opened
        self._listed: frozenset[str] = frozenset()  # names on the command line
        self._added: set[str] = set()
        self._removed: set[str] = set()
        self._arrived: dict[str, NetdevState] = {}
        self._backends: dict[str, NetBackend] = {}
        self._cards: dict[str, Card] = {}

    def plan(self, spec: NetSpec) -> None:
        """Note a back end of the command line; :meth:`open` makes it, after the state has arrived."""
        self._planned[spec.id] = spec
        self._listed |= {spec.id}

    def has_header(self, ident: str) -> bool:
        """Return whether the planned back end has offload headers."""
        return ident in self._planned and self._planned[ident].vnet_hdr

    def queues(self, ident: str) -> int:
        """Return how many queues the planned back end has."""
        return self._planned[ident].queues if ident in self._planned else 1

    def use(self, ident: str, card: Card) -> None:
        """Give ``card`` the back end of that name whenever there is one."""
        self._cards[ident] = card

    def open(self, patience_s: float = 0.0) -> None:
        """Make all planned back ends, over the descriptors of the program before.

        Args:
            patience_s: How long to wait for servers that are just starting.

        Raises:
            ConfigError, HostError: one cannot be made; those before it are there.
        """
        for spec in list(self._planned.values()):
            if spec.kind != ABSENT:
                self._open(spec, patience_s)
        self._planned.clear()
        self._arrived.clear()

    def specs(self) -> list[NetSpec]:
        """Return all back ends as they are now; of kind ``none`` where a card has lost its own."""
        specs = {backend.id: backend.spec for backend in self}
        for ident, card in self._cards.items():
            if ident not in specs:
                options = {"queues": str(card.queues)} if card.queues > 1 else {}
                if card.vnet_hdr:
                    options["vnet_hdr"] = "on"
                specs[ident] = NetSpec(ABSENT, ident, options)  # as short as people write it
        return list(specs.values())

    def add(self, spec: NetSpec) -> None:
        """Make a back end at run time; it crosses updates although no command line has it.

        Raises:
            CommandError: the name is taken, there are too many, or the card of that name needs another kind.
            ConfigError, HostError: it cannot be made. Nothing changed in all cases.
        """
        if spec.id in self._backends:
            raise CommandError(f"Duplicate ID '{spec.id}' for netdev")
        if len(self._backends) >= MAX_NETDEVS:
            raise CommandError(f"there are {MAX_NETDEVS} netdevs, which is the limit")
        card = self._cards.get(spec.id)
        if card is not None and card.vnet_hdr != spec.vnet_hdr:
            has = "with" if card.vnet_hdr else "without"
            raise CommandError(
                f"netdev {spec.id}: its card was made for a back end {has} vnet_hdr; nothing was added"
            )
        if card is not None and spec.queues < card.queues:
            raise CommandError(
                f"netdev {spec.id}: its card has {card.queues} pairs of queues, not {spec.queues}; nothing was added"
            )
        self._open(spec)
        self._added.add(spec.id)

    def remove(self, ident: str) -> None:
        """Delete a back end; its card goes on without a cable.

        Raises:
            CommandError: there is none of that name.
        """
        backend = self._backends.pop(ident, None)
        if backend is None:
            raise CommandError(f"Device '{ident}' not found")
        if ident in self._cards:
            self._cards[ident].connect(None)
        backend.close()
        backend.save_fds(self._fds)
        self._added.discard(ident)
        if ident in self._listed:
            self._removed = (self._removed & self._listed) | {ident}

    def __iter__(self) -> Iterator[NetBackend]:
        """Yield the back ends in the order in which they were made."""
        return iter(self._backends.values())

    def get(self, ident: str) -> NetBackend | None:
        """Return the back end of that name."""
        return self._backends.get(ident)

    def save_fds(self, fds: FdTable) -> None:
        """Name every descriptor that must cross."""
        for backend in self:
            backend.save_fds(fds)

    def close(self) -> None:
        """Close all; at the end of the program."""
        for backend in self:
            backend.close()

    # ------------------------------------------------------------------- Stateful

    def save_state(self) -> NetdevsState:
        """Return what must cross beside the descriptors; changes nothing."""
        return NetdevsState(
            netdevs=[self._state_of(backend) for backend in self],
            removed=[RemovedState(id=ident) for ident in sorted(self._removed)],
        )

    def load_state(self, state: NetdevsState) -> None:
        """Take over what was added and deleted; :meth:`open` does the rest.

        Where back ends are open already, over descriptors of a program that went on meanwhile (cpr-transfer), they take
        over what waited in its own.
        """
        if self._backends:
            for one in state.netdevs:
                self._backends[one.id].load_state(one)
            return
        # Also names that this command line lacks: one that was written by hand may have them next time.
        self._removed = {one.id for one in state.removed}
        for ident in self._removed:
            self._planned.pop(ident, None)
        for one in state.netdevs:
            self._arrived[one.id] = one
            if one.added and one.kind in KINDS:
                options = {option.name: option.value for option in one.options}
                self._planned[one.id] = NetSpec(one.kind, one.id, options)
                self._added.add(one.id)

    def check_against(self, state: NetdevsState) -> None:
        """Refuse the state of back ends that came or went while this program was built (StateInvalidError)."""
        mine, theirs = {*self._backends}, {one.id for one in state.netdevs}
        if mine != theirs:
            names = ", ".join(sorted(mine ^ theirs))
            raise StateInvalidError(f"netdevs: {names}: only one of the two programs has it")

    def give_up(self) -> None:
        """Close all, for another program has them now; the cards go on without a cable."""
        for backend in self:
            backend.close()
        self.save_fds(self._fds)

    def _state_of(self, backend: NetBackend) -> NetdevState:
        state = backend.save_state()
        if backend.id in self._added:
            state.added = True
            state.options = [
                OptionState(name=name, value=value)
                for name, value in sorted(backend.spec.options.items())
            ]
        return state

    def _open(self, spec: NetSpec, patience_s: float = 0.0) -> None:
        if spec.kind not in KINDS:
            raise ConfigError(f"netdev {spec.id}: unknown kind {spec.kind}")
        backend = KINDS[spec.kind]()(spec, self._loop, self._emit)
        backend.resumed = spec.id in self._arrived
        backend.inert = self._inert
        backend.patience_s = patience_s
        backend.open(self._fds)
        if not backend.resumed:
            _claim_given(spec, self._fds)
        if spec.id in self._arrived:
            backend.load_state(self._arrived[spec.id])
        self._backends[spec.id] = backend
        if spec.id in self._cards:
            self._cards[spec.id].connect(backend)


def _claim_given(spec: NetSpec, fds: FdTable) -> None:
    """Forget the names of ``getfd`` that a new back end was made of: it owns the descriptors now."""
    for key in ("fd", "fds", "addr.str", "local.str"):
        for text in spec.text(key).split(":"):
            if text and not text.isdigit():
                fds.delete(f"getfd/{text}", 0)
