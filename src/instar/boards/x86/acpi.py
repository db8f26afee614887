"""ACPI tables of the board ``microvm``: hardware-reduced, devices named in the DSDT.

Source: ACPI specification 6.5: 5.2.5 (RSDP), 5.2.8 (XSDT), 5.2.9 (FADT), 5.2.12 (MADT), 4.1 (hardware-reduced), 4.8.4.
"""

from __future__ import annotations

import struct

from instar.boards.x86 import aml, board_map
from instar.boards.x86.layout import ACPI_SIZE, ACPI_TABLES
from instar.errors import InternalBugError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

_OEM: Final = b"INSTAR"
_OEM_TABLE: Final = b"MICROVM "
_CREATOR: Final = b"INST"
_HEADER: Final = struct.Struct("<4sIBB6s8sI4sI")
_RSDP: Final = struct.Struct("<8sB6sBIIQB3s")
_RSDP_SHORT: Final = 20  # bytes that the first checksum covers
_ALIGN: Final = 64
FADT_SIZE: Final = 276
_IO_SPACE: Final = 1
_BYTE_ACCESS: Final = 1
_WBINVD, _PWR_BUTTON, _SLP_BUTTON, _RESET_REG, _HW_REDUCED = (
    1 << 0,
    1 << 4,
    1 << 5,
    1 << 10,
    1 << 20,
)
_NO_VGA: Final = 1 << 2  # boot architecture flags; the 8042 can only reset, so it is not announced
_XAPIC_IDS: Final = 255  # ids from here on are for x2APIC entries
_LEVEL_HIGH: Final = 0xD


