"""What tells two machines apart: the configuration that runs, and that of a command line that is to go on with it.

Three kinds of things are on a command line: what the guest can see or what would be lost (a difference is a complaint),
what the host does with the guest (a difference takes effect, and is worth a note), and what matters only when a guest
boots (its images are kept, so a difference takes effect at the next start of the program).

Source: own; docs/decisions/0008.
"""

from __future__ import annotations

import os

from instar.cli.options.config import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from typing import Final

    from instar.cli.options.config import Config

    Carried = Collection[tuple[str, str]]

# Attribute -> the option that people know.
_SEEN: Final = {
    "name": "-name",
    "uuid": "-uuid",
    "machine": "-machine",
    "accel": "-accel",
    "cpu": "-cpu",
    "smp": "-smp",
    "memory_size": "-m",
    "rtc": "-rtc",
    "icount": "-icount",
    "serial": "-serial",
    "sandbox": "-sandbox",
}
_OWN: Final = (
    "serial",
    "chardevs",
    "monitors",
    "children",
)  # where both run for a while, each has its own
_LISTS: Final = {
    "memory_backends": ("-object memory-backend", "id"),
    "rngs": ("-object rng", "id"),
    "blocks": ("drive", "id"),
    "netdevs": ("-netdev", "id"),
    "devices": ("-device in slot", "slot"),
    "chardevs": ("-chardev", "id"),
    "monitors": ("-mon", "id"),
    "children": ("-child", "name"),
}
_TAKE_EFFECT: Final = {
    "actions": "-action",
    "no_reboot": "-no-reboot",
    "no_shutdown": "-no-shutdown",
    "pidfile": "-pidfile",
}
_AT_BOOT: Final = {
    "kernel": "-kernel",
    "initrd": "-initrd",
    "append": "-append",
    "seed": "-seed",
    "process_name": "-name process",
}
# Fields of the things in lists that are the host's business: neither seen by the guest nor lost.
_POLICY: Final = {
    "memory_backends": {"prealloc", "mem_path"},
    "blocks": {"filename", "rerror", "werror", "limits", "throttle_group", "kind"},
    "devices": {"rerror", "werror", "drain_ms", "id"},
    "chardevs": {"wait", "append", "signal", "nodelay", "reconnect_ms", "reopen_on_cpr", "family"},
    "monitors": {"pretty"},
    "children": {"command", "restart"},
}
_MIB: Final = 1 << 20


def differences(
    running: Config, wanted: Config, carried: Carried = (), *, beside: bool = False
) -> list[str]:
    """Return in what ``wanted`` is not the machine that runs, one sentence each.

    Args:
        running: What the machine is.
        wanted: What a command line means.
        carried: (attribute, id) of what was added or removed at run time: its state crosses without a command line.
        beside: Both run for a while: character devices, monitors and children are each one's own.
    """
    own = _OWN if beside else ()
    found: list[str] = []
    for name, option in _SEEN.items():
        if name in own:
            continue
        found += _one(option, getattr(running, name), getattr(wanted, name))
    if running.exec_allow:
        found += [
            f"-exec-allow: the command line allows {_short(path)}, the program that runs does not"
            for path in wanted.exec_allow or ["anything"]
            if path not in running.exec_allow
        ]
    for name, (what, key) in _LISTS.items():
        if name in own:
            continue
        mine, others = (_by_key(getattr(c, name), key) for c in (running, wanted))
        for ident in sorted({*mine, *others}, key=str):
            if (name, ident) in carried:
                continue
            found += [
                f"{what} {ident}: {text}"
                for text in _pair(name, mine.get(ident), others.get(ident))
            ]
    return found


def changes(running: Config, wanted: Config) -> list[str]:
    """Return what ``wanted`` would do otherwise without harm, one sentence each."""
    found: list[str] = []
    for name, option in _TAKE_EFFECT.items():
        found += _one(option, getattr(running, name), getattr(wanted, name))
    for name, option in _AT_BOOT.items():
        if getattr(running, name) != getattr(wanted, name):
            found.append(
                f"{option}: it differs, and takes effect when the program is started anew"
            )
    if wanted.start_paused:
        found.append("-S: the guest will stand still after the update")
    for name, (what, key) in _LISTS.items():
        mine, others = (_by_key(getattr(c, name), key) for c in (running, wanted))
        for ident in sorted({*mine} & {*others}, key=str):
            one, other = mine[ident], others[ident]
            if type(one) is type(other):
                text = _fields(one, other, _POLICY.get(name, set()))
                found += [f"{what} {ident}: {text}"] if text else []
    known = {child.name for child in running.children}
    new = [child.name for child in wanted.children if child.name not in known]
    return [*found, *(f"-child {name}: it will be started" for name in new)]


def _one(option: str, mine: object, other: object) -> list[str]:
    if mine == other:
        return []
    if isinstance(mine, Record) and type(mine) is type(other):
        assert isinstance(other, Record)
        return [f"{option}: {_fields(mine, other, {*mine.__slots__})}"]
    return [f"{option}: the machine has {_short(mine)}, the command line {_short(other)}"]


def _by_key(items: Sequence[Record], key: str) -> dict[object, Record]:
    return {getattr(item, key): item for item in items}


def _pair(name: str, mine: Record | None, other: Record | None) -> Iterator[str]:
    """Yield what is wrong with two things of one id."""
    if other is None:
        yield "the command line lacks it"
    elif mine is None:
        if name != "children":
            yield "the machine has none"
    elif type(mine) is not type(other):
        yield f"it is a {_kind(mine)}, on the command line a {_kind(other)}"
    else:
        text = _fields(mine, other, {*mine.__slots__} - _POLICY.get(name, set()))
        if text:
            yield text
        if name == "blocks":
            yield from _files(mine, other)


def _files(mine: Record, other: Record) -> Iterator[str]:
    """Compare the files behind two names: one file may have several."""
    one, two = str(getattr(mine, "filename", "")), str(getattr(other, "filename", ""))
    if one == two:
        return
    try:
        same = os.path.samefile(one, two)
    except OSError:  # gone, or no file's name
        same = False
    if not same:
        yield f"its file is {one}, on the command line {two}"


def _kind(item: Record) -> str:
    return str(getattr(item, "driver", type(item).__name__))


def _fields(mine: Record, other: Record, names: set[str]) -> str:
    """Return the fields among ``names`` that differ; "" if none does."""
    pairs = [(name, getattr(mine, name), getattr(other, name)) for name in mine.__slots__]
    return ", ".join(
        f"{name.replace('_', '-')} is {_short(one)}, on the command line {_short(two)}"
        for name, one, two in pairs
        if name in names and one != two
    )


def _short(value: object) -> str:
    """Return a value for people."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int) and value and value % _MIB == 0:
        return f"{value // _MIB} MiB"
    if value is None or value in ("", [], {}):
        return "none"
    text = str(value)  # pyright: ignore[reportUnknownArgumentType]
    return text if len(text) <= 80 else text[:77] + "..."
