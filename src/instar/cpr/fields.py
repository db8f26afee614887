"""The kinds of fields that a state can have: each knows its default, its limits and its record form.

State classes import the declaring functions from :mod:`instar.cpr.state`, which adds nested states.
"""

from __future__ import annotations

from instar.cpr.errors import StateInvalidError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final, Protocol, TypeVar

    T = TypeVar("T")

    class FdKeeper(Protocol):
        """What carries the descriptors of ``fd`` fields (``instar.cpr.fds.Fds``)."""

        def resave(self, name: str, ident: int, fd: int, /, *, owner: str) -> None:
            """Keep ``fd`` under this name, replacing an earlier one."""
            ...

        def take(self, name: str, ident: int, /) -> int:
            """Hand out the descriptor and forget it; -1 if there is none."""
            ...


MAX_BITS: Final = 64  # the encoding's widest integer
MAX_ITEMS: Final = 1 << 20  # a list in a state is a table of a device, never bulk data
MAX_BYTES: Final = 1 << 24  # same for blobs and texts: RAM travels in bulk sections


class Context:
    """What saving and loading hand down to the fields: descriptors and wished versions."""

    __slots__ = ("fds", "owner", "versions")

    def __init__(self, fds: FdKeeper | None, owner: str, versions: Mapping[str, int]) -> None:
        self.fds = fds
        self.owner = owner
        self.versions = versions


class Field:
    """One declared field; its subclasses are the kinds."""

    __slots__ = ("doc", "name", "optional", "since", "unit", "wire")

    def __init__(self, wire: str) -> None:
        self.wire = wire  # the kind and its limits in canonical form, as "u32" or "u8[<=64]"
        self.name = self.doc = self.unit = ""
        self.since = 1
        self.optional = False  # a reader that does not know the name keeps it and goes on

    def reset(self) -> object:
        """Return a fresh default value."""
        raise NotImplementedError

    def load(self, path: str, value: object, _context: Context) -> object:
        """Return the live value for ``value`` of a record, or raise StateInvalidError."""
        self.verify(path, value)
        return value

    def save(self, path: str, value: object, _context: Context) -> object:
        """Return a copy for a record; a live value that no loader would take is refused here."""
        self.verify(path, value)
        return value

    def verify(self, path: str, value: object) -> None:
        """Raise StateInvalidError unless ``value`` is one of this kind."""
        raise NotImplementedError

    def refuse(self, path: str, value: object) -> StateInvalidError:
        """Return the error that says that ``value`` is not of this kind."""
        return StateInvalidError(f"{path}: {short(value)} is not {self.wire}", path)


class _Int(Field):
    __slots__ = ("_default", "_high", "_low")

    def __init__(self, low: int, high: int, wire: str, default: int) -> None:
        super().__init__(wire)
        self._low, self._high, self._default = low, high, default
        if type(default) is not int or not low <= default <= high:
            raise TypeError(f"default {default!r} is not {wire}")

    def reset(self) -> object:
        return self._default

    def verify(self, path: str, value: object) -> None:
        if type(value) is not int or not self._low <= value <= self._high:  # True is no number
            raise self.refuse(path, value)


class _Flag(Field):
    __slots__ = ("_default",)

    def __init__(self, *, default: bool) -> None:
        super().__init__("flag")
        self._default = default

    def reset(self) -> object:
        return self._default

    def verify(self, path: str, value: object) -> None:
        if value is not True and value is not False:
            raise self.refuse(path, value)


class _Text(Field):
    __slots__ = ("_max",)

    def __init__(self, limit: int) -> None:
        super().__init__(f"text<={_checked(limit, MAX_BYTES)}")
        self._max = limit

    def reset(self) -> object:
        return ""

    def verify(self, path: str, value: object) -> None:
        if type(value) is not str:
            raise self.refuse(path, value)
        try:
            size = len(value.encode())
        except UnicodeEncodeError:  # half of a surrogate pair
            raise self.refuse(path, value) from None
        if size > self._max:
            raise StateInvalidError(f"{path}: {size} bytes, limit {self._max}", path)