def acpi_tables(vcpus: int) -> bytes:
    """Return all tables, to be put at ``layout.ACPI_TABLES``; the root pointer is the first.

    Args:
        vcpus: How many there are; their APIC ids count from 0.

    Raises:
        InternalBugError: they need more room than there is.
    """
    out = bytearray(-(-_RSDP.size // _ALIGN) * _ALIGN)

    def put(table: bytes) -> int:
        place = ACPI_TABLES + len(out)
        out.extend(table + bytes(-len(table) % _ALIGN))
        return place

    dsdt = put(_table(b"DSDT", 2, _dsdt()))
    fadt = put(_table(b"FACP", 6, _fadt(dsdt)))
    madt = put(_table(b"APIC", 5, _madt(vcpus)))
    xsdt = put(_table(b"XSDT", 1, struct.pack("<QQ", fadt, madt)))
    out[: _RSDP.size] = _rsdp(xsdt)
    if len(out) > ACPI_SIZE:
        raise InternalBugError(f"ACPI tables of {len(out)} bytes, room for {ACPI_SIZE}")
    return bytes(out)


def _checksum(data: bytes | bytearray) -> int:
    return -sum(data) & 0xFF


def _table(signature: bytes, revision: int, body: bytes) -> bytes:
    """Return a table with its header (5.2.6)."""
    length = _HEADER.size + len(body)
    parts = (signature, length, revision, 0, _OEM, _OEM_TABLE, 1, _CREATOR, 1)
    table = bytearray(_HEADER.pack(*parts) + body)
    table[9] = _checksum(table)
    return bytes(table)


def _rsdp(xsdt: int) -> bytes:
    rsdp = bytearray(_RSDP.pack(b"RSD PTR ", 0, _OEM, 2, 0, _RSDP.size, xsdt, 0, b""))
    rsdp[8] = _checksum(rsdp[:_RSDP_SHORT])
    rsdp[32] = _checksum(rsdp)
    return bytes(rsdp)


def _register(port: int) -> bytes:
    """Return a generic address: a byte at an I/O port (5.2.3.2)."""
    return struct.pack("<BBBBQ", _IO_SPACE, 8, 0, _BYTE_ACCESS, port)


def _fadt(dsdt: int) -> bytes:
    """Return the fixed description behind its header; offsets as in table 5.9."""
    table = bytearray(FADT_SIZE)
    flags = _WBINVD | _PWR_BUTTON | _SLP_BUTTON | _RESET_REG | _HW_REDUCED
    for offset, data in (
        (109, struct.pack("<H", _NO_VGA)),
        (112, struct.pack("<I", flags)),
        (116, _register(board_map.RESET)),
        (128, bytes((board_map.RESET_VALUE,))),
        (131, b"\x05"),  # minor version: 6.5
        (140, struct.pack("<Q", dsdt)),
        (244, _register(board_map.SLEEP_CONTROL)),
        (256, _register(board_map.SLEEP_STATUS)),
        (268, b"INSTAR\0\0"),  # hypervisor's vendor
    ):
        table[offset : offset + len(data)] = data
    return bytes(table[_HEADER.size :])


def _madt(vcpus: int) -> bytes:
    """Return interrupt controllers; ISA interrupts are the pins of their numbers, but for the timer."""
    body = struct.pack("<II", board_map.LAPIC_BASE, 0)
    for apic_id in range(vcpus):
        if apic_id < _XAPIC_IDS:
            body += struct.pack("<BBBBI", 0, 8, apic_id, apic_id, 1)
        else:
            body += struct.pack("<BBHIII", 9, 16, 0, apic_id, 1, apic_id)
    body += struct.pack("<BBBBII", 1, 12, 0, 0, board_map.IOAPIC_BASE, 0)
    timer, gsi = board_map.TIMER_GSI, board_map.GED_GSI
    body += struct.pack("<BBBBIH", 2, 10, 0, board_map.TIMER_IRQ, timer, 0)
    body += struct.pack("<BBBBIH", 2, 10, 0, gsi, gsi, _LEVEL_HIGH)
    body += struct.pack("<BBBHB", 4, 6, 0xFF, 0, 1)  # every processor: LINT1 is the NMI
    return body


def _dsdt() -> bytes:
    slots = [_virtio(slot) for slot in range(board_map.VIRTIO_SLOTS)]
    button = aml.device("PWRB", _ids("PNP0C0C", 0))
    off = aml.package(aml.integer(board_map.SOFT_OFF), aml.ZERO, aml.ZERO, aml.ZERO)
    return aml.scope("\\_SB", button, _events(), _panic(), _rtc(), _serial(), *slots) + aml.named(
        "\\_S5", off
    )


def _ids(hid: str, uid: int) -> bytes:
    return aml.named("_HID", aml.eisa_id(hid)) + aml.named("_UID", aml.integer(uid))


def _crs(descriptors: Sequence[bytes]) -> bytes:
    return aml.named("_CRS", aml.resources(*descriptors))


def _virtio(slot: int) -> bytes:
    base = board_map.VIRTIO_BASE + slot * board_map.VIRTIO_STRIDE
    return aml.device(
        f"VIO{slot}",
        aml.named("_HID", aml.string("LNRO0005")),
        aml.named("_UID", aml.integer(slot)),
        _crs(
            (
                aml.memory32_fixed(base, board_map.VIRTIO_STRIDE),
                aml.interrupt(board_map.VIRTIO_GSI + slot),
            )
        ),
    )


def _events() -> bytes:
    """Return the generic event device: its register says what happened, reading it acknowledges (5.6.9)."""
    pressed = aml.equal(aml.bit_and(aml.LOCAL0, aml.ONE), aml.ONE)
    return aml.device(
        "GED_",
        aml.named("_HID", aml.string("ACPI0013")),
        aml.named("_UID", aml.ZERO),
        _crs((aml.interrupt(board_map.GED_GSI),)),
        aml.memory_region("EREG", board_map.GED_BASE, 4),
        aml.words("EREG", "ESEL"),
        aml.method(
            "_EVT",
            1,
            aml.store(aml.name("ESEL"), aml.LOCAL0),
            aml.if_(pressed, aml.notify("PWRB", 0x80)),
        ),
    )


def _panic() -> bytes:
    """Return pvpanic (QEMU docs/specs/pvpanic, ACPI interface)."""
    hid = aml.named("_HID", aml.string("QEMU0001"))
    return aml.device("PEVT", hid, _crs((aml.memory32_fixed(board_map.PVPANIC_BASE, 2),)))


def _rtc() -> bytes:
    descriptors = (aml.io_ports(board_map.RTC_PORT, 2), aml.isa_irq(board_map.RTC_IRQ))
    return aml.device("RTC_", aml.named("_HID", aml.eisa_id("PNP0B00")), _crs(descriptors))


def _serial() -> bytes:
    descriptors = (
        aml.io_ports(board_map.UART_PORT, board_map.UART_PORTS),
        aml.isa_irq(board_map.UART_IRQ),
    )
    return aml.device("COM1", _ids("PNP0501", 1), _crs(descriptors))
