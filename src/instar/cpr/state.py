"""Declared, versioned state (sans-IO: no file, socket or clock is touched here).

A state class lists what must cross an update, field by field::

    @state("virtio-rng", version=2)
    class RngState(State):
        served: int = u(64, "Bytes given to the guest since reset.", unit="bytes")
        budget: int = u(32, "Bytes left in this period.", unit="bytes", since=2)

        @step(1, 2)
        @staticmethod
        def _add_budget(old: Record) -> Record:
            return {**old, "budget": QUOTA}

        @step(2, 1)  # lossy: the period restarts
        @staticmethod
        def _drop_budget(new: Record) -> Record:
            return {k: v for k, v in new.items() if k != "budget"}

Every field has a default, so ``RngState()`` is the reset state. Declarations are checked when the
class is made (``TypeError``), values when they are saved and when they are loaded. No dataclasses:
importing them costs more than everything that is done here.

The version counts what a reader has to know. A field without which an older program may go on is declared
``optional=True`` and needs neither a new version nor steps: it stands apart in the record, under ``"+"``, in every
version, unless it has its reset value. A reader that does not know it keeps it (``state_kept``) and writes it
out again. Any other unknown field is refused. docs/decisions/0009-state-versions.md has the rules.

Source: own; what to check was learnt from QEMU's vmstate and Rust's versionize.
"""

from __future__ import annotations

