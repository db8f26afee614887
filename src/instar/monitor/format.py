"""``info migrate`` for people, in QEMU's layout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from collections.abc import Mapping

_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")

_OWNERS: Final = {
    "new": "with the new program",
    "old": "with the old program",
    "old-by-guardian": "with the old program, started by the guardian",
}
_SENTENCES: Final = {"Complaint": "complaints", "Note": "notes", "Closed": "unclaimed"}


def size(count: int) -> str:
    """Return a number of bytes as ``4 KiB``, at most three digits before the point."""
    value, unit = float(count), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value /= 1024
        unit += 1
    return f"{value:.3g} {_UNITS[unit]}" if value < 1000 else f"{value:.0f} {_UNITS[unit]}"


def migration_text(info: Mapping[str, object]) -> str:
    """Return the lines of ``info migrate`` for what ``query-migrate`` says."""
    lines: list[str] = []
    if "status" in info:
        why = f" ({info['error-desc']})" if "error-desc" in info else ""
        lines.append(f"Status: \t\t{info['status']}{why}")
    names = {"total": "total-time", "setup": "setup-time", "down": "downtime"}
    if times := ", ".join(
        f"{short}={info[name]}" for short, name in names.items() if name in info
    ):
        lines.append(f"Time (ms): \t\t{times}")
    if "ram" in info:
        lines += _ram(cast("Mapping[str, int]", info["ram"]))
    if "x-update" in info:
        lines += _update(cast("Mapping[str, object]", info["x-update"]))
    if reasons := cast("list[str]", info.get("blocked-reasons", [])):
        lines.append("Outgoing migration blocked:")
        lines += [f"  {reason}" for reason in reasons]
    return "".join(f"{line}\n" for line in lines)


def _ram(ram: Mapping[str, int]) -> list[str]:
    sent = f"transferred={size(ram['transferred'])}, remain={size(ram['remaining'])}"
    channels = ", ".join(
        f"{name}={size(ram.get(f'{name}-bytes', 0))}"
        for name in ("precopy", "multifd", "postcopy")
    )
    return [
        "RAM info:",
        f"  Throughput (Mbps): \t{ram['mbps']}",
        f"  Sizes: \t\tpagesize={size(ram['page-size'])}, total={size(ram['total'])}",
        f"  Transfers: \t\t{sent}",
        f"    Channels: \t\t{channels}",
        f"    Page Types: \tnormal={ram.get('normal', 0)}, zero={ram.get('duplicate', 0)}",
        f"  Page Rates (pps): \ttransfer={ram.get('pages-per-second', 0)}",
        f"  Others: \t\tdirty_syncs={ram.get('dirty-sync-count', 0)}",
    ]


_PAUSES: Final = (
    ("pause", "pause-us"),
    ("predicted", "predicted-pause-us"),
    ("for the rehearsal", "rehearsal-pause-us"),
)


def update_text(update: Mapping[str, object]) -> str:
    """Return the lines about an update (``x-update`` of query-migrate)."""
    return "".join(f"{line}\n" for line in _update(update))


def _update(update: Mapping[str, object]) -> list[str]:
    what = "Check" if update["check"] else "Update"
    versions = str(update["old-version"])
    if "new-version" in update:
        versions += f" -> {update['new-version']}"
    times = ", ".join(
        f"{name} {cast('int', update[key]) / 1000:.1f} ms"
        for name, key in _PAUSES
        if key in update
    )
    lines = [f"{what}: \t\t{versions}: {update['status']}{', ' if times else ''}{times}"]
    if "program" in update:
        digest = f" ({update['digest']})" if "digest" in update else ""
        lines.append(f"  Program: \t\t{update['program']}{digest}")
    phases = cast("list[Mapping[str, object]]", update["phases"])
    parts = ", ".join(f"{phase['name']} {cast('int', phase['us']) / 1000:.1f}" for phase in phases)
    lines.append(f"  Phases (ms): \t\t{parts}")
    lines.append(f"  Guest: \t\t{_OWNERS[str(update['owner'])]}, process {_pids(update)}")
    if "reason" in update:
        lines.append(f"  Reason: \t\t{update['reason']}")
    for title, key in _SENTENCES.items():
        lines += [f"  {title}: \t{text}" for text in cast("list[str]", update.get(key, []))]
    return lines


def _pids(update: Mapping[str, object]) -> str:
    before, now = update["old-pid"], update["new-pid"]
    return f"{now}" if before == now else f"{now} (before: {before})"
