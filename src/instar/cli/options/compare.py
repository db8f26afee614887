"""What tells two machines apart: differences between the configuration that runs and that of a command line.

Source: own.
"""

from __future__ import annotations

from instar.cli.options.config import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

    from instar.cli.options.config import Config

# Attribute -> the option that people know. What else differs is the next program's own business.
_ONE: Final = {
    "accel": "-accel",
    "machine": "-machine",
    "cpu": "-cpu",
    "smp": "-smp",
    "memory_size": "-m",
    "serial": "-serial",
    "icount": "-icount",
    "uuid": "-uuid",
    "sandbox": "-sandbox",
}
_MANY: Final = {
    "memory_backends": ("-object memory backend", "id"),
    "rngs": ("-object rng", "id"),
    "blocks": ("drive", "id"),
    "netdevs": ("-netdev", "id"),
    "devices": ("-device in slot", "slot"),
    "chardevs": ("-chardev", "id"),
    "monitors": ("-mon", "id"),
    "children": ("-child", "name"),
}
_OWN: Final = ("serial", "chardevs", "monitors", "children")


def differences(running: Config, wanted: Config, *, beside: bool = False) -> list[str]:
    """Return in what ``wanted`` is not the machine that runs, one sentence each.

    Args:
        running: What runs.
        wanted: What is to take over.
        beside: Both run for a while: character devices, monitors and children are each one's own.
    """
    found: list[str] = []
    for name, option in _ONE.items():
        if beside and name in _OWN:
            continue
        mine, other = getattr(running, name), getattr(wanted, name)
        if mine == other:
            continue
        if isinstance(mine, Record):
            found.append(f"{option}: {_fields(mine, other)}")
        else:
            found.append(
                f"{option}: the machine has {_short(mine)}, the command line {_short(other)}"
            )
    if running.exec_allow:
        found += [
            f"-exec-allow: the command line allows {_short(path)}, the program that runs does not"
            for path in wanted.exec_allow or ["anything"]
            if path not in running.exec_allow
        ]
    for name, (what, key) in _MANY.items():
        if beside and name in _OWN:
            continue
        found += _compare(what, key, getattr(running, name), getattr(wanted, name))
    return found


def _compare(
    what: str, key: str, running: Sequence[Record], wanted: Sequence[Record]
) -> list[str]:
    mine = {getattr(item, key): item for item in running}
    others = {getattr(item, key): item for item in wanted}
    found = [f"{what} {ident}: the command line lacks it" for ident in mine if ident not in others]
    found += [f"{what} {ident}: the machine has none" for ident in others if ident not in mine]
    for ident, item in mine.items():
        if ident in others and item != others[ident]:
            found.append(f"{what} {ident}: {_fields(item, others[ident])}")
    return found


def _fields(mine: Record, other: Record) -> str:
    if type(mine) is not type(other):
        return "it is of another kind"
    return ", ".join(
        f"{name} is {_short(getattr(mine, name))}, on the command line {_short(getattr(other, name))}"
        for name in mine.__slots__
        if getattr(mine, name) != getattr(other, name)
    )


def _short(value: object) -> str:
    text = "none" if value in ("", None) else str(value)
    return text if len(text) <= 80 else text[:77] + "..."
