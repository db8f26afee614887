"""Registers of a vCPU as a kernel wants to find them: what a boot loader would have left behind.

Each returns ``struct kvm_sregs`` and ``struct kvm_regs``; tables and code are the board's, in guest RAM.

Source: AMD64 Architecture Programmer's Manual 2, 4.8 (descriptors); Linux
Documentation/arch/x86/boot.rst, "64-bit Boot Protocol"; Xen docs/misc/pvh.pandoc, "Xen/x86 PVH: Booting".
"""

from __future__ import annotations

from instar.cpu.kvm import uapi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

CR0_PE: Final = 1 << 0
CR0_ET: Final = 1 << 4
CR0_NE: Final = 1 << 5
CR0_PG: Final = 1 << 31
CR4_PAE: Final = 1 << 5
EFER_LME_LMA: Final = 1 << 8 | 1 << 10
RFLAGS: Final = 2  # the bit that is always set; interrupts are off
_APIC: Final = 0xFEE00000 | 1 << 11 | 1 << 8  # where it is, enabled, the bootstrap processor's
_ALL: Final = 0xFFFFFFFF
_CODE: Final = 0xB  # execute, read, accessed
_DATA: Final = 0x3  # read, write, accessed
_LDT: Final = 0x2
_TSS: Final = 0xB  # busy, of 32 or 64 bits


def registers(named: Mapping[str, int]) -> bytes:
    """Return ``struct kvm_regs``: 0 what is not named, RFLAGS with interrupts off."""
    values = {"rflags": RFLAGS, **named}
    return uapi.REGS.pack(*(values.get(name, 0) for name in uapi.REG_NAMES))


def real(entry: int) -> tuple[bytes, bytes]:
    """Return a vCPU in real mode with all segments at 0; ``entry`` is below 64 KiB."""
    data = _segment(0, _DATA, limit=0xFFFF)
    system = _segment(0, _TSS, s=0, limit=0xFFFF) + _segment(0, _LDT, s=0, limit=0xFFFF)
    tables = 2 * uapi.DTABLE.pack(0, 0x3FF)
    control = uapi.CONTROL.pack(CR0_ET, 0, 0, 0, 0, 0, _APIC)
    code = _segment(0, _CODE, limit=0xFFFF)
    return code + 5 * data + system + tables + control + bytes(32), registers({"rip": entry})


def protected(entry: int, named: Mapping[str, int]) -> tuple[bytes, bytes]:
    """Return a vCPU in 32-bit protected mode without paging, all segments flat.

    Args:
        entry: Where it starts, below 4 GiB.
        named: General registers; PVH wants the start information's address in ``rbx``.
    """
    code = _segment(8, _CODE, db=1, g=1, limit=_ALL)
    data = _segment(16, _DATA, db=1, g=1, limit=_ALL)
    control = uapi.CONTROL.pack(CR0_PE | CR0_ET, 0, 0, 0, 0, 0, _APIC)
    sregs = code + 5 * data + _system() + 2 * uapi.DTABLE.pack(0, 0) + control + bytes(32)
    return sregs, registers({**named, "rip": entry})


def long_mode(
    entry: int, page_tables: int, named: Mapping[str, int], gdt: tuple[int, int] = (0, 0)
) -> tuple[bytes, bytes]:
    """Return a vCPU in 64-bit mode with paging.

    Args:
        entry: Where it starts.
        page_tables: Guest physical address of the top level table, 4 KiB aligned.
        named: General registers; Linux wants the boot parameters' address in ``rsi``.
        gdt: Address and limit of a table with a flat code segment at 0x10 and data at 0x18, as Linux wants it.
    """
    code = _segment(0x10, _CODE, long=1, g=1, limit=_ALL)
    data = _segment(0x18, _DATA, db=1, g=1, limit=_ALL)
    control = uapi.CONTROL.pack(
        CR0_PE | CR0_ET | CR0_NE | CR0_PG,
        0,
        page_tables,
        CR4_PAE,
        0,
        EFER_LME_LMA,
        _APIC,
    )
    tables = uapi.DTABLE.pack(*gdt) + uapi.DTABLE.pack(0, 0)
    sregs = code + 5 * data + _system() + tables + control + bytes(32)
    return sregs, registers({**named, "rip": entry})


def _system() -> bytes:
    return _segment(0, _TSS, s=0, limit=0x67) + _segment(0, _LDT, s=0, limit=0xFFFF)


def _segment(  # noqa: PLR0913 - as a descriptor has them
    selector: int,
    kind: int,
    *,
    base: int = 0,
    limit: int,
    s: int = 1,
    db: int = 0,
    long: int = 0,
    g: int = 0,
) -> bytes:
    return uapi.SEGMENT.pack(base, limit, selector, kind, 1, 0, db, s, long, g, 0, 0, 0)
