"""A copy of the state for a rehearsal, taken between two instructions of the guest that runs, for a certain reader.

Not on the resume path. Source: own; docs/decisions/0008.
"""

from __future__ import annotations

import os
from time import monotonic_ns

from instar._version import VERSION
from instar.cpr.losses import differing
from instar.cpr.stream import Writer
from instar.migration.identity import KEY
from instar.migration.sections import losses_of, write_sections

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

    from instar.cpr.fds import Fds
    from instar.cpr.state import Record
    from instar.migration.migration import Migration
    from instar.stateful import Stateful

_KEPT: Final = "the guest was not stopped"


class Copy:
    """A copy.

    Attributes:
        fds: A table of its own, with the descriptors.
        memfd: The machine's state; whoever has the copy closes it.
        lost: Fields that this reader has no place for and that are in use, as ``"migration-settings.texts"``.
        took_ns: How long the machine was held, and how long writing took.
    """

    __slots__ = ("fds", "lost", "memfd", "took_ns")

    def __init__(self, fds: Fds, memfd: int, lost: list[str], took_ns: int) -> None:
        self.fds = fds
        self.memfd = memfd
        self.lost = lost
        self.took_ns = took_ns


def copy_state(migration: Migration, nonce: str, versions: Mapping[str, int]) -> Copy:
    """Return a copy of the machine's state.

    Args:
        migration: Whose machine it is.
        nonce: Of the update.
        versions: Of states, that the reader reads.

    Raises:
        StateError: There is no way to one of the versions, or it has no place for what is in use.
    """
    machine = migration.machine
    memfd = os.memfd_create("instar-rehearsal", os.MFD_CLOEXEC)
    info: Record = {"nonce": nonce, KEY: migration.identity.to_record()}
    writer = Writer(memfd, program=VERSION, mode="cpr-exec", info=info)

    def save() -> tuple[Fds, list[str]]:
        with machine.lock:
            machine.note_runstate()
            fds = migration.fds.copy()
            things = guest_things(migration)
            lost = losses_of(things, versions, _KEPT) if versions else []
            write_sections(writer, things, fds, versions, peek=True)
            return fds, lost

    began = monotonic_ns()
    try:
        fds, lost = machine.vcpus.parked(save)
        writer.finish()
    except BaseException:
        os.close(memfd)
        raise
    return Copy(fds, memfd, lost, monotonic_ns() - began)


def guest_things(migration: Migration) -> list[Stateful]:
    """Return what has a state that goes through the main channel."""
    return [migration.ram_box, *migration.machine.stateful]


def host_things(migration: Migration) -> list[Stateful]:
    """Return what has a state that goes with the descriptors."""
    return [migration.settings, *migration.host.things()]


def find_losses(migration: Migration, versions: Mapping[str, int]) -> list[str]:
    """Return what of the machine's state a reader of these versions has no place for, as :attr:`Copy.lost`.

    Raises:
        StateError: As for :func:`copy_state`.
    """
    machine = migration.machine

    def look() -> list[str]:
        with machine.lock:
            machine.note_runstate()
            return losses_of(guest_things(migration), versions, _KEPT)

    return machine.vcpus.parked(look)


def written_otherwise(things: list[Stateful], versions: Mapping[str, int]) -> list[str]:
    """Return which states a reader of ``versions`` gets in another version than the current one, for people."""
    classes = {c.state_name: c for t in things for c in differing(t.state_class, versions)}
    return [
        f"{name} v{versions[name]} (here v{cls.state_version})"
        for name, cls in sorted(classes.items())
    ]


def sentences(reader: str, other: list[str], lost: list[str]) -> list[str]:
    """Return what a report says about it.

    Args:
        reader: Its version.
        other: As of :func:`written_otherwise`.
        lost: Fields.
    """
    told = [f"states are written for version {reader}: {', '.join(other)}"] if other else []
    return [*told, *(f"version {reader} has no place for {path}" for path in lost)]
