"""What an option is: the shape of the rows in :mod:`instar.cli.options.entries`."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    KeyKind = Literal["text", "id", "flag", "int", "size", "choice"]
    Form = Literal["none", "text", "keys", "typed"]
    Repeat = Literal["last", "merge", "list"]

MAX_U64 = (1 << 64) - 1


class Key:
    """One ``key=value`` of an option.

    Attributes:
        kind: ``text``; ``id`` (a letter, then letters, digits, ``-._``); ``flag`` (on or off);
            ``int``; ``size`` (bytes, with QEMU's suffixes); ``choice`` (one of ``choices``).
        default: As the reference documentation shows it; the value itself belongs to the Config classes.
        low, high: Limits of an int or a size, inclusive; of a text, its length in bytes.
        unit: Suffix of a size that is written without one.
    """

    __slots__ = ("choices", "default", "help", "high", "kind", "low", "name", "required", "unit")

    def __init__(  # noqa: PLR0913 - a row of a table
        self,
        name: str,
        kind: KeyKind,
        help: str,  # noqa: A002 - the column's name
        *,
        choices: tuple[str, ...] = (),
        low: int = 0,
        high: int = MAX_U64,
        default: str = "",
        required: bool = False,
        unit: str = "B",
    ) -> None:
        self.name = name
        self.kind = kind
        self.help = help
        self.choices = choices
        self.low = low
        self.high = high
        self.default = default
        self.required = required
        self.unit = unit


class Option:
    """One option of the command line.

    Attributes:
        form: ``none``: a switch; ``text``: one word, taken as it is; ``keys``: ``key=value,...``;
            ``typed``: the same, and the first key (``implied``) chooses among ``variants`` which
            further keys there are.
        repeat: What a second occurrence does: the ``last`` one counts, their keys ``merge``, or
            they make a ``list``.
        implied: The key of a first word without ``=``.
        json: A JSON object is taken as well.
        signed: The key that words with + or - before them are put into, with commas.
    """

    __slots__ = (
        "aliases", "form", "group", "help", "implied", "json", "keys", "metavar", "name", "repeat", "signed",
        "since", "variants",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913 - a row of a table
        self,
        name: str,
        form: Form,
        help: str,  # noqa: A002 - the column's name
        *,
        group: str,
        metavar: str = "",
        aliases: tuple[str, ...] = (),
        repeat: Repeat = "last",
        implied: str = "",
        keys: tuple[Key, ...] = (),
        variants: dict[str, tuple[Key, ...]] | None = None,
        json: bool = False,
        signed: str = "",
        since: str = "0.1",
    ) -> None:
        self.name = name
        self.form = form
        self.help = help
        self.group = group
        self.metavar = metavar
        self.aliases = aliases
        self.repeat = repeat
        self.implied = implied
        self.keys = keys
        self.variants = variants or {}
        self.json = json
        self.signed = signed
        self.since = since
