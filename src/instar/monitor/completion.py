"""What Tab completes on an HMP line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from instar.errors import CommandError
from instar.monitor.command import HMP_COMMANDS, Member
from instar.monitor.hmp import find

if TYPE_CHECKING:
    from collections.abc import Iterable

    from instar.monitor.context import Context


def complete(context: Context, text: str) -> tuple[str, list[str]]:
    """Return the word that ends at the cursor and what it could become, sorted.

    Args:
        context: Where names of parameters and capabilities come from.
        text: The line up to the cursor.
    """
    before, _, word = text.rpartition(" ")
    words = before.split()
    if not words:
        names = {name.split(" ")[0] for name in HMP_COMMANDS}
    elif words == ["info"]:
        names = _topics()
    else:
        names = set(_arguments(context, words, before))
    return word, sorted(name for name in names if name.startswith(word))


def _topics() -> set[str]:
    return {name.split(" ")[1] for name in HMP_COMMANDS if name.startswith("info ")}


def _arguments(context: Context, words: list[str], before: str) -> Iterable[str]:
    try:
        made, rest = find(before)
    except CommandError:
        return ()
    if made is None:
        return ()
    given = [w for w in rest.split() if not w.startswith("-")]
    plain = [m for m in made.members if not m.arg.flag]
    if words == ["help", "info"]:
        return _topics()
    return _choices(context, plain[len(given)]) if len(given) < len(plain) else ()


def _choices(context: Context, member: Member) -> Iterable[str]:
    kind = member.arg.complete
    if kind == "command":
        return {name.split(" ")[0] for name in HMP_COMMANDS}
    if kind == "parameter":
        return context.migration.parameters
    if kind == "capability":
        return context.migration.capabilities
    return ("on", "off") if kind == "switch" or member.kind is bool else ()