class _Blob(Field):
    __slots__ = ("_max",)

    def __init__(self, limit: int) -> None:
        super().__init__(f"blob<={_checked(limit, MAX_BYTES)}")
        self._max = limit

    def reset(self) -> object:
        return b""

    def verify(self, path: str, value: object) -> None:
        if type(value) is not bytes:
            raise self.refuse(path, value)
        if len(value) > self._max:
            raise StateInvalidError(f"{path}: {len(value)} bytes, limit {self._max}", path)


class _Many(Field):
    """A list of unsigned integers, of fixed length or up to a limit."""

    __slots__ = ("_bits", "_max", "_min")

    def __init__(self, bits: int, length: int | None, most: int | None) -> None:
        if (length is None) == (most is None):
            raise TypeError("a list of numbers has either length= or max=")
        self._max = _checked(length or most or 0, MAX_ITEMS)
        self._min = length or 0
        self._bits = bits
        super().__init__(f"u{bits}[{'' if length else '<='}{self._max}]")

    def reset(self) -> object:
        return [0] * self._min

    def load(self, path: str, value: object, _context: Context) -> object:
        return self._copy(path, value)

    def save(self, path: str, value: object, _context: Context) -> object:
        return self._copy(path, value)

    def verify(self, path: str, value: object) -> None:
        self._copy(path, value)

    def _copy(self, path: str, value: object) -> list[int]:
        found = items(self, path, value, self._min, self._max)
        numbers = [item for item in found if type(item) is int]  # True is no number
        if len(numbers) == len(found) and not (
            numbers and (min(numbers) < 0 or max(numbers) >> self._bits)
        ):
            return numbers
        raise self._refuse_item(path, found)

    def _refuse_item(self, path: str, found: list[object]) -> StateInvalidError:
        for n, item in enumerate(found):
            if type(item) is not int or item < 0 or item >> self._bits:
                where = f"{path}[{n}]"
                return StateInvalidError(f"{where}: {short(item)} is not u{self._bits}", where)
        return self.refuse(path, found)


