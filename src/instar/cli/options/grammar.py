"""From words to checked values: QEMU's option grammar over the table of options.

Source: QEMU's documented grammar (``key=value`` lists with an implied first key, ``,,`` for a comma, short booleans,
dotted keys and JSON objects); own implementation.
"""

from __future__ import annotations

from instar.cli.options.config import Request
from instar.cli.options.entries import BY_NAME
from instar.cli.options.table import MAX_U64
from instar.errors import ConfigError
from instar.units import exact_size, parse_int, parse_size, shorten

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from instar.cli.options.table import Key, Option

    Value = str | int | bool
    Pair = tuple[str, Value | None]

_ON = frozenset(("on", "yes", "true", "y"))
_OFF = frozenset(("off", "no", "false", "n"))
_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_ID_TAIL = _LETTERS | frozenset("0123456789-._")
_MAX_ID = 127  # bytes; ids become names of descriptors and of state records
_HELP_WORDS = frozenset(("help", "?"))
_INSTEAD = {  # what QEMU does itself, and who does it here
    "-netdev: type=user": "passt does that, over -netdev stream: README.md has the words",
    "-drive: format=qcow2": "qemu-storage-daemon does that, over vhost-user: docs/reference/disks.md has the words",
}


class Values:
    """The checked values of one occurrence of an option.

    Attributes:
        option: The option's row.
        variant: Of a typed option, the chosen type.
        word: Of a text option, its argument.
        given: Key to value, only what was given.
    """

    __slots__ = ("given", "option", "variant", "word")

    def __init__(self, option: Option) -> None:
        self.option = option
        self.variant = ""
        self.word = ""
        self.given: dict[str, Value] = {}

    def text(self, key: str, default: str = "") -> str:
        """Return a text, id or choice."""
        value = self.given.get(key, default)
        return value if isinstance(value, str) else default

    def flag(self, key: str, *, default: bool) -> bool:
        """Return a flag."""
        value = self.given.get(key, default)
        return value if isinstance(value, bool) else default

    def number(self, key: str, default: int) -> int:
        """Return an int or a size."""
        value = self.given.get(key, default)
        return value if isinstance(value, int) else default


class Given:
    """All occurrences, in the order of the command line, and what was odd about them."""

    __slots__ = ("occurrences", "warnings")

    def __init__(self) -> None:
        self.occurrences: list[Values] = []
        self.warnings: list[str] = []

    def each(self, *names: str) -> Iterable[Values]:
        """Yield the occurrences of these options in the order they were given."""
        return [values for values in self.occurrences if values.option.name in names]

    def has(self, name: str) -> bool:
        """Return whether the option was given."""
        return any(values.option.name == name for values in self.occurrences)

    def one(self, name: str) -> Values:
        """Return the option's only or last occurrence; an empty one if there is none."""
        for values in reversed(self.occurrences):
            if values.option.name == name:
                return values
        return Values(BY_NAME[name])

    def add(self, values: Values) -> None:
        """Add an occurrence; it joins or replaces an earlier one as the table says."""
        if values.option.repeat != "list":
            for earlier in self.each(values.option.name):
                if values.option.repeat == "merge":
                    values.given = {**earlier.given, **values.given}
                self.occurrences.remove(earlier)
        self.occurrences.append(values)


def read_words(argv: Sequence[str]) -> Given | Request:
    """Return what the words say, option by option.

    Raises:
        ConfigError: an unknown option, a missing argument, an unknown key or a bad value.
    """
    for word in argv:
        if not is_text(word):
            raise ConfigError(f"{shorten(word)} cannot be a word of a command line")
    given = Given()
    words = iter(argv)
    for word in words:
        option = _find_option(word)
        values = Values(option)
        if option.name in {"help", "version"} or _read_argument(values, words, given.warnings):
            return Request(option.name)
        given.add(values)
    for values in given.occurrences:  # after merging: a required key may come in a second part
        _check_required(values)
    return given


def _read_argument(values: Values, words: Iterator[str], warnings: list[str]) -> bool:
    """Take the option's argument from ``words``; return whether it asks for help."""
    option = values.option
    if option.form == "none":
        return False
    argument = next(words, None)
    if argument is None:
        raise ConfigError(f"-{option.name} needs an argument: {option.metavar}")
    if option.form == "text":
        values.word = argument
        return False
    return read_keys(values, argument, warnings)


