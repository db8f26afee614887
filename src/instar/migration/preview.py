"""A look ahead in cpr-transfer: most of the state goes over while the guest still runs.

The source sends what its machine's state is, and the target checks all of it. When the guest stands still, only what is
otherwise by then is sent and checked; of all else the state proper says that it is the same. On an idle guest that is
everything but the processors.

Not on the resume path. Source: own; docs/decisions/0010.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from instar._version import VERSION
from instar.cpr.errors import CprError, StateInvalidError
from instar.cpr.fds import Fds
from instar.cpr.stream import Reader
from instar.cpr.writer import Writer
from instar.migration.copies import guest_things
from instar.migration.saving import sections
from instar.migration.sections import Loaded, read_sections

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Final

    from instar.cpr.state import Record
    from instar.migration.migration import Migration
    from instar.migration.saving import Section
    from instar.stateful import Stateful

MARK: Final = b"\x89PREVIEW"  # on the main channel in the place of a stream's first bytes
LENGTH: Final = 8  # bytes after it that say how long the stream is that follows, little-endian
SAME: Final = "same"  # in the manifest of the state proper: ids of objects that are as they were
ANSWER: Final = "previewed"  # in what the target says: whether it has read it


class Preview:
    """The source's half.

    Args:
        migration: Of the machine, which runs.
        versions: Of states, that the target reads.
    """

    def __init__(self, migration: Migration, versions: Mapping[str, int]) -> None:
        self._sent: dict[str, Section] = {}
        self._versions = versions
        self._migration = migration
        self._memfd = os.memfd_create("instar-preview", os.MFD_CLOEXEC)
        try:
            writer = Writer(self._memfd, program=VERSION, mode="cpr-transfer")
            for section in self._look():
                self._sent[section[0]] = section
                writer.add(*section)
            writer.finish()
        finally:
            size = os.fstat(self._memfd).st_size
            data = os.pread(self._memfd, size, 0)
            os.close(self._memfd)
        self.message = b"".join((MARK, size.to_bytes(LENGTH, "little"), data))

    def _look(self) -> list[Section]:
        # The processors run on. What they are will be otherwise anyway, and asking would have to stop them.
        migration = self._migration
        processors = {thing.state_id for thing in migration.machine.vcpus.states}
        things = [t for t in guest_things(migration) if t.state_id not in processors]
        with migration.machine.lock:
            return list(sections(things, Fds(), self._versions, peek=True))

    def practise(self) -> None:
        """Look once more, for nothing but that the host's caches know the way: then the pause is shorter."""
        self._look()

    def forget(self) -> None:
        """Send everything again: the target did not take it."""
        self._sent = {}

    def rest(self, writer: Writer, info: Record, things: Iterable[Stateful]) -> None:
        """Add to ``writer`` what is otherwise by now; the rest is named in ``info``, the manifest's.

        Raises:
            StateError: as for :func:`instar.migration.saving.write_sections`.
        """
        same: list[object] = []
        for section in sections(things, Fds(), self._versions):
            if self._sent.get(section[0]) == section:
                same.append(section[0])
            else:
                writer.add(*section)
        info[SAME] = same


def take(migration: Migration, fd: int, fds: Fds) -> Loaded | None:
    """Read and check what the source sent ahead; None if it cannot be taken: the state proper will say why.

    Args:
        migration: Of the machine that will be loaded.
        fd: Where it is.
        fds: The descriptors that came; they stay.
    """
    try:
        return read_sections(Reader(fd), guest_things(migration), fds.copy())
    except CprError:
        return None


def completed(
    before: Loaded | None, newer: Loaded, same: object, things: Iterable[Stateful]
) -> Loaded:
    """Return all state in the order of ``things``: ``newer``, and what is the ``same`` (untrusted) as ``before``.

    Raises:
        StateInvalidError: something should be the same that did not come; nothing was loaded.
    """
    known = {} if before is None else {thing.state_id: (thing, s) for thing, s in before.pairs}
    names: list[object] = same if isinstance(same, list) else [same]  # pyright: ignore[reportUnknownVariableType]
    missing = [name for name in names if name not in known]
    if missing:
        raise StateInvalidError(
            f"manifest: {missing[0]!r} should be as it was before, but it did not come; nothing was loaded"
        )
    found = {name: pair for name, pair in known.items() if name in names}
    found |= {thing.state_id: (thing, state) for thing, state in newer.pairs}
    order = [thing.state_id for thing in things]
    ordered = [found.pop(name) for name in order if name in found]
    return Loaded([*ordered, *found.values()])
