"""Named descriptors: what crosses an update, by name and id, with proof that it is still the same thing.

Descriptors that are not in the table stay close-on-exec and end with the old program.
"""

from __future__ import annotations

import fcntl
import os

from instar.cpr.errors import DescriptorError, PeerError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final

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
        return f"{self.name}/{self.ident} (fd {self.fd})"


class Fds:
    """A table of named descriptors; the key is (name, id), a descriptor has one name only.

    The table names descriptors, it does not own them: nothing but :meth:`close_unclaimed` closes one.
    """

    __slots__ = ("_entries", "_names")

    def __init__(self) -> None:
        self._entries: dict[Key, Entry] = {}
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
        """Yield the entries in the order of their keys; naming an owner claims what it yields."""
        for key in sorted(self._entries):
            entry = self._entries[key]
            if not owner:
                yield entry
            elif entry.owner == owner:
                entry.claimed = True
                yield entry

    def copy(self) -> Fds:
        """Return a table of its own with the same entries."""
        made = Fds()
        made._entries = dict(self._entries)
        made._names = dict(self._names)
        return made

    def unclaimed(self) -> list[Entry]:
        """Return what arrived from another program and nobody has asked for."""
        return [entry for entry in self.walk() if not entry.claimed]

    def close_unclaimed(self) -> list[Entry]:
        """Close and forget what nobody has asked for; return it for the report."""
        left = self.unclaimed()
        for entry in left:
            self.delete(entry.name, entry.ident)
            os.close(entry.fd)
        return left

    def verify(self) -> None:
        """Check that every descriptor is open and is still what it was when it was saved.

        Raises:
            DescriptorError: Somebody closed or reused one behind our back; nothing changed.
        """
        for entry in self.walk():
            _verify(entry)

    def to_record(self) -> list[object]:
        """Return the table for another program (see :meth:`from_record`)."""
        return [
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

    @classmethod
    def from_record(cls, record: object) -> Fds:
        """Make the table that another program wrote; every entry begins unclaimed.

        Raises:
            PeerError: The record is not a table (hostile or damaged).
            DescriptorError: A descriptor is not open or is not what it was.
        """
        if not isinstance(record, list):
            raise PeerError("the table of descriptors is not a list; nothing was adopted")
        table = cls()
        rows: list[object] = record  # pyright: ignore[reportUnknownVariableType]
        for n, row in enumerate(rows):
            entry = _entry_of(row, n)
            if (entry.name, entry.ident) in table._entries:
                raise PeerError(f"descriptor {entry!r} arrived twice; nothing was adopted")
            table._put(entry.name, entry.ident, entry.fd, entry.kind, entry.owner)
            _verify(entry)
            entry.claimed = False
            table._entries[entry.name, entry.ident] = entry
        return table

    def _put(self, name: str, ident: int, fd: int, kind: str, owner: str) -> None:
        key = (name, ident)
        _check_texts(name, kind, owner)
        if not 0 <= ident <= MAX_ID:
            raise DescriptorError(
                f"descriptor {name}: id {ident}, limit {MAX_ID}; nothing changed"
            )
        other = self._names.get(fd, key)
        if other != key:
            taken = f"{other[0]}/{other[1]}"
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


def set_cloexec(fd: int, *, on: bool) -> None:
    """Set or clear close-on-exec of ``fd``."""
    flags = fcntl.fcntl(fd, fcntl.F_GETFD)
    wanted = flags | fcntl.FD_CLOEXEC if on else flags & ~fcntl.FD_CLOEXEC
    if wanted != flags:
        fcntl.fcntl(fd, fcntl.F_SETFD, wanted)


def _verify(entry: Entry) -> None:
    now = identity_of(entry)
    if now != entry.identity:
        raise DescriptorError(
            f"descriptor {entry!r} is not what was saved: expected {entry.identity}, found {now}; nothing changed"
        )


def _entry_of(row: object, n: int) -> Entry:
    if not isinstance(row, dict) or set(row) != set(_FIELDS):  # pyright: ignore[reportUnknownArgumentType]
        raise PeerError(f"row {n} of the table of descriptors is malformed; nothing was adopted")
    fields: dict[str, object] = row  # pyright: ignore[reportUnknownVariableType]
    entry = Entry("", 0, -1, "", "")
    for key, kind in _FIELDS.items():
        if type(fields[key]) is not kind:  # True is not a number
            raise PeerError(f"row {n} of the table of descriptors: bad {key}; nothing was adopted")
        setattr(entry, "ident" if key == "id" else key, fields[key])
    return entry
