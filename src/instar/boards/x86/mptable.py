"""The MP table: processors and interrupts for kernels without ACPI.

Source: Intel MultiProcessor Specification 1.4, chapter 4.
"""

from __future__ import annotations

import struct

from instar.boards.x86 import board_map
from instar.boards.x86.layout import MP_TABLE, MP_TABLE_SIZE
from instar.errors import InternalBugError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_POINTER: Final = struct.Struct("<4sIBBB5s")
_HEADER: Final = struct.Struct("<4sHBB8s12sIHHIHBB")
_VERSION: Final = 4  # 1.4
_APIC_VERSION: Final = 0x14
_IOAPIC_VERSION: Final = 0x11
_ISA_BUS: Final = 0
_ISA_IRQS: Final = 16
_EDGE_HIGH, _LEVEL_HIGH = 0x5, 0xD
_INT, _NMI, _EXTINT = 0, 1, 3
_ALL: Final = 0xFF
# Family 6 with an APIC on the chip; kernels ask CPUID for the truth.
_SIGNATURE: Final = 0x600
_FEATURES: Final = 0x201
MAX_CPUS: Final = 16  # more do not fit; kernels of larger machines have ACPI


def mp_table(vcpus: int) -> bytes:
    """Return the floating pointer and the table, to be put at ``layout.MP_TABLE``.

    Raises:
        InternalBugError: it needs more room than there is.
    """
    entries = _entries(vcpus)
    body = b"".join(entries)
    length = _HEADER.size + len(body)
    head = (
        *(b"PCMP", length, _VERSION, 0, b"INSTAR  ", b"MICROVM     ", 0, 0, len(entries)),
        *(board_map.LAPIC_BASE, 0, 0, 0),
    )
    table = bytearray(_HEADER.pack(*head) + body)
    table[7] = -sum(table) & 0xFF
    pointer = bytearray(_POINTER.pack(b"_MP_", MP_TABLE + _POINTER.size, 1, _VERSION, 0, b""))
    pointer[10] = -sum(pointer) & 0xFF
    if len(pointer) + len(table) > MP_TABLE_SIZE:
        raise InternalBugError(f"MP table of {len(table)} bytes, room for {MP_TABLE_SIZE}")
    return bytes(pointer + table)


def _entries(vcpus: int) -> list[bytes]:
    """Return processors, bus, IOAPIC and interrupts, in this order, as the specification wants them."""
    ioapic = vcpus  # its id comes after those of the processors
    entries = [
        struct.pack(
            "<BBBBII8x", 0, cpu, _APIC_VERSION, 3 if cpu == 0 else 1, _SIGNATURE, _FEATURES
        )
        for cpu in range(vcpus)
    ]
    entries.append(struct.pack("<BB6s", 1, _ISA_BUS, b"ISA   "))
    entries.append(struct.pack("<BBBBI", 2, ioapic, _IOAPIC_VERSION, 1, board_map.IOAPIC_BASE))
    entries += [
        _interrupt(
            3,
            _INT,
            _trigger(irq),
            irq,
            ioapic,
            board_map.TIMER_GSI if irq == board_map.TIMER_IRQ else irq,
        )
        for irq in range(_ISA_IRQS)
        if irq != 2  # the cascade
    ]
    entries += [
        _interrupt(3, _INT, _LEVEL_HIGH, gsi, ioapic, gsi)
        for gsi in range(_ISA_IRQS, board_map.IOAPIC_PINS)
    ]
    entries.append(_interrupt(4, _EXTINT, 0, 0, _ALL, 0))
    entries.append(_interrupt(4, _NMI, 0, 0, _ALL, 1))
    return entries


def _trigger(irq: int) -> int:
    return _LEVEL_HIGH if irq == board_map.GED_GSI else _EDGE_HIGH


def _interrupt(entry: int, kind: int, flags: int, irq: int, apic: int, pin: int) -> bytes:
    return struct.pack("<BBHBBBB", entry, kind, flags, _ISA_BUS, irq, apic, pin)