class _Fd(Field):
    """A descriptor: its name in the record, itself in the carrier; "" and -1 are none."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__("fd")

    def reset(self) -> object:
        return -1

    def verify(self, path: str, value: object) -> None:
        if type(value) is not int or value < -1:
            raise self.refuse(path, value)

    def save(self, path: str, value: object, context: Context) -> object:
        if type(value) is not int or value < -1:
            raise self.refuse(path, value)
        if value == -1:
            return ""
        if context.fds is None:
            raise StateInvalidError(f"{path}: this channel cannot carry a descriptor", path)
        name = f"{context.owner}.{path.partition('.')[2]}" if context.owner else path
        context.fds.resave(name, 0, value, owner=context.owner)
        return name

    def load(self, path: str, value: object, context: Context) -> object:
        if type(value) is not str:
            raise self.refuse(path, value)
        if not value:
            return -1
        fd = context.fds.take(value, 0) if context.fds else -1
        if fd < 0:
            raise StateInvalidError(f"{path}: descriptor {short(value)} did not arrive", path)
        return fd


def u(
    bits: int,
    doc: str,
    *,
    unit: str = "",
    since: int = 1,
    default: int = 0,
    optional: bool = False,
) -> int:
    """Declare an unsigned integer.

    Args:
        bits: Width, 1 to 64; a value that does not fit is refused.
        doc: What the guest (or the client) sees in it.
        unit: ``"bytes"``, ``"ns"``, ... printed in the reference.
        since: State version that introduced the name.
        default: Value of the reset state.
        optional: A program that does not know the field may go on without it; it needs no new version.
    """
    field = _Int(0, (1 << _checked(bits, MAX_BITS)) - 1, f"u{bits}", default)
    return declared(field, default, doc, since, unit, optional)


def i(
    bits: int,
    doc: str,
    *,
    unit: str = "",
    since: int = 1,
    default: int = 0,
    optional: bool = False,
) -> int:
    """Declare a signed integer of ``bits`` width (two's complement); otherwise like :func:`u`."""
    half = 1 << (_checked(bits, MAX_BITS) - 1)
    field = _Int(-half, half - 1, f"i{bits}", default)
    return declared(field, default, doc, since, unit, optional)


def flag(doc: str, *, since: int = 1, default: bool = False, optional: bool = False) -> bool:
    """Declare a truth value."""
    return declared(_Flag(default=default), default, doc, since, "", optional)


def text(doc: str, *, max: int, since: int = 1, optional: bool = False) -> str:  # noqa: A002 - the contract's word
    """Declare a text of at most ``max`` bytes of UTF-8; the default is empty."""
    return declared(_Text(max), "", doc, since, "bytes", optional)


def blob(doc: str, *, max: int, since: int = 1, optional: bool = False) -> bytes:  # noqa: A002 - the contract's word
    """Declare at most ``max`` bytes; the default is empty."""
    return declared(_Blob(max), b"", doc, since, "bytes", optional)


def us(  # noqa: PLR0913 - all but two are keywords
    bits: int,
    doc: str,
    *,
    length: int | None = None,
    max: int | None = None,  # noqa: A002 - the contract's word
    unit: str = "",
    since: int = 1,
    optional: bool = False,
) -> list[int]:
    """Declare a list of unsigned integers: exactly ``length`` zeros, or up to ``max`` (empty)."""
    none: list[int] = []
    field = _Many(_checked(bits, MAX_BITS), length, max)
    return declared(field, none, doc, since, unit, optional)


def fd(doc: str, *, since: int = 1) -> int:
    """Declare a descriptor, carried by whichever carrier is in use; -1 is none."""
    return declared(_Fd(), -1, doc, since)


if TYPE_CHECKING:

    def declared(
        field: Field,
        like: T,
        doc: str,
        since: int,
        unit: str = "",
        optional: bool = False,  # noqa: FBT001, FBT002 - passed on by the functions above
    ) -> T:  # pyright: ignore[reportUnusedParameter]
        """Describe ``field``; checkers see a value as ``like``, at run time it is the field."""
        raise NotImplementedError
else:

    def declared(
        field: Field,
        _like: object,
        doc: str,
        since: int,
        unit: str = "",
        optional: bool = False,  # noqa: FBT001, FBT002
    ) -> Field:
        """Describe ``field``; checkers see a value as ``like``, at run time it is the field."""
        if not doc:
            raise TypeError("a field needs a sentence that says what it is")
        field.doc, field.since, field.unit, field.optional = doc, since, unit, optional
        return field


def items(field: Field, path: str, value: object, least: int, most: int) -> list[object]:
    """Return ``value`` as a list of ``least`` to ``most`` items, or raise StateInvalidError."""
    if not isinstance(value, list):
        raise field.refuse(path, value)
    found: list[object] = value  # pyright: ignore[reportUnknownVariableType]
    if not least <= len(found) <= most:
        raise StateInvalidError(f"{path}: {len(found)} items, expected {field.wire}", path)
    return found


def short(value: object) -> str:
    """Return ``value`` for a message; it may be hostile, so never more than 48 characters."""
    if isinstance(value, str | bytes | list | dict | int) and not isinstance(value, bool):
        if isinstance(value, int):
            return repr(value) if abs(value) < 1 << 64 else "an integer of over 64 bits"
        if isinstance(value, list | dict):
            return f"a {type(value).__name__}"  # pyright: ignore[reportUnknownArgumentType]
        value = value[:48]
    shown = repr(value)
    return shown if len(shown) <= 48 else f"{shown[:45]}..."


def _checked(number: int, most: int) -> int:
    if not 1 <= number <= most:
        raise TypeError(f"{number} is not in 1..{most}")
    return number
