"""Named descriptors: what crosses an update, by name and id, with proof that it is still the same thing.

Descriptors that are not in the table stay close-on-exec and end with the old program.
"""

from __future__ import annotations

import os

from instar.cpr.errors import DescriptorError, PeerError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Final

    from instar.cpr.group import Group

    Key = tuple[str, int]
    Identity = dict[str, object]

MAX_NAME: Final = 255  # bytes of UTF-8
MAX_ID: Final = (1 << 31) - 1
MAX_ENTRIES: Final = 65536
_FIRST_FREE: Final = 3  # 0 to 2 are the standard streams
_FIELDS: Final = {
    "name": str,
    "id": int,
    "fd": int,
    "kind": str,
    "owner": str,
    "stream": bool,
    "identity": dict,
}
_MANY: Final = 100  # from here on compiled code saves more than it costs to have it
_GROUP_FIELDS: Final = frozenset(("name", "kind", "owner", "numbers", "identities"))
_TYPE_MASK: Final = 0o170000  # S_IFMT


class Entry:
    """One named descriptor.

    ``kind`` and ``owner`` are for people and reports; ``claimed`` turns true when somebody found it; ``stream`` is
    true for a standard stream, which children may inherit (all others are close-on-exec outside ``exec``).
    """

    __slots__ = ("claimed", "fd", "ident", "identity", "kind", "name", "owner", "stream")

    def __init__(self, name: str, ident: int, fd: int, kind: str, owner: str) -> None:
        self.name = name
        self.ident = ident
        self.fd = fd
        self.kind = kind
        self.owner = owner
        self.identity: Identity = {}
        self.stream = False
        self.claimed = True  # entries that arrived from another program begin unclaimed

    def __repr__(self) -> str:
        return f"{self.label} (fd {self.fd})"

    @property
    def label(self) -> str:
        """Its name and id, for people."""
        return f"{self.name}/{self.ident}"


