"""Make the functions that read and write control and status registers, from their table."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from instar.cpu.rv64.csrs import Csr

ALL = (1 << 64) - 1
HEAD = ("@cython.cfunc", "@cython.nogil", "@cython.exceptval(check=False)")


def registers(csrs: Iterable[Csr]) -> str:
    """Return the source of ``csr_read(c, n)`` (sets ``c.fault`` for what is not there) and ``csr_write(c, n, v)``."""
    rows = list(csrs)
    read = [*HEAD, "def csr_read(c: pCpu, n: u32) -> u64:", "    c.fault = 0"]
    write = [*HEAD, "def csr_write(c: pCpu, n: u32, v: u64) -> cython.void:"]
    for number, row in enumerate(rows):
        test = f"    {'elif' if number else 'if'} n == {row.number:#x}:  # {row.name}"
        read += [test, *(f"        {line}" for line in read_lines(row))]
        write += [test, *(f"        {line}" for line in write_lines(row))]
    read += ["    c.fault = 1", "    return 0", "", ""]
    return "\n".join([*read, *write])


def saved_words(csrs: Iterable[Csr], names: Iterable[str]) -> str:
    """Return the source of ``hart_word(c, k)``, ``HART_WORDS`` and ``csr_clean(c)``.

    ``csr_clean`` takes out of what was loaded the bits that no write could have set.
    """
    words = list(names)
    lines = [*HEAD, "def hart_word(c: pCpu, k: cython.int) -> P_u64:"]
    for number, name in enumerate(words):
        lines += [f"    if k == {number}:", f"        return cython.address(c.{name})"]
    lines += ["    return cython.NULL", "", "", f"HART_WORDS = {tuple(words)!r}", "", ""]
    masks: dict[str, int] = {}
    for row in csrs:
        if row.field and row.write:
            masks[row.field] = masks.get(row.field, 0) | row.write
    lines += [*HEAD, "def csr_clean(c: pCpu) -> cython.void:"]
    lines += [f"    c.{name} &= {mask:#x}" for name, mask in masks.items() if mask != ALL]
    return "\n".join(lines)


def read_lines(row: Csr) -> list[str]:
    """Return what reading does; falling through means that it may not be read."""
    if row.reader:
        value = f"{row.reader}(c, n)"
    elif row.field:
        value = f"c.{row.field}"
    else:
        value = f"{row.value:#x}"
    if row.read != ALL:
        value = f"{value} & {row.read:#x}"
    if row.guard:
        return [f"if {row.guard}(c, n):", f"    return {value}"]
    return [f"return {value}"]


def write_lines(row: Csr) -> list[str]:
    """Return what writing does; the guard has been asked by the read before it."""
    if row.writer:
        return [f"{row.writer}(c, n, v)"]
    if row.field and row.write == ALL:
        return [f"c.{row.field} = v"]
    if row.field and row.write:
        return [
            f"c.{row.field} = (c.{row.field} & ~cast(u64, {row.write:#x})) | (v & {row.write:#x})"
        ]
    return ["pass"]