from instar.cpr.errors import StateInvalidError, StateTooNewError, StateTooOldError
from instar.cpr.fields import (
    MAX_ITEMS,
    Context,
    Field,
    blob,
    declared,
    fd,
    flag,
    i,
    items,
    short,
    text,
    u,
    us,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import ClassVar, Final, TypeVar, dataclass_transform

    from instar.cpr.fields import FdKeeper

    S = TypeVar("S", bound="State")
    Step = Callable[["Record"], "Record"]
else:

    def dataclass_transform(**_: object) -> Callable[[object], object]:
        """Do nothing: only checkers look at it."""
        return lambda decorator: decorator


__all__ = [
    "Record",
    "State",
    "blob",
    "fd",
    "flag",
    "i",
    "inner",
    "kept",
    "layout",
    "load",
    "optional_layout",
    "registry",
    "save",
    "state",
    "step",
    "sub",
    "subs",
    "text",
    "u",
    "us",
]

Record = dict[str, object]
MAX_NAME: Final = 64  # characters; the manifest lists every name
APART: Final = "+"  # key of the optional fields in a record; no field can have this name
MAX_KEPT: Final = 64  # unknown optional fields in one state; nobody adds more between two versions

_registry: Final[dict[str, type[State]]] = {}
_inner: Final[dict[tuple[type[State], int], dict[str, type[State]]]] = {}  # asked for in the pause


class _Sub(Field):
    """Another state inside this one; it keeps its own version in the record."""

    __slots__ = ("cls",)

    def __init__(self, cls: type[State]) -> None:
        super().__init__(f"state:{_declared_name(cls)}")
        self.cls = cls

    def reset(self) -> object:
        return self.cls()

    def save(self, path: str, value: object, context: Context) -> object:
        if type(value) is not self.cls:
            raise self.refuse(path, value)
        version = context.versions.get(self.cls.state_name, self.cls.state_version)
        return {"version": version, "fields": _save(value, version, path, context)}

    def load(self, path: str, value: object, context: Context) -> object:
        record = _record_of(path, value)
        if set(record) != {"version", "fields"}:
            raise self.refuse(path, record)
        return _load(self.cls, record["version"], record["fields"], path, context)


class _Subs(Field):
    """A list of other states, up to a limit."""

    __slots__ = ("_item", "_max", "cls")

    def __init__(self, cls: type[State], most: int) -> None:
        if not 1 <= most <= MAX_ITEMS:
            raise TypeError(f"{most} is not in 1..{MAX_ITEMS}")
        self._item = _Sub(cls)
        self.cls = cls
        self._max = most
        super().__init__(f"{self._item.wire}[<={most}]")

    def reset(self) -> object:
        empty: list[State] = []
        return empty

    def save(self, path: str, value: object, context: Context) -> object:
        found = enumerate(items(self, path, value, 0, self._max))
        return [self._item.save(f"{path}[{n}]", item, context) for n, item in found]

    def load(self, path: str, value: object, context: Context) -> object:
        found = enumerate(items(self, path, value, 0, self._max))
        return [self._item.load(f"{path}[{n}]", item, context) for n, item in found]


class StateMeta(type):
    """Turn declared fields into slots while the class is being made."""

    state_fields: Mapping[str, Field]
    state_needed: Mapping[str, Field]  # those that are not optional

    def __new__(
        mcls: type[StateMeta], name: str, bases: tuple[type, ...], body: dict[str, object]
    ) -> StateMeta:
        """Make the class; the fields' declarations leave its body and become its slots."""
        if bases and bases != (State,):
            raise TypeError(f"{name}: a state derives from State alone")
        fields = {key: value for key, value in body.items() if isinstance(value, Field)}
        for key, field in fields.items():
            del body[key]
            field.name = key
        slots = tuple(fields) if bases else ("state_kept",)
        made = super().__new__(mcls, name, bases, {**body, "__slots__": slots})
        made.state_fields = fields
        made.state_needed = {key: field for key, field in fields.items() if not field.optional}
        return made


class State(metaclass=StateMeta):
    """Base of every state record; declare with ``@state(name, version=...)``.

    ``state_kept`` has the optional fields that came with the record and that this program does not know.
    """

    state_kept: Record

    state_name: ClassVar[str] = ""
    state_version: ClassVar[int] = 0
    state_oldest: ClassVar[int] = 0
    state_ups: ClassVar[Mapping[int, Step]]
    state_downs: ClassVar[Mapping[int, Step]]

    def __init__(self, **values: object) -> None:
        for name, field in type(self).state_fields.items():
            setattr(self, name, values.pop(name) if name in values else field.reset())
        if values:
            raise TypeError(f"{type(self).__name__} has no field {', '.join(sorted(values))}")
        self.state_kept = {}

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        names = ("state_kept", *type(self).state_fields)
        return all(getattr(self, name) == getattr(other, name) for name in names)

    __hash__ = None  # type: ignore[assignment]  # it changes while the machine runs

    def __repr__(self) -> str:
        fields = ", ".join(f"{n}={getattr(self, n)!r}" for n in type(self).state_fields)
        return f"{type(self).__name__}({fields})"

    def check(self) -> None:
        """Raise StateInvalidError if the fields contradict each other."""


class _Step:
    """A way between neighbouring versions, found by ``@state`` in the class body."""

    __slots__ = ("down", "source", "way")

    def __init__(self, source: int, way: Step, *, down: bool) -> None:
        self.source = source
        self.way = way
        self.down = down


def step(source: int, target: int) -> Callable[[Step], object]:
    """Mark a static method as the way of a record from version ``source`` to its neighbour."""
    if abs(source - target) != 1:
        raise TypeError(f"steps join neighbours, not v{source} and v{target}")

    def mark(way: Step) -> object:
        plain: Step = way.__func__ if isinstance(way, staticmethod) else way
        return _Step(source, plain, down=target < source)

    return mark


@dataclass_transform(kw_only_default=True)
def state(name: str, *, version: int, oldest: int = 1) -> Callable[[type[S]], type[S]]:
    """Declare a state class.

    Args:
        name: Unique in the program, as ``"virtio-rng"``; it is written into every record.
        version: Of the fields as they stand in the class; from 1.
        oldest: Lowest version that is still read and written; its steps up and down must exist.

    Raises:
        TypeError: A step or a name is missing, doubled or out of range; the class is not made.
    """
    if not name.isascii() or not name.replace("-", "").isalnum() or len(name) > MAX_NAME:
        raise TypeError(f"state name {name!r}: letters, digits and '-', at most {MAX_NAME}")

    def declare(cls: type[S]) -> type[S]:
        if not 1 <= oldest <= version:
            raise TypeError(f"{name}: versions {oldest}..{version} are not a range from 1 on")
        for field in cls.state_fields.values():
            if not 1 <= field.since <= version:
                raise TypeError(f"{name}.{field.name}: since v{field.since}, state is v{version}")
        _collect_steps(cls, name, oldest, version)
        cls.state_name, cls.state_version, cls.state_oldest = name, version, oldest
        if _registry.setdefault(name, cls) is not cls:
            raise TypeError(f"state name {name!r} is taken by {_registry[name].__qualname__}")
        return cls

    return declare


def _collect_steps(cls: type[State], name: str, oldest: int, version: int) -> None:
    ways: dict[bool, dict[int, Step]] = {False: {}, True: {}}
    for value in vars(cls).values():
        if (
            isinstance(value, _Step)
            and ways[value.down].setdefault(value.source, value.way) is not value.way
        ):
            raise TypeError(f"{name}: two steps leave v{value.source} in the same direction")
    ups, downs = ways[False], ways[True]
    if set(ups) != set(range(oldest, version)) or set(downs) != set(
        range(oldest + 1, version + 1)
    ):
        raise TypeError(
            f"{name} v{oldest}..v{version}: has steps up from {sorted(ups)}, down from {sorted(downs)}"
        )
    cls.state_ups, cls.state_downs = ups, downs


def sub(cls: type[S], doc: str, *, since: int = 1) -> S:
    """Declare another state inside this one; the default is its reset state."""
    return declared(_Sub(cls), cls(), doc, since)


def subs(cls: type[S], doc: str, *, max: int, since: int = 1) -> list[S]:  # noqa: A002 - the contract's word
    """Declare a list of at most ``max`` other states; the default is empty."""
    none: list[S] = []
    return declared(_Subs(cls, max), none, doc, since)


def save(
    live: State,
    version: int | None = None,
    *,
    fds: FdKeeper | None = None,
    owner: str = "",
    versions: Mapping[str, int] | None = None,
) -> Record:
    """Return a copy of ``live`` as a record; ``live`` is not changed.

    Args:
        live: The state.
        version: To write, ``state_oldest`` to ``state_version`` (default: the current one).
        fds: Where descriptors of ``fd`` fields are kept; their names begin with ``owner``.
        owner: Object id, unique in the program (``"chardev/monitor0"``).
        versions: Versions of the states inside this one, by state name (default: current).

    Raises:
        StateInvalidError: A value does not fit its field or contradicts another.
        StateTooNewError, StateTooOldError: This program cannot write that version.
    """
    context = Context(fds, owner, versions or {})
    wanted = live.state_version if version is None else version
    return _save(live, wanted, live.state_name, context)


def load(cls: type[S], version: int, record: Record, *, fds: FdKeeper | None = None) -> S:
    """Bring ``record`` (untrusted) to the current version, check it and make the state.

    Raises:
        StateTooNewError, StateTooOldError: This program does not read that version.
        StateInvalidError: A field is missing, unknown and not optional, too wide, or contradicts another.
    """
    return _load(cls, version, record, cls.state_name, Context(fds, "", {}))


def registry() -> dict[str, type[State]]:
    """Return every state class declared so far, by name."""
    return dict(_registry)


def _declared_name(cls: type[State]) -> str:
    """Return the state's name; TypeError if the class was not declared with ``@state``."""
    if not cls.state_name:
        raise TypeError(f"{cls.__name__} is not declared with @state")
    return cls.state_name


def layout(cls: type[State]) -> dict[str, str]:
    """Return the fields that are not optional and their kinds; a change of it needs a new version."""
    return {name: field.wire for name, field in sorted(cls.state_needed.items())}


def optional_layout(cls: type[State]) -> dict[str, str]:
    """Return the optional fields and their kinds; more may be added at any time."""
    fields = cls.state_fields.items()
    return {name: field.wire for name, field in sorted(fields) if field.optional}


def inner(cls: type[State], version: int) -> Mapping[str, type[State]]:
    """Return all state classes inside ``cls`` as of ``version``, at any depth, by name; nobody may change it."""
    known = _inner.get((cls, version))
    if known is not None:
        return known
    found: dict[str, type[State]] = {}
    waiting = [field for field in cls.state_fields.values() if field.since <= version]
    while waiting:
        field = waiting.pop()
        if isinstance(field, _Sub | _Subs) and field.cls.state_name not in found:
            found[field.cls.state_name] = field.cls
            waiting += field.cls.state_fields.values()
    _inner[cls, version] = found  # whole: other threads ask, too
    return found


def kept(live: State, path: str = "") -> dict[str, Record]:
    """Return the unknown optional fields of ``live`` and of the states inside it, by path (``""``: its own)."""
    found = {path: dict(live.state_kept)} if live.state_kept else {}
    for name, field in type(live).state_fields.items():
        below = f"{path}.{name}" if path else name
        if isinstance(field, _Sub):
            found.update(kept(getattr(live, name), below))
        elif isinstance(field, _Subs):
            for n, item in enumerate(getattr(live, name)):
                found.update(kept(item, f"{below}[{n}]"))
    return found


def _save(live: State, version: int, path: str, context: Context) -> Record:
    cls = type(live)
    _check_version(cls, version, "this program writes")
    fields = cls.state_needed.items()
    record: Record = {
        name: field.save(f"{path}.{name}", getattr(live, name), context) for name, field in fields
    }
    live.check()
    for v in range(cls.state_version, version, -1):
        record = cls.state_downs[v](record)
    apart = {**live.state_kept, **_optional(live, path, context), **_apart(record, path)}
    _check_names(cls, version, record, path)
    if apart:
        record[APART] = apart
    return record


def _optional(live: State, path: str, context: Context) -> Record:
    cls = type(live)
    if len(cls.state_needed) == len(
        cls.state_fields
    ):  # nearly always; saving is part of the pause
        return {}
    optional = ((name, field) for name, field in cls.state_fields.items() if field.optional)
    return {
        name: field.save(f"{path}.{name}", getattr(live, name), context)
        for name, field in optional
        if getattr(live, name) != field.reset()
    }


def _apart(record: Record, path: str) -> Record:
    """Take the optional fields (untrusted) out of ``record``."""
    if APART not in record:
        return {}
    apart = record.pop(APART)
    if not isinstance(apart, dict):
        raise StateInvalidError(f"{path}.{APART}: {short(apart)} is not a record", path)
    fields: Record = apart  # pyright: ignore[reportUnknownVariableType]
    if len(fields) > MAX_KEPT:
        raise StateInvalidError(f"{path}.{APART}: {len(fields)} fields, limit {MAX_KEPT}", path)
    for name, value in fields.items():
        if not name.isidentifier() or len(name) > MAX_NAME or not _is_plain(value):
            raise StateInvalidError(f"{path}.{APART}: {short(name)} is no optional field", path)
    return fields


def _is_plain(value: object) -> bool:
    """Tell whether an optional field can have this value: no states and no descriptors are among them."""
    if isinstance(value, list):
        numbers: list[object] = value  # pyright: ignore[reportUnknownVariableType]
        return all(type(number) is int for number in numbers)
    return isinstance(value, bool | int | str | bytes)


def _load(cls: type[S], version: object, source: object, path: str, context: Context) -> S:
    at = _check_version(cls, version, "this program reads")
    record = dict(_record_of(path, source))  # steps get a copy: the caller's stays whole
    apart = dict(_apart(record, path))
    _check_names(cls, at, record, path)
    if at < cls.state_version:
        record = _brought_up(cls, at, record, path)
        apart = {**_apart(record, path), **apart}  # a step may make a field optional
        _check_names(cls, cls.state_version, record, path)
    for name in [name for name in apart if name in cls.state_fields]:
        if not cls.state_fields[name].optional and cls.state_fields[name].since <= at:
            raise StateInvalidError(f"{path}.{name}: is twice in the record")
        record[name] = apart.pop(name)  # what the writer knew is better than what a step makes up
    made = cls.__new__(cls)  # the names are checked: what __init__ would find out is known
    for name, field in cls.state_fields.items():
        found = name in record
        value = field.load(f"{path}.{name}", record[name], context) if found else field.reset()
        setattr(made, name, value)
    made.state_kept = apart
    made.check()
    return made


def _brought_up(cls: type[State], at: int, record: Record, path: str) -> Record:
    """Return ``record`` of version ``at`` in the current version."""
    for v in range(at, cls.state_version):
        try:
            record = cls.state_ups[v](record)
        except Exception as exc:
            why = f"record of v{v} cannot be brought to v{v + 1} ({type(exc).__name__})"
            raise StateInvalidError(f"{path}: {why}", path) from exc
    return record


def _record_of(path: str, value: object) -> Record:
    if not isinstance(value, dict):
        raise StateInvalidError(f"{path}: {short(value)} is not a record", path)
    record: Record = value  # pyright: ignore[reportUnknownVariableType]
    return record


def _check_version(cls: type[State], version: object, who: str) -> int:
    name = _declared_name(cls)
    if type(version) is not int or version < 1:
        raise StateInvalidError(f"{name}: {short(version)} is not a version", name)
    if version > cls.state_version:
        raise StateTooNewError(f"{name}: record is v{version}, {who} up to v{cls.state_version}")
    if version < cls.state_oldest:
        raise StateTooOldError(f"{name}: record is v{version}, {who} from v{cls.state_oldest} on")
    return version


def _check_names(cls: type[State], version: int, record: Record, path: str) -> None:
    # Names that the current version no longer has are the business of the steps.
    fields = cls.state_needed.values()
    wrong = [f.name for f in fields if (f.name in record) != (f.since <= version)]
    if version == cls.state_version:
        wrong += [str(name) for name in record if name not in cls.state_needed]
    if wrong:
        raise StateInvalidError(
            f"{path}: missing or unknown in v{version}: {short(sorted(wrong)[0])}", path
        )