def _find_option(word: str) -> Option:
    name = word[2:] if word.startswith("--") else word[1:]
    if not word.startswith("-") or not name:
        error = ConfigError(f"{shorten(word)} is not an option")
        if not word.startswith("-"):
            error.add_note("hint: a disk image is given as -drive file=FILE,format=raw")
        raise error
    option = BY_NAME.get(name)
    if option is None:
        raise closest(
            ConfigError(f"unknown option {shorten(word)}; -help lists the options there are"),
            name,
            BY_NAME,
            prefix="-",
        )
    return option


def read_keys(values: Values, argument: str, warnings: list[str]) -> bool:
    """Fill ``values`` from a list of keys; return whether help was asked for instead."""
    option = values.option
    pairs = _json_pairs(option, argument) if option.json and argument.startswith("{") else None
    if pairs is None:
        words = split_commas(argument)
        if not _HELP_WORDS.isdisjoint(words):
            return True
        words = _take_signed(values, words)
        pairs = _word_pairs(option, words)
    keys = option.keys
    if option.variants:
        values.variant = _choose_variant(option, pairs)
        pairs = [pair for pair in pairs if pair[0] != option.implied]
        keys = option.variants[values.variant]
    for name, value in pairs:
        if value is None:
            _set_short_flag(values, keys, name, warnings)
        else:
            values.given[name] = convert(
                f"{where(values)}: {name}", _find_key(values, keys, name), value
            )
    return False


def split_commas(text: str) -> list[str]:
    """Return the parts between commas; ``,,`` is a comma inside a part, one comma at the end is ignored.

    Args:
        text: Anything without a NUL.
    """
    parts = [part.replace("\0", ",") for part in text.replace(",,", "\0").split(",")]
    if parts[-1] == "":
        parts.pop()
    return parts


def escape_commas(text: str) -> str:
    """Return ``text`` as a part for :func:`split_commas`."""
    return text.replace(",", ",,")


def _json_pairs(option: Option, argument: str) -> list[Pair]:
    # json's import costs milliseconds, which few command lines need to pay
    from instar.cli.options.json_form import read_object  # noqa: PLC0415

    return list(read_object(f"-{option.name}", argument).items())


def _take_signed(values: Values, words: list[str]) -> list[str]:
    """Put +word and -word where the option wants them, and return the others."""
    key = values.option.signed
    signed = [word for word in words if key and word[:1] in {"+", "-"} and len(word) > 1]
    if signed:
        values.given[key] = ",".join(signed)
    return [word for word in words if word not in signed]


def _word_pairs(option: Option, words: list[str]) -> list[Pair]:
    """Return (key, value); the value is None for a bare word, which must turn out to be a flag."""
    pairs: list[Pair] = []
    for position, word in enumerate(words):
        key, equals, value = word.partition("=")
        if not equals and position == 0 and option.implied:
            pairs.append((option.implied, word))
        else:
            pairs.append((key, value if equals else None))
    return pairs


def _choose_variant(option: Option, pairs: list[Pair]) -> str:
    chosen = [value for name, value in pairs if name == option.implied]
    if not chosen:
        raise ConfigError(
            f"-{option.name} needs {option.implied}=, one of {_list(option.variants)}"
        )
    name = str(chosen[-1])
    if name not in option.variants:
        error = ConfigError(
            f"-{option.name}: {option.implied}={shorten(name)} is not known; "
            f"allowed are {_list(option.variants)}"
        )
        _advise(error, f"-{option.name}: {option.implied}={name}")
        raise closest(error, name, option.variants)
    return name


def where(values: Values) -> str:
    """Name the option for an error: ``-device virtio-blk-device``."""
    return f"-{values.option.name} {values.variant}".rstrip()


def _find_key(values: Values, keys: tuple[Key, ...], name: str) -> Key:
    for key in keys:
        if key.name == name:
            return key
    names = [key.name for key in keys]
    raise closest(
        ConfigError(f"{where(values)} has no key {shorten(name)}; allowed are {_list(names)}"),
        name,
        names,
    )


