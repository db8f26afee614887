"""The harts: list, registers, and guest memory as they see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

from instar.errors import GuestMemoryError
from instar.monitor.command import Arg, Hmp, command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from instar.monitor.command import UnitFormat
    from instar.monitor.context import Context, CpuInfo

    Reader = Callable[[int, int], bytes]

_PER_ROW: Final = 3  # registers
_MASK: Final = (1 << 64) - 1
_PAGE: Final = 4096  # a virtual range is contiguous in physical memory only within one


@dataclass
class CpuProperties:
    """Where a hart sits."""

    core_id: Annotated[int, Arg("Number of the core.")]


@dataclass
class CpuFastInfo:
    """One hart."""

    thread_id: Annotated[int, Arg("The host's id of the thread that runs it.")]
    qom_type: Annotated[str, Arg("Model.")]
    props: Annotated[CpuProperties, Arg("Where it sits.")]
    qom_path: Annotated[str, Arg("Where it is in the machine.")]
    cpu_index: Annotated[int, Arg("Number of the hart, from 0.")]
    target: Annotated[str, Arg("Architecture.")]


def _cpus(cpus: list[CpuFastInfo]) -> str:
    lines = [
        f"{'*' if c.cpu_index == 0 else ' '} CPU #{c.cpu_index}: thread_id={c.thread_id} "
        f"model={c.qom_type.split('-')[0]}\n"
        for c in cpus
    ]
    return "".join(lines)


@command(hmp=Hmp("info cpus", _cpus))
def query_cpus_fast(ctx: Context) -> list[CpuFastInfo]:
    """Show the harts.

    -> {"execute": "query-cpus-fast"}
    <- {"return": [{"thread-id": 1234, "qom-type": "rv64-riscv-cpu", "props": {"core-id": 0},
        "qom-path": "/machine/cpu[0]", "cpu-index": 0, "target": "riscv64"}]}

    (instar) info cpus
    * CPU #0: thread_id=1234 model=rv64
    """
    return [
        CpuFastInfo(
            thread_id=cpu.thread_id,
            qom_type=cpu.qom_type,
            props=CpuProperties(core_id=cpu.index),
            qom_path=f"/machine/cpu[{cpu.index}]",
            cpu_index=cpu.index,
            target=cpu.target,
        )
        for cpu in ctx.machine.cpus
    ]


@command(qmp=False, hmp=Hmp("info registers"))
def info_registers(
    ctx: Context, *, all_cpus: Annotated[bool, Arg("All harts.", flag="a")] = False
) -> str:
    """Show the registers of the first hart (-a: of all harts).

    (instar) info registers
    CPU#0
     pc    0000000080000000 x2/sp 0000000080001000
    """
    cpus = ctx.machine.cpus if all_cpus else ctx.machine.cpus[:1]
    return "".join(_registers(cpu) for cpu in cpus)


def _registers(cpu: CpuInfo) -> str:
    registers = cpu.registers()
    width = max(map(len, registers))
    cells = [f" {name:<{width}} {value:016x}" for name, value in registers.items()]
    rows = ["".join(cells[n : n + _PER_ROW]) for n in range(0, len(cells), _PER_ROW)]
    return "\n".join([f"CPU#{cpu.index}", *rows]) + "\n"


@command(qmp=False, hmp=Hmp("x"))
def x(
    ctx: Context,
    *,
    fmt: Annotated[UnitFormat, Arg("Count, format (x d u o c i), size (b h w g).", form="format")],
    addr: Annotated[int, Arg("Virtual address, as the first hart maps it.", form="expression")],
) -> str:
    """Dump guest memory at virtual address 'addr'.

    (instar) x/2xw 0x1000
    0000000000001000: 0x00000013 0x00008067
    """
    cpu = ctx.machine.cpus[0]

    pages: dict[int, int] = {}  # a translation parks the hart: one is enough for a page

    def read(address: int, length: int) -> bytes:
        out = b""
        while len(out) < length:
            here = (address + len(out)) & _MASK
            offset = here % _PAGE
            if here - offset not in pages:
                pages[here - offset] = cpu.translate(here - offset)
            page = pages[here - offset]
            if page < 0:
                raise GuestMemoryError(here, 1, "not mapped")
            out += ctx.machine.read_physical(page + offset, min(length - len(out), _PAGE - offset))
        return out

    return dump(read, addr, fmt, cpu)


@command(qmp=False, hmp=Hmp("xp"))
def xp(
    ctx: Context,
    *,
    fmt: Annotated[UnitFormat, Arg("Count, format (x d u o c i), size (b h w g).", form="format")],
    addr: Annotated[int, Arg("Guest physical address.", form="expression")],
) -> str:
    """Dump guest memory at physical address 'addr'.

    (instar) xp /2i 0x80000000
    0x0000000080000000: 00000013  nop
    0x0000000080000004: 00008067  ret
    """
    return dump(ctx.machine.read_physical, addr, fmt, ctx.machine.cpus[0])


def dump(read: Reader, address: int, fmt: UnitFormat, cpu: CpuInfo) -> str:
    """Return ``fmt.count`` units from ``address``; where memory ends, the text says so.

    Args:
        read: Gives the bytes at an address; GuestMemoryError if there are none.
        address: Of the first unit.
        fmt: What to show.
        cpu: Whose instructions they are.
    """
    shown: list[str] = []
    units = (
        _instructions(read, address, fmt, cpu) if fmt.letter == "i" else _rows(read, address, fmt)
    )
    try:
        shown.extend(units)
    except GuestMemoryError:
        shown.append("Cannot access memory\n")
    return "".join(shown)


def _instructions(read: Reader, address: int, fmt: UnitFormat, cpu: CpuInfo) -> Iterator[str]:
    for _ in range(fmt.count):
        length, text = cpu.disassemble(read, address)
        yield f"0x{address & _MASK:016x}: {text}\n"
        address += length


def _rows(read: Reader, address: int, fmt: UnitFormat) -> Iterator[str]:
    per_row = (8 if fmt.letter == "c" else 16) // fmt.size
    for first in range(0, fmt.count, per_row):
        here = address + first * fmt.size
        row: list[str] = []
        try:
            for n in range(min(per_row, fmt.count - first)):
                unit = read(here + n * fmt.size, fmt.size)
                row.append(_unit(int.from_bytes(unit, "little"), fmt))
        except GuestMemoryError:
            if row:  # memory ends in this row: show what there is
                yield _row(here, row)
            raise
        yield _row(here, row)


def _row(address: int, units: list[str]) -> str:
    return f"{address & _MASK:016x}: {' '.join(units)}\n"


def _unit(value: int, fmt: UnitFormat) -> str:
    bits = 8 * fmt.size
    decimal = (bits * 10 + 32) // 33  # digits that the largest value can have
    signed = value - (1 << bits) if value >> (bits - 1) else value
    match fmt.letter:
        case "o":
            return f"0{value:0{(bits + 2) // 3}o}"
        case "u":
            return f"{value:>{decimal}}"
        case "d":
            return f"{signed:>{decimal}}"
        case "c":
            return _char(value & 0xFF)
        case _:
            return f"0x{value:0{bits // 4}x}"


def _char(value: int) -> str:
    named = {0x27: "\\'", 0x5C: "\\\\", 0x0A: "\\n", 0x0D: "\\r"}
    if value in named:
        return f"'{named[value]}'"
    return f"'{chr(value)}'" if 0x20 <= value < 0x7F else f"'\\x{value:02x}'"