class Fds:
    """A table of named descriptors; the key is (name, id), a descriptor has one name only.

    Where there are thousands of one kind, as a service's connections, they go into a :meth:`group`. The table names
    descriptors, it does not own them: nothing but :meth:`close_unclaimed` closes one.
    """

    __slots__ = ("_entries", "_groups", "_names")

    def __init__(self) -> None:
        self._entries: dict[Key, Entry] = {}
        self._groups: dict[str, Group] = {}
        self._names: dict[int, Key] = {}  # by descriptor

    def save(self, name: str, ident: int, fd: int, /, *, kind: str = "", owner: str = "") -> None:
        """Keep ``fd`` through the next updates.

        Args:
            name: 1 to 255 bytes, no control characters.
            ident: 0 to 2**31 - 1; tells several of one name apart.
            fd: An open descriptor.
            kind: What it is, as ``"memory"``.
            owner: Who keeps it, as ``"memory backends"``.

        Raises:
            DescriptorError: The name or the descriptor is taken, the descriptor is not open, or a
                limit is exceeded; the table is unchanged.
        """
        if (name, ident) in self._entries:
            raise DescriptorError(f"descriptor {name}/{ident} is already kept; nothing changed")
        self._put(name, ident, fd, kind, owner)

    def resave(
        self, name: str, ident: int, fd: int, /, *, kind: str = "", owner: str = ""
    ) -> None:
        """Keep ``fd`` under this name, replacing an earlier one (which stays open); as :meth:`save`."""
        self._put(name, ident, fd, kind, owner)

    def group(self, name: str, /, *, kind: str = "", owner: str = "") -> Group:
        """Return the group of that name, claimed: as the old program left it, or empty.

        Args:
            name: As for :meth:`save`; groups and single descriptors do not share names.
            kind: As for :meth:`save`; of an empty one.
            owner: As well.

        Raises:
            DescriptorError: The name is none; nothing changed.
        """
        found = self._groups.get(name)
        if found is None:
            from instar.cpr.group import Group  # noqa: PLC0415 - by need

            _check_texts(name, kind, owner)
            found = self._groups[name] = Group(name, kind, owner, self._label_of)
        found.claimed = True
        return found

    def find(self, name: str, ident: int, /) -> int:
        """Return the descriptor of that name and claim it; -1 if there is none."""
        entry = self._entries.get((name, ident))
        if entry is None:
            return -1
        entry.claimed = True
        return entry.fd

    def take(self, name: str, ident: int, /) -> int:
        """Return the descriptor and forget it: the caller owns it alone; -1 if there is none."""
        fd = self.find(name, ident)
        self.delete(name, ident)
        return fd

    def delete(self, name: str, ident: int, /) -> bool:
        """Forget the name; the descriptor stays open. False if there was none."""
        entry = self._entries.pop((name, ident), None)
        if entry is None:
            return False
        del self._names[entry.fd]
        return True

    def walk(self, owner: str = "") -> Iterator[Entry]:
        """Yield the single entries in the order of their keys; naming an owner claims what it yields."""
        for key in sorted(self._entries):
            entry = self._entries[key]
            if not owner:
                yield entry
            elif entry.owner == owner:
                entry.claimed = True
                yield entry

    def copy(self) -> Fds:
        """Return a table of its own with the same entries and groups."""
        made = Fds()
        made._entries = dict(self._entries)
        made._names = dict(self._names)
        made._groups = {name: group.copy(made._label_of) for name, group in self._groups.items()}
        return made

    def members(self) -> dict[int, object]:
        """Return the descriptors of all groups; what comes with one is the same object while it is the same file."""
        found: dict[int, object] = {}
        for group in self._groups.values():
            found.update(group.members)
        return found

    def numbers(self) -> list[int]:
        """Return all descriptors."""
        return [entry.fd for entry in self._entries.values()] + self.member_numbers()

    def member_numbers(self) -> list[int]:
        """Return the descriptors of all groups, without what :meth:`members` tells of them."""
        return [fd for group in self._groups.values() for fd in group]

    def unclaimed(self) -> list[Entry | Group]:
        """Return what arrived from another program and nobody has asked for."""
        left: list[Entry | Group] = [entry for entry in self.walk() if not entry.claimed]
        return left + [group for group in self._groups.values() if not group.claimed]

    def close_unclaimed(self) -> list[str]:
        """Close and forget what nobody has asked for; return its labels for the report."""
        left = [entry for entry in self.walk() if not entry.claimed]
        for entry in left:
            self.delete(entry.name, entry.ident)
            os.close(entry.fd)
        groups = [group for group in self._groups.values() if not group.claimed]
        for group in groups:
            del self._groups[group.name]
            for fd in group:
                os.close(fd)
        return [entry.label for entry in left] + [group.label for group in groups]

    def verify(self) -> None:
        """Check that every single descriptor is open and is still what it was when it was saved.

        Raises:
            DescriptorError: Somebody closed or reused one behind our back; nothing changed.
        """
        for entry in self.walk():
            _verify(entry)

    def verify_members(self) -> None:
        """As :meth:`verify`, of groups; a pause has no time for it, and the next program does it anyway."""
        for group in self._groups.values():
            group.verify()

    def to_record(self) -> list[object]:
        """Return the table for another program (see :meth:`from_record`)."""
        rows: list[object] = [
            {
                "name": entry.name,
                "id": entry.ident,
                "fd": entry.fd,
                "kind": entry.kind,
                "owner": entry.owner,
                "stream": entry.stream,
                "identity": entry.identity,
            }
            for entry in self.walk()
        ]
        return rows + [group.to_record() for group in self._groups.values() if group]

    @classmethod
    def from_record(cls, record: object) -> Fds:
        """Make the table that another program wrote; everything begins unclaimed.

        Raises:
            PeerError: The record is not a table (hostile or damaged).
            DescriptorError: A descriptor is not open or is not what it was.
        """
        if not isinstance(record, list):
            raise PeerError("the table of descriptors is not a list; nothing was adopted")
        table = cls()
        rows: list[object] = record  # pyright: ignore[reportUnknownVariableType]
        for n, row in enumerate(rows):
            if _is_group(row):
                table._adopt_group(row, n)
                continue
            entry = _entry_of(row, n)
            if (entry.name, entry.ident) in table._entries:
                raise PeerError(f"descriptor {entry!r} arrived twice; nothing was adopted")
            table._put(entry.name, entry.ident, entry.fd, entry.kind, entry.owner)
            _verify(entry)
            entry.claimed = False
            table._entries[entry.name, entry.ident] = entry
        if table._groups:
            table._check_once()
        return table

    def _adopt_group(self, row: object, n: int) -> None:
        from instar.cpr.group import FIELDS, Group  # noqa: PLC0415 - by need

        fields: dict[str, object] = row  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
        _check_kinds(fields, FIELDS, n)
        _check_texts(str(fields["name"]), str(fields["kind"]), str(fields["owner"]))
        group = Group.from_record(fields, self._label_of)
        if group.name in self._groups:
            raise PeerError(f"descriptors {group.label} arrived twice; nothing was adopted")
        self._groups[group.name] = group

    def _label_of(self, fd: int) -> str:
        """Return the name that a descriptor has; "" if it has none."""
        if fd in self._names:
            name, ident = self._names[fd]
            return f"{name}/{ident}"
        return next((group.label for group in self._groups.values() if fd in group), "")

    def _check_once(self) -> None:
        """Refuse a table that has a descriptor under two names; of each group it is known already."""
        numbers = self.numbers()
        if len(set(numbers)) != len(numbers):
            raise PeerError("the table of descriptors has one of them twice; nothing was adopted")

    def _put(self, name: str, ident: int, fd: int, kind: str, owner: str) -> None:
        key = (name, ident)
        _check_texts(name, kind, owner)
        if not 0 <= ident <= MAX_ID:
            raise DescriptorError(
                f"descriptor {name}: id {ident}, limit {MAX_ID}; nothing changed"
            )
        taken = "" if self._names.get(fd) == key else self._label_of(fd)
        if taken:
            raise DescriptorError(f"descriptor {fd} is already kept as {taken}; nothing changed")
        if len(self._entries) >= MAX_ENTRIES and key not in self._entries:
            raise DescriptorError(
                f"{name}/{ident}: {MAX_ENTRIES} descriptors are the limit; nothing changed"
            )
        entry = Entry(name, ident, fd, kind, owner)
        entry.identity = identity_of(entry)
        entry.stream = fd < _FIRST_FREE and os.get_inheritable(fd)
        self.delete(name, ident)
        self._entries[key] = entry
        self._names[fd] = key


