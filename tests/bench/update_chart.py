"""Draw the pauses of ``make bench-update`` as SVG: two bars a case, on a logarithmic scale of milliseconds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from update_report import Row
    from update_stats import Summary

WIDTH, LEFT, RIGHT, TOP = 860, 250, 120, 74
BAR, GROUP = 13, 38
COLOURS = {"instar": "#0b7a75", "qemu": "#b0703c"}
NAMES = {"instar": "Instar", "qemu": "QEMU"}
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#333}"
    ".small{font-size:11px;fill:#666}.title{font-size:16px;font-weight:600}"
)


def chart(rows: Sequence[Row], subtitle: str) -> str:
    """Return the picture.

    Args:
        rows: The lines of one figure, milliseconds.
        subtitle: What the reader must know of the run.
    """
    values = [
        value
        for row in rows
        for side in (row.instar, row.qemu)
        if side
        for value in (side.median, side.p99)
    ]
    low, high = decades(values)
    height = TOP + GROUP * len(rows) + 34
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">',
        f"<style>{_STYLE}</style>",
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        '<text class="title" x="16" y="26">For how long a guest stands still in an update</text>',
        f'<text class="small" x="16" y="45">{escape(subtitle)}</text>',
        *grid(low, high, height),
    ]
    for number, row in enumerate(rows):
        y = TOP + GROUP * number
        parts.append(
            f'<text x="{LEFT - 10}" y="{y + 19}" text-anchor="end">{escape(row.case.name)}</text>'
        )
        for line, (side, found) in enumerate((("instar", row.instar), ("qemu", row.qemu))):
            if found:
                parts += bar(side, found, y + 3 + line * (BAR + 2), (low, high))
    parts += legend(height - 10)
    return "\n".join([*parts, "</svg>"]) + "\n"


def decades(values: Sequence[float]) -> tuple[int, int]:
    """Return the powers of ten that enclose the values and 1 to 1000; what is under 0.01 counts as that."""
    shown = [max(value, 0.01) for value in values] or [1.0]
    low, high = math.floor(math.log10(min(shown))), math.ceil(math.log10(max(shown)))
    return min(low, 0), max(high, 3)


def place(value: float, scale: tuple[int, int]) -> float:
    """Return where a value is, in units of the picture from its left."""
    low, high = scale
    part = (math.log10(max(value, 10.0**low)) - low) / (high - low)
    return LEFT + part * (WIDTH - LEFT - RIGHT)


def grid(low: int, high: int, height: int) -> list[str]:
    """Return a line with its number for each power of ten."""
    found: list[str] = []
    for power in range(low, high + 1):
        x = place(10.0**power, (low, high))
        found += [
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 4}" y2="{height - 32}" stroke="#ddd"/>',
            f'<text class="small" x="{x:.1f}" y="{TOP - 9}" text-anchor="middle">{10.0**power:g} ms</text>',
        ]
    return found


def bar(side: str, found: Summary, y: int, scale: tuple[int, int]) -> list[str]:
    """Return a bar up to the median, a line on to p99, and the median in figures."""
    end, far = place(found.median, scale), place(found.p99, scale)
    colour, middle = COLOURS[side], y + BAR / 2
    return [
        f'<rect x="{LEFT}" y="{y}" width="{max(end - LEFT, 1):.1f}" height="{BAR}" fill="{colour}"/>',
        f'<line x1="{end:.1f}" x2="{far:.1f}" y1="{middle}" y2="{middle}" stroke="{colour}" stroke-width="2"/>',
        f'<text class="small" x="{far + 6:.1f}" y="{y + BAR - 2}">{found.median:.1f}</text>',
    ]


def legend(y: int) -> list[str]:
    """Return what the colours mean."""
    found = [f'<text class="small" x="430" y="{y}">bar: median, line: to p99; logarithmic</text>']
    for number, (side, colour) in enumerate(COLOURS.items()):
        x = LEFT + 80 * number
        found += [
            f'<rect x="{x}" y="{y - 10}" width="12" height="12" fill="{colour}"/>',
            f'<text class="small" x="{x + 17}" y="{y}">{NAMES[side]}</text>',
        ]
    return found
