"""The texts of ``-help`` and ``-device help``, and the reference page, from the table of options.

Not on the resume path: imported when somebody asks.
"""

from __future__ import annotations

from textwrap import fill

from instar.cli.options.entries import BY_NAME, OPTIONS
from instar.cli.options.grammar import allowed
from instar.cli.options.table import MAX_U64, Key, Option
from instar.units import MAX_SIZE, format_size

_WIDTH = 79
_INDENT = " " * 22
_USAGE = (
    "usage: instar-system [options]\n\n"
    "Runs a virtual machine, riscv64 or x86-64.\n"
    "Options are QEMU's: -name word, or --name word."
)
_NOTES = (
    "There is no display. Without -serial and without a monitor option, both share the terminal: "
    "Ctrl-A c switches between them, Ctrl-A x quits. If only one of them is given, the other takes "
    "the terminal if it is free; otherwise the serial port is null and there is no monitor."
)
_ORIGIN = (
    "Made from the table that the parser uses (`src/instar/cli/options/entries.py`) by "
    "`tools/gen_options_doc.py`; do not edit."
)
_GRAMMAR = (
    "An option is written `-name` or `--name`. A list of keys is `key=value,...`; a comma inside a "
    "value is doubled; the key in brackets may be left out of the first word. Flags take on or off. "
    "Sizes take b, k, M, G, T, P, E (powers of 1024). `-device help` lists the choices of an option "
    "with keys. Anything unknown or wrong is refused with exit status 2, before anything is created."
)


def help_text(topic: str) -> str:
    """Return what to print for a Request.

    Args:
        topic: ``help``, or the name of an option.

    Returns:
        Lines without a newline at the end, at most 79 columns wide.
    """
    option = BY_NAME.get(topic)
    if topic == "help" or option is None:
        return _overview()
    return "\n".join(_option_lines(option))


def _overview() -> str:
    lines = [_USAGE]
    group = ""
    for option in OPTIONS:
        if option.group != group:
            group = option.group
            lines += ["", f"{group}:"]
        names = ", ".join(f"-{name}" for name in (option.name, *option.aliases))
        lines += _entry(f"  {names} {option.metavar}".rstrip(), option.help)
    return "\n".join([*lines, "", fill(_NOTES, _WIDTH)])


def _option_lines(option: Option) -> list[str]:
    lines = [f"-{option.name} {option.metavar}".rstrip(), fill(f"  {option.help}", _WIDTH)]
    for key in option.keys:
        lines += _entry(f"  {key.name}=", describe(key))
    for name, keys in option.variants.items():
        lines += ["", f"  {name}"]
        for key in keys:
            lines += _entry(f"    {key.name}=", describe(key))
    return lines


def _entry(head: str, text: str) -> list[str]:
    """Return a head and its explanation, beside it or below it."""
    body = fill(text, _WIDTH, initial_indent=_INDENT, subsequent_indent=_INDENT)
    if len(head) < len(_INDENT):
        return [head.ljust(len(_INDENT)) + body[len(_INDENT) :]]
    return [head, body]


def describe(key: Key) -> str:
    """Return a key's meaning, what it takes and its default in one line."""
    default = "required" if key.required else f"default {key.default}" if key.default else ""
    notes = "; ".join(note for note in (values_of(key), default) if note)
    return f"{key.help} ({notes})" if notes else key.help


def values_of(key: Key) -> str:
    """Return what a key takes, short: for tables."""
    if key.kind == "size":
        unit = "" if key.unit == "B" else f", unit {key.unit} if none"
        limits = f"{format_size(key.low)} to {format_size(key.high)}"
        return f"size{unit}" if key.high == MAX_SIZE else f"size{unit}, {limits}"
    if key.kind == "id":
        return "id"
    if key.kind == "text":
        return "text" if key.high == MAX_U64 else f"text, at most {key.high} bytes"
    return f"{key.low} to {key.high}" if key.kind == "int" else allowed(key)


def reference_page() -> str:
    """Return ``docs/reference/options.md``."""
    lines = ["# Options of `instar-system`", "", _ORIGIN, "", _GRAMMAR, "", _NOTES]
    group = ""
    for option in OPTIONS:
        if option.group != group:
            group = option.group
            lines += ["", f"## {group}"]
        lines += ["", *_reference_entry(option)]
    return "\n".join(lines) + "\n"


_REPEATS = {
    "last": "of several, the last one counts",
    "merge": "several are put together, later keys count",
    "list": "may be repeated",
}


def _reference_entry(option: Option) -> list[str]:
    names = ", ".join(f"-{name}" for name in (option.name, *option.aliases))
    facts = [] if option.form == "none" else [_REPEATS[option.repeat]]
    if option.json:
        facts.append("a JSON object is taken as well")
    facts.append(f"since {option.since}")
    text = option.help[0].upper() + option.help[1:]
    lines = [f"### `{names} {option.metavar}".rstrip() + "`", "", f"{text}. ({'; '.join(facts)})"]
    if option.keys:
        lines += ["", *_key_table(option.keys)]
    for name, keys in option.variants.items():
        lines += ["", f"`{name}`", "", *_key_table(keys)]
    return lines


def _key_table(keys: tuple[Key, ...]) -> list[str]:
    lines = ["| key | values | default | meaning |", "|---|---|---|---|"]
    for key in keys:
        default = "required" if key.required else key.default
        lines.append(f"| `{key.name}` | {values_of(key)} | {default} | {key.help} |")
    return lines