def _check_texts(name: str, kind: str, owner: str) -> None:
    for label, text, least in (("name", name, 1), ("kind", kind, 0), ("owner", owner, 0)):
        size = len(text.encode(errors="replace"))
        if not least <= size <= MAX_NAME or not text.isprintable():
            want = f"{least} to {MAX_NAME} printable bytes"
            raise DescriptorError(f"descriptor {label} {text[:48]!r}: not {want}; nothing changed")


def identity_of(entry: Entry) -> Identity:
    """Return what tells the open file apart from others: device, inode, type, and more if it has some.

    Anonymous inodes (eventfd, epoll, timerfd) all share one inode; there the kernel's label and an
    eventfd's own id are what is available, and only where /proc is mounted.

    Raises:
        DescriptorError: The descriptor is not open.
    """
    try:
        found = os.fstat(entry.fd)
    except (OSError, OverflowError) as exc:
        raise DescriptorError(f"descriptor {entry!r} is not open; nothing changed") from exc
    kind = found.st_mode & _TYPE_MASK
    identity: Identity = {"dev": found.st_dev, "ino": found.st_ino, "type": kind}
    if kind:
        identity["rdev"] = found.st_rdev
    else:
        identity["label"] = _anonymous_label(entry.fd)
    return identity


def _anonymous_label(fd: int) -> str:
    try:
        label = os.readlink(f"/proc/self/fd/{fd}")
        if label != "anon_inode:[eventfd]":
            return label
        with open(f"/proc/self/fdinfo/{fd}", "rb") as info:
            lines = [
                line for line in info.read(4096).splitlines() if line.startswith(b"eventfd-id")
            ]
        return label + b"".join(lines).decode("ascii", "replace")
    except OSError:
        return ""


def set_cloexec(numbers: list[int], *, on: bool) -> None:
    """Set or clear close-on-exec of each; every one is tried, for one left inheritable would leak into each child.

    Raises:
        OSError: What the kernel said of the first that failed.
    """
    if len(numbers) > _MANY:
        try:
            from instar.cpr._descriptors import set_cloexec as compiled  # noqa: PLC0415 - by need
        except ImportError:
            pass
        else:
            from array import array  # noqa: PLC0415 - by need

            compiled(array("i", numbers), on)
            return
    failed: OSError | None = None
    for fd in numbers:
        try:
            os.set_inheritable(fd, not on)
        except OSError as exc:
            failed = failed or exc
    if failed is not None:
        raise failed


def _verify(entry: Entry) -> None:
    now = identity_of(entry)
    if now != entry.identity:
        raise DescriptorError(
            f"descriptor {entry!r} is not what was saved: expected {entry.identity}, found {now}; nothing changed"
        )


def _is_group(row: object) -> bool:
    return isinstance(row, dict) and row.keys() == _GROUP_FIELDS  # pyright: ignore[reportUnknownMemberType]


def _entry_of(row: object, n: int) -> Entry:
    if not isinstance(row, dict) or set(row) != set(_FIELDS):  # pyright: ignore[reportUnknownArgumentType]
        raise PeerError(f"row {n} of the table of descriptors is malformed; nothing was adopted")
    fields: dict[str, object] = row  # pyright: ignore[reportUnknownVariableType]
    _check_kinds(fields, _FIELDS, n)
    entry = Entry("", 0, -1, "", "")
    for key in _FIELDS:
        setattr(entry, "ident" if key == "id" else key, fields[key])
    return entry


def _check_kinds(fields: dict[str, object], kinds: Mapping[str, type], n: int) -> None:
    for key, kind in kinds.items():
        if type(fields[key]) is not kind:  # True is not a number
            raise PeerError(f"row {n} of the table of descriptors: bad {key}; nothing was adopted")
