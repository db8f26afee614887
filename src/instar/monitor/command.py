"""Declaring monitor commands: the signature is the schema, the docstring the documentation.

One table serves QMP, HMP, help, ``query-qmp-schema``, completion and the reference pages. A command is a function of
the context and keyword arguments, each ``Annotated[type, Arg("what it means", ...)]``; it returns None or something
that :func:`wire` can write. Its docstring shows at least one exchange, and a test executes every one.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any, Final, Literal, TypeVar

from instar.errors import BadArgumentError, WrongStateError

if typing.TYPE_CHECKING:
    from instar.monitor.context import Context

F = TypeVar("F", bound=Callable[..., object])
REQUIRED: Final = inspect.Parameter.empty
_INT_RANGE: Final = (-(1 << 63), (1 << 64) - 1)  # JSON numbers that a C program can hold

# Run states in which the devices' state is not being moved.
SETTLED: Final = frozenset(
    {
        "prelaunch", "running", "paused", "postmigrate", "shutdown", "internal-error", "io-error",
        "guest-panicked", "watchdog",
    }
)  # fmt: skip
# ... or is not here yet: what is changed now goes along with the guest.
CHANGEABLE: Final = SETTLED | {"inmigrate"}


@dataclass(frozen=True, slots=True)
class Arg:
    """Meaning and limits of one argument.

    Attributes:
        doc: One sentence.
        unit: Of a number, as ``"ms"``.
        ge: Lowest value.
        le: Highest value.
        flag: HMP: it is given as this option letter.
        form: HMP: how it is read: one word, the rest of the line, a format (``/4xw``), an expression (``$pc+8``).
        complete: HMP: what its word is completed from.
        values: The texts it may be; empty: any.
        name: On the wire, if not the Python name with ``-`` for ``_``.
    """

    doc: str
    unit: str = ""
    ge: int | None = None
    le: int | None = None
    flag: str = ""
    form: Literal["word", "rest", "format", "expression"] = "word"
    complete: Literal["", "command", "parameter", "capability", "switch"] = ""
    values: tuple[str, ...] = ()
    name: str = ""


@dataclass(frozen=True, slots=True)
class Member:
    """One argument of a command, or one field of an object on the wire."""

    name: str  # on the wire
    attribute: str  # in Python
    kind: Any  # type without Annotated and None
    arg: Arg
    default: object  # REQUIRED if there is none

    @property
    def optional(self) -> bool:
        """Whether it may be left out."""
        return self.default is not REQUIRED


@dataclass(frozen=True, slots=True)
class ObjectType:
    """An object on the wire whose members come from a table instead of a dataclass."""

    name: str
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class Hmp:
    """The form of a command for people.

    Attributes:
        name: As typed; two words for ``info`` commands.
        render: Makes text of what the command returned; lines end in a newline. Without it nothing is printed.
        aliases: Other names.
    """

    name: str
    render: Callable[[Any], str] | None = None
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Command:
    """One declared command: all that dispatcher, schema, help and docs need."""

    name: str
    topic: str
    since: str
    allowed_in: frozenset[str] | None
    function: Callable[..., object]
    members: tuple[Member, ...]
    boxed: bool  # the function takes what was given as one mapping by wire name
    returns: Any
    doc: str
    hmp: Hmp | None

    @property
    def summary(self) -> str:
        """First line of the documentation."""
        return self.doc.split("\n", 1)[0]

    @property
    def help(self) -> str:
        """What ``help`` says: the summary without its full stop."""
        text = self.summary.rstrip(".")
        return text[:1].lower() + text[1:]

    @property
    def examples(self) -> list[tuple[str, str]]:
        """QMP requests and their replies, in order."""
        found: list[list[str]] = []
        for paragraph in self.doc.split("\n\n"):
            if paragraph.startswith("-> "):
                exchanges = [part.partition("\n<- ") for part in paragraph[3:].split("\n-> ")]
                found += [[" ".join(e[n].split()) for n in (0, 2)] for e in exchanges]
        return [(request, reply) for request, reply in found]

    @property
    def hmp_examples(self) -> list[tuple[str, str]]:
        """Typed lines and what is printed (up to the next empty line)."""
        found: list[tuple[str, str]] = []
        for paragraph in self.doc.split("\n\n"):
            for block in f"\n{paragraph}".split("\n(instar) ")[1:]:
                typed, _, printed = block.partition("\n")
                printed = printed.rstrip("\n")
                found.append((typed, printed + "\n" if printed else ""))
        return found


class UnitFormat:
    """What ``/4xw`` asks for: count, letter of the format (x d u o c i) and bytes of a unit (0: by format)."""

    def __init__(self, count: int = 1, letter: str = "x", size: int = 0) -> None:
        self.count = count
        self.letter = letter
        self.size = size or (1 if letter == "c" else 4)


@dataclass(frozen=True, slots=True)
class Wait:
    """What an HMP command returns if its prompt is to come back later (see ``session.WAITS``)."""

    name: str


QMP_COMMANDS: Final[dict[str, Command]] = {}
HMP_COMMANDS: Final[dict[str, Command]] = {}  # aliases too


# Names in signatures that command modules import for checkers only.
_LOCAL_NAMES: Final[dict[str, Any]] = {
    "ClientContext": object, "Context": object, "Mapping": Mapping, "UnitFormat": UnitFormat,
}  # fmt: skip


def command(  # noqa: PLR0913 - keywords of a declaration
    *,
    name: str = "",
    since: str = "0.1",
    allowed_in: frozenset[str] | None = None,
    hmp: Hmp | None = None,
    qmp: bool = True,
    takes: ObjectType | None = None,
    returns: ObjectType | type | None = None,
) -> Callable[[F], F]:
    """Declare the decorated function as a command.

    Args:
        name: On the wire; default: the function's with ``-`` for ``_``.
        since: First version that has it.
        allowed_in: Run states in which it may be given; None: all.
        hmp: Its form for people, if it has one.
        qmp: Whether programs may give it.
        takes: Its arguments, if they come from a table; the function gets those given as one mapping.
        returns: What it returns, if that comes from a table.

    Raises:
        TypeError: An argument lacks its Arg, or the docstring an example; the command is not declared.
    """

    def declare(function: F) -> F:
        hints = typing.get_type_hints(function, localns=_LOCAL_NAMES, include_extras=True)
        made = Command(
            name=name or function.__name__.replace("_", "-"),
            topic=function.__module__.rpartition(".")[2],
            since=since,
            allowed_in=allowed_in,
            function=function,
            members=takes.members if takes is not None else _arguments(function, hints),
            boxed=takes is not None,
            returns=returns or hints.get("return"),
            doc=inspect.getdoc(function) or "",
            hmp=hmp,
        )
        _add(made, qmp=qmp)
        return function

    return declare


def _add(made: Command, *, qmp: bool) -> None:
    if qmp and not made.examples:
        raise TypeError(f"{made.name}: the docstring shows no -> request and <- reply")
    if not qmp and (made.hmp is None or not made.hmp_examples):
        raise TypeError(f"{made.name}: the docstring shows no (instar) line")
    for table, key in _places(made, qmp=qmp):
        if table.setdefault(key, made) is not made:
            raise TypeError(f"{key}: declared twice")


def _places(made: Command, *, qmp: bool) -> list[tuple[dict[str, Command], str]]:
    places = [(QMP_COMMANDS, made.name)] if qmp else []
    if made.hmp is not None:
        places += [(HMP_COMMANDS, key) for key in (made.hmp.name, *made.hmp.aliases)]
    return places


def _arguments(function: Callable[..., object], hints: Mapping[str, object]) -> tuple[Member, ...]:
    parameters = list(inspect.signature(function).parameters.values())[1:]
    return tuple(_member(p.name, hints[p.name], p.default) for p in parameters)


def _member(attribute: str, hint: object, default: object) -> Member:
    if typing.get_origin(hint) is not Annotated:
        raise TypeError(f"{attribute}: no Arg() says what it means")
    kind, arg = typing.get_args(hint)[:2]
    name = arg.name or attribute.rstrip("_").replace("_", "-")
    return Member(name, attribute, without_none(kind), arg, default)


_members: Final[dict[type, tuple[Member, ...]]] = {}


def members_of(cls: type) -> tuple[Member, ...]:
    """Return the fields of a dataclass as members on the wire."""
    if cls not in _members:
        hints = typing.get_type_hints(cls, include_extras=True)
        no_default = fields(_Probe)[0].default
        _members[cls] = tuple(
            _member(f.name, hints[f.name], REQUIRED if f.default is no_default else f.default)
            for f in fields(cls)
        )
    return _members[cls]


@dataclass
class _Probe:
    """Shows what dataclasses use for "no default"."""

    field: int


def without_none(kind: Any) -> Any:  # noqa: ANN401 - a type annotation may be anything
    """Return ``X`` for ``X | None``."""
    if isinstance(kind, types.UnionType):
        left = [k for k in typing.get_args(kind) if k is not types.NoneType]
        return left[0] if len(left) == 1 else kind
    return kind


# ---------------------------------------------------------------- arguments in, results out


def check_state(made: Command, state: str) -> None:
    """Raise WrongStateError unless the command may be given in this run state."""
    if made.allowed_in is not None and state not in made.allowed_in:
        allowed = ", ".join(sorted(made.allowed_in))
        raise WrongStateError(f"{made.name}: machine is {state}; allowed when {allowed}")


def invoke(made: Command, context: Context, arguments: Mapping[str, object]) -> object:
    """Check run state and JSON arguments, call the command and return what it returned.

    Raises:
        WrongStateError: The run state does not allow it; it was not called.
        BadArgumentError: An argument is missing, unknown, mistyped or out of range; it was not called.
    """
    check_state(made, context.machine.runstate)
    values = convert_members(made.members, arguments, "")
    if made.boxed:
        return made.function(context, values)
    return made.function(context, **values)


def convert_members(
    members: tuple[Member, ...], raw: Mapping[str, object], path: str
) -> dict[str, object]:
    """Check an object from the wire and return Python values by attribute."""
    known = {member.name for member in members}
    for key in raw:
        if key not in known:
            raise BadArgumentError(f"Parameter '{path}{_short(key)}' is unexpected")
    values: dict[str, object] = {}
    for member in members:
        if member.name in raw:
            values[member.attribute] = convert(member, raw[member.name], path)
        elif not member.optional:
            raise BadArgumentError(f"Parameter '{path}{member.name}' is missing")
    return values


def convert(member: Member, value: object, path: str = "") -> object:
    """Check one value from the wire against its member; BadArgumentError names what is wrong."""
    made = _convert(member.kind, value, path + member.name)
    if member.arg.values and made not in member.arg.values:
        shown = _short(str(made))
        raise BadArgumentError(f"Parameter '{path}{member.name}' does not accept value '{shown}'")
    low, high = member.arg.ge, member.arg.le
    if isinstance(made, int | float) and not (
        (low is None or made >= low) and (high is None or made <= high)
    ):
        unit = f" {member.arg.unit}" if member.arg.unit else ""
        if high is None:
            raise BadArgumentError(
                f"Parameter '{path}{member.name}' expects a value of at least {low}{unit}"
            )
        raise BadArgumentError(
            f"Parameter '{path}{member.name}' expects an integer in the range of {low} to {high}{unit}"
        )
    return made


_NAMES: Final[dict[type, str]] = {
    str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"
}  # fmt: skip


def _convert(kind: Any, value: object, path: str) -> object:  # noqa: ANN401 - a type annotation
    origin = typing.get_origin(kind)
    if kind is object:
        return value
    if origin is Literal:
        text = _expect(str, value, path)
        if text not in typing.get_args(kind):
            raise BadArgumentError(
                f"Parameter '{path}' does not accept value '{_short(str(text))}'"
            )
        return text
    if origin is list:
        items = typing.cast("list[object]", _expect(list, value, path))
        inner = typing.get_args(kind)[0]
        return [_convert(inner, item, f"{path}[{n}]") for n, item in enumerate(items)]
    if is_dataclass(kind) or origin is dict:
        raw = typing.cast("dict[str, object]", _expect(dict, value, path))
        if origin is dict:
            return raw
        cls = typing.cast("type", kind)
        return cls(**convert_members(members_of(cls), raw, f"{path}."))
    return _expect(kind, value, path)


def _expect(kind: type, value: object, path: str) -> object:
    if kind is float and type(value) is int:
        return value
    if type(value) is not kind:
        raise BadArgumentError(f"Invalid parameter type for '{path}', expected: {_NAMES[kind]}")
    if isinstance(value, int) and not _INT_RANGE[0] <= value <= _INT_RANGE[1]:
        raise BadArgumentError(f"Parameter '{path}' expects an integer of at most 64 bits")
    return value


def _short(text: str) -> str:
    return text if len(text) <= 64 else f"{text[:61]}..."


def wire(value: object) -> object:
    """Turn a result into JSON values: fields with ``-`` for ``_``, None fields left out; None is ``{}``."""
    if value is None:
        return {}
    if is_dataclass(value) and not isinstance(value, type):
        members = members_of(type(value))
        pairs = ((m.name, getattr(value, m.attribute)) for m in members)
        return {name: wire(item) for name, item in pairs if item is not None}
    if isinstance(value, Mapping):
        return {str(k): wire(v) for k, v in typing.cast("Mapping[object, object]", value).items()}
    if isinstance(value, list | tuple):
        return [wire(item) for item in typing.cast("list[object]", value)]
    return value