def _set_short_flag(values: Values, keys: tuple[Key, ...], word: str, warnings: list[str]) -> None:
    """Take ``server`` for ``server=on`` and ``nowait`` for ``wait=off``."""
    flags = [key.name for key in keys if key.kind == "flag"]
    if word in flags:
        name, value = word, "on"
    elif word.startswith("no") and word[2:] in flags:
        name, value = word[2:], "off"
    else:
        key = _find_key(values, keys, word)
        raise ConfigError(f"{where(values)}: {key.name} needs a value: {allowed(key)}")
    values.given[name] = value == "on"
    warnings.append(f"{where(values)}: {word} is a deprecated short form of {name}={value}")


def _check_required(values: Values) -> None:
    option = values.option
    keys = option.variants[values.variant] if values.variant else option.keys
    for key in keys:
        if key.required and key.name not in values.given:
            raise ConfigError(f"{where(values)} needs {key.name}=: {key.help}")


def convert(what: str, key: Key, value: Value) -> Value:
    """Return ``value`` as the key's kind.

    Args:
        what: Where it stands, for the error: ``-m: size``.
        key: What is allowed.
        value: Text from the command line, or what JSON gave.

    Raises:
        ConfigError: not of that kind or outside the limits.
    """
    if isinstance(value, bool):
        if key.kind != "flag":
            raise ConfigError(f"{what}={str(value).lower()}: allowed is {allowed(key)}")
        return value
    text = str(value)
    try:
        checked = _convert_text(key, text)
    except ConfigError:  # says only that it is no number: what is allowed matters more
        checked = None
    if checked is None:
        error = ConfigError(f"{what}={shorten(text)}: allowed is {allowed(key)}")
        _advise(error, f"{what}={text}")
        raise error
    return checked


def _advise(error: ConfigError, given: str) -> None:
    """Say who does here what QEMU does itself."""
    if given in _INSTEAD:
        error.hint(_INSTEAD[given])


def _convert_text(key: Key, text: str) -> Value | None:
    """Return the value of the key's kind, None if it is not allowed."""
    if key.kind == "flag":
        return text in _ON if text in _ON or text in _OFF else None
    if key.kind == "choice":
        return text if text in key.choices else None
    if key.kind == "id":
        return text if is_id(text) else None
    if key.kind == "text":
        return text if is_text(text, key.low, key.high) else None
    number = parse_int(text) if key.kind == "int" else parse_size(text, key.unit)
    return number if key.low <= number <= key.high else None


def allowed(key: Key) -> str:
    """Say what a key takes."""
    limits = f"{key.low} to {key.high}"
    if key.kind == "size":
        limits = f"{exact_size(key.low)} to {exact_size(key.high)}"
    return {
        "flag": "on or off",
        "choice": " or ".join(filter(None, (", ".join(key.choices[:-1]), key.choices[-1])))
        if key.choices
        else "",
        "id": "a name: a letter, then letters, digits, '-', '.' or '_'",
        "text": f"a text of {key.low} to {key.high} bytes" if key.high < MAX_U64 else "a text",
        "int": f"a whole number from {limits}",
        "size": f"a size from {limits}",
    }[key.kind]


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)


def is_id(text: str) -> bool:
    """Return whether ``text`` can be an id."""
    return 0 < len(text) <= _MAX_ID and text[0] in _LETTERS and _ID_TAIL.issuperset(text)


def is_text(text: str, low: int = 0, high: int = MAX_U64) -> bool:
    """Return whether the host can take ``text`` as a word or path of ``low`` to ``high`` bytes."""
    try:
        length = len(text.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:  # half of a surrogate pair, from JSON
        return False
    return low <= length <= high and "\0" not in text


def closest(
    error: ConfigError, name: str, names: Iterable[str], *, prefix: str = ""
) -> ConfigError:
    """Add the nearest of ``names`` to the error as a hint, if one is near."""
    from difflib import get_close_matches  # noqa: PLC0415 - only on the way out

    for match in get_close_matches(name, list(names), n=1):
        error.add_note(f"hint: did you mean {prefix}{match}?")
    return error
