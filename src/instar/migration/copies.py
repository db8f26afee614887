"""A copy of the state for a rehearsal, taken between two instructions of the guest that runs, for a certain reader.

Not on the resume path. Source: own; docs/decisions/0008.
"""

from __future__ import annotations

import os
from time import monotonic_ns

from instar._version import VERSION
from instar.cpr.losses import UNKNOWN, check_writable, differing
from instar.cpr.versions import versions_for
from instar.cpr.writer import Writer
from instar.migration.identity import KEY
from instar.migration.saving import live_state, losses_of, write_sections

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Final

    from instar.cpr.fds import Fds
    from instar.cpr.rehearsal import Answer
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
        held_ns: How long the harts stood still for it.
        took_ns: That, and how long writing took.
    """

    __slots__ = ("fds", "held_ns", "lost", "memfd", "took_ns")

    def __init__(self, fds: Fds, memfd: int, lost: list[str], held_ns: int, took_ns: int) -> None:
        self.fds = fds
        self.memfd = memfd
        self.lost = lost
        self.held_ns = held_ns
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
        held_ns = monotonic_ns() - began
        writer.finish()
    except BaseException:
        os.close(memfd)
        raise
    return Copy(fds, memfd, lost, held_ns, monotonic_ns() - began)


def guest_things(migration: Migration) -> list[Stateful]:
    """Return what has a state that goes through the main channel."""
    return [migration.ram_box, *migration.machine.stateful]


def host_things(
    migration: Migration, versions: Mapping[str, int], *, peek: bool = False
) -> list[Stateful]:
    """Return what has a state that goes with the descriptors, for a reader of ``versions``.

    A thing that the reader does not know at all is left out if nothing was done with it. The guest's things never are:
    it can see them. ``peek`` is as for :func:`instar.migration.saving.write_sections`.
    """
    things = [migration.settings, *migration.host.things()]
    return [
        thing
        for thing in things
        if versions.get(thing.state_class.state_name) != UNKNOWN
        or live_state(thing, peek=peek) != thing.state_class()
    ]


class Terms:
    """What is written for a reader.

    Attributes:
        versions: Of states, by name; :data:`instar.cpr.losses.UNKNOWN`: it does not know that one.
        other: What of that is not the current version, for people.
        left: Things of the host's side that are left out.
    """

    __slots__ = ("left", "other", "versions")

    def __init__(self, versions: dict[str, int], other: list[str], left: list[str]) -> None:
        self.versions = versions
        self.other = other
        self.left = left


def terms_for(migration: Migration, answer: Answer) -> Terms:
    """Return what this machine writes for a program that has answered (untrusted).

    Raises:
        StateError: It cannot be served; nothing was changed.
    """
    versions = versions_for(answer.reads)
    guest, host = guest_things(migration), host_things(migration, {})
    if answer.reads and answer.complaints:  # nothing that it took over is unknown to it
        names = {thing.state_class.state_name for thing in (*guest, *host)}
        versions.update(dict.fromkeys(names - set(answer.reads), UNKNOWN))
    known = [*guest, *host_things(migration, versions, peek=True)]
    for thing in known:
        check_writable(thing.state_id, thing.state_class, versions, VERSION, _KEPT)
    left = [thing.state_id for thing in host if thing not in known]
    return Terms(versions, written_otherwise(known, versions), left)


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


def sentences(
    reader: str, other: list[str], lost: list[str], left: Sequence[str] = ()
) -> list[str]:
    """Return what a report says about it.

    Args:
        reader: Its version.
        other: As of :class:`Terms`.
        lost: Fields.
        left: As of :class:`Terms`.
    """
    told = [f"states are written for version {reader}: {', '.join(other)}"] if other else []
    told += [f"version {reader} has no place for {path}" for path in lost]
    return told + [
        f"version {reader} does not know {name}, which is as at the start" for name in left
    ]
