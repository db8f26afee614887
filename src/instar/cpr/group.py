"""Many descriptors under one name, as the connections of a service: each adds next to nothing to the pause.

A group crosses as two arrays, numbers and identities, and is checked by one comparison of bytes. Where the compiled
part is missing the same is done in Python.

Source: own; docs/decisions/0011.
"""

from __future__ import annotations

import os
from array import array
from struct import Struct

from instar.cpr.errors import DescriptorError, PeerError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Final

MAX_MEMBERS: Final = 1 << 20  # of one group; Linux allows a process no more by default
FIELDS: Final = {"name": str, "kind": str, "owner": str, "numbers": bytes, "identities": bytes}
_INT: Final = 4
_IDENTITY: Final = Struct("=4Q")  # device, inode, special device, type
_ONE: Final = Struct("32s")
_CLOSED: Final = b"\xff" * _IDENTITY.size
_TYPE_MASK: Final = 0o170000  # S_IFMT


class Group:
    """Open files of one kind, without order; made by :meth:`instar.cpr.fds.Fds.group`.

    Like the table it belongs to it names descriptors and does not own them: whoever closes one discards it first.
    ``kind`` and ``owner`` are for people and reports; ``claimed`` turns true when somebody asked for the group.
    """

    __slots__ = (
        "_arrived",
        "_identities",
        "_label_of",
        "_made",
        "claimed",
        "kind",
        "name",
        "owner",
    )

    def __init__(self, name: str, kind: str, owner: str, label_of: Callable[[int], str]) -> None:
        self.name = name
        self.kind = kind
        self.owner = owner
        self.claimed = True
        self._label_of = label_of  # the name that a descriptor has in the whole table, "" if none
        self._made: dict[int, tuple[bytes]] | None = {}  # identity by number
        # What came from another program is put in there when somebody changes it or looks for one: after the pause.
        self._arrived = array("i")
        self._identities = b""

    def __repr__(self) -> str:
        return f"{self.name} ({len(self)} of them)"

    @property
    def label(self) -> str:
        """Its name, for people."""
        return self.name

    def __len__(self) -> int:
        return len(self._arrived if self._made is None else self._made)

    def __contains__(self, fd: object) -> bool:
        return fd in self.members

    def __iter__(self) -> Iterator[int]:
        return iter(self._arrived if self._made is None else self._made)

    @property
    def members(self) -> dict[int, tuple[bytes]]:
        """Its descriptors, each with what tells its file apart: another object after it was added again."""
        if self._made is None:
            pairs = zip(self._arrived, _ONE.iter_unpack(self._identities), strict=True)
            self._made = dict(pairs)
            self._arrived, self._identities = array("i"), b""
        return self._made

    def add(self, fd: int, /) -> None:
        """Keep ``fd``, an open file, socket or pipe, through the next updates.

        Raises:
            DescriptorError: It is not open, has a name, is one of the kernel's anonymous files (an eventfd: save it
                by a name of its own), or the group is full; nothing changed.
        """
        if taken := self._label_of(fd):
            text = f"descriptor {fd} is already kept as {taken}"
            raise DescriptorError(f"{text}; nothing changed")
        if len(self) >= MAX_MEMBERS:
            text = f"{self.name}: {MAX_MEMBERS} descriptors are the limit"
            raise DescriptorError(f"{text}; nothing changed")
        try:
            found = os.fstat(fd)
        except (OSError, OverflowError) as exc:
            raise DescriptorError(f"descriptor {fd} is not open; nothing changed") from exc
        kind = found.st_mode & _TYPE_MASK
        if not kind:
            text = f"descriptor {fd} is an anonymous file of the kernel's, which no group takes"
            raise DescriptorError(f"{text}; nothing changed")
        identity = _IDENTITY.pack(found.st_dev, found.st_ino, found.st_rdev, kind)
        self.members[fd] = (identity,)

    def discard(self, fd: int, /) -> bool:
        """Forget ``fd``, which stays open; false if it was not in the group."""
        return self.members.pop(fd, None) is not None

    def copy(self, label_of: Callable[[int], str]) -> Group:
        """Return a group with the same members, for another table."""
        made = Group(self.name, self.kind, self.owner, label_of)
        made.claimed = self.claimed
        made._made = dict(self.members)
        return made

    def verify(self) -> None:
        """Check that every member is still what it was when it was added.

        Raises:
            DescriptorError: Somebody closed or reused one behind our back; nothing changed.
        """
        members = self.members
        self._check(array("i", members), b"".join(identity for (identity,) in members.values()))

    def to_record(self) -> dict[str, object]:
        """Return the group for another program (see :meth:`from_record`)."""
        members = self.members
        return {
            "name": self.name,
            "kind": self.kind,
            "owner": self.owner,
            "numbers": array("i", members).tobytes(),
            "identities": b"".join(identity for (identity,) in members.values()),
        }

    @classmethod
    def from_record(cls, fields: dict[str, object], label_of: Callable[[int], str]) -> Group:
        """Make the group that another program wrote, unclaimed.

        Args:
            fields: Of the kinds in ``FIELDS``; untrusted.
            label_of: Of the table that it will belong to.

        Raises:
            PeerError: The record is no group, or has a descriptor twice; nothing was adopted.
            DescriptorError: One is not open or is not what it was.
        """
        made = cls(str(fields["name"]), str(fields["kind"]), str(fields["owner"]), label_of)
        what = f"descriptors {made.name}"
        raw, identities = fields["numbers"], fields["identities"]
        assert isinstance(raw, bytes)
        assert isinstance(identities, bytes)
        count = len(raw) // _INT
        if len(raw) % _INT or len(identities) != count * _IDENTITY.size or count > MAX_MEMBERS:
            text = f"{len(raw)} bytes of numbers and {len(identities)} of identities"
            raise PeerError(f"{what}: {text}; nothing was adopted")
        numbers = array("i", raw)
        if min(numbers, default=0) < 0:
            raise PeerError(f"{what}: {min(numbers)} is not a descriptor; nothing was adopted")
        if len(set(numbers)) != count:
            raise PeerError(f"{what}: one of them arrived twice; nothing was adopted")
        made._check(numbers, identities)
        made._made, made._arrived, made._identities = None, numbers, identities
        made.claimed = False
        return made

    def _check(self, numbers: array[int], expected: bytes) -> None:
        found = identities_of(numbers)
        if found == expected:
            return
        rows = zip(numbers, _ONE.iter_unpack(found), _ONE.iter_unpack(expected), strict=True)
        wrong = [number for number, now, before in rows if now != before]
        closed = identities_of(array("i", wrong[:1])) == _CLOSED
        why = "is not open" if closed else "is not what was saved"
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise DescriptorError(
            f"descriptor {wrong[0]} of {self.name} {why}{more}; nothing changed"
        ).hint("discard a descriptor from its group before it is closed")


def identities_of(numbers: array[int]) -> bytes:
    """Return 32 bytes for each of the descriptors (int32): what tells its file apart, all ones if it is not open."""
    try:
        from instar.cpr._descriptors import identities  # noqa: PLC0415 - where there are any
    except ImportError:
        return b"".join(map(_identity_of, numbers))
    return identities(numbers)


def _identity_of(fd: int) -> bytes:
    try:
        found = os.fstat(fd)
    except OSError:
        return _CLOSED
    return _IDENTITY.pack(found.st_dev, found.st_ino, found.st_rdev, found.st_mode & _TYPE_MASK)
