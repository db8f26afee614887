"""Tables that describe the board: sums, references, and what is in them."""

from __future__ import annotations

import struct

import pytest

from instar.boards.x86 import aml, board_map, layout
from instar.boards.x86.acpi import FADT_SIZE, acpi_tables
from instar.boards.x86.mptable import MAX_CPUS, mp_table
from instar.errors import InternalBugError


class Tables:
    """All tables by signature, found as a kernel finds them."""

    def __init__(self, vcpus: int) -> None:
        self.raw = acpi_tables(vcpus)
        (xsdt,) = struct.unpack_from("<Q", self.raw, 24)
        self.found = {"XSDT": self.at(xsdt)}
        for place in struct.unpack("<2Q", self.found["XSDT"][36:]):
            table = self.at(place)
            self.found[table[:4].decode()] = table
        (dsdt,) = struct.unpack_from("<Q", self.found["FACP"], 140)
        self.found["DSDT"] = self.at(dsdt)

    def at(self, gpa: int) -> bytes:
        start = gpa - layout.ACPI_TABLES
        (length,) = struct.unpack_from("<I", self.raw, start + 4)
        return self.raw[start : start + length]


def entries(madt: bytes) -> list[bytes]:
    at, found = 44, []
    while at < len(madt):
        found.append(madt[at : at + madt[at + 1]])
        at += madt[at + 1]
    return found


def test_all_sums_are_zero():
    tables = Tables(2)
    assert sum(tables.raw[:20]) & 0xFF == 0
    assert sum(tables.raw[:36]) & 0xFF == 0
    assert {name: sum(table) & 0xFF for name, table in tables.found.items()} == dict.fromkeys(
        ("XSDT", "FACP", "APIC", "DSDT"), 0
    )


def test_fadt_is_of_reduced_hardware_with_reset_and_sleep_registers():
    fadt = Tables(1).found["FACP"]
    assert (len(fadt), fadt[8]) == (FADT_SIZE, 6)
    (flags,) = struct.unpack_from("<I", fadt, 112)
    assert flags & (1 << 20 | 1 << 10 | 1 << 4) == 1 << 20 | 1 << 10 | 1 << 4
    registers = [struct.unpack_from("<BBBBQ", fadt, at) for at in (116, 244, 256)]
    assert [register[0] for register in registers] == [1, 1, 1]
    assert [register[4] for register in registers] == [0x602, 0x600, 0x601]
    assert fadt[128] == 1


def test_madt_lists_processors_and_the_ioapic():
    found = entries(Tables(3).found["APIC"])
    assert [entry[3] for entry in found if entry[0] == 0] == [0, 1, 2]
    assert [struct.unpack_from("<I", e, 4)[0] for e in found if e[0] == 1] == [
        board_map.IOAPIC_BASE
    ]
    overrides = [(e[3], struct.unpack_from("<I", e, 4)[0]) for e in found if e[0] == 2]
    assert overrides == [(0, 2), (9, 9)]


def test_madt_names_high_processors_by_x2apic_ids():
    found = entries(Tables(257).found["APIC"])
    assert [struct.unpack_from("<I", e, 4)[0] for e in found if e[0] == 9] == [255, 256]


def test_more_processors_than_there_is_room_for_are_refused():
    with pytest.raises(InternalBugError, match="room for"):
        acpi_tables(20000)


def test_dsdt_names_all_devices():
    dsdt = Tables(1).found["DSDT"]
    assert dsdt.count(b"LNRO0005\0") == board_map.VIRTIO_SLOTS
    for hid in ("PNP0C0C", "PNP0B00", "PNP0501"):
        assert aml.eisa_id(hid) in dsdt
    for hid in (b"ACPI0013\0", b"QEMU0001\0"):
        assert hid in dsdt
    for slot in range(board_map.VIRTIO_SLOTS):
        base = board_map.VIRTIO_BASE + slot * board_map.VIRTIO_STRIDE
        assert aml.memory32_fixed(base, board_map.VIRTIO_STRIDE) in dsdt
        assert aml.interrupt(board_map.VIRTIO_GSI + slot) in dsdt


def test_terms_are_encoded_as_in_the_specification():
    assert aml.name("\\_SB") == b"\\_SB_"
    assert aml.name("AB.CD") == b"\x2eAB__CD__"
    assert aml.name("A.B.C") == b"\x2f\x03A___B___C___"
    assert aml.eisa_id("PNP0501") == bytes.fromhex("0c41d00501")
    assert [aml.integer(n) for n in (0, 1, 2, 0x100, 0x10000, 1 << 32)] == [
        b"\0",
        b"\1",
        b"\x0a\2",
        b"\x0b\0\1",
        b"\x0c\0\0\1\0",
        b"\x0e\0\0\0\0\1\0\0\0",
    ]
    assert aml.isa_irq(4) == bytes.fromhex("23100001")
    assert aml.io_ports(0x3F8, 8) == bytes.fromhex("4701f803f8030108")


@pytest.mark.parametrize("length", [0, 62, 63, 4093, 4094, (1 << 20) - 4, (1 << 20) - 3])
def test_lengths_count_themselves(length):
    head = aml.package_length(bytes(length))
    extra = head[0] >> 6
    value = (
        head[0] & 0x3F if not extra else head[0] & 0xF | int.from_bytes(head[1:], "little") << 4
    )
    assert len(head) == 1 + extra
    assert value == length + len(head)


@pytest.mark.parametrize("name", ["", "TOOLONG", "1ABC", "ab", "A-"])
def test_names_that_are_none_are_refused(name):
    with pytest.raises(InternalBugError, match="not a name"):
        aml.name(name)


def test_numbers_that_do_not_fit_are_refused():
    with pytest.raises(InternalBugError, match="more than 64 bits"):
        aml.integer(1 << 64)


def test_mp_table_has_its_sums_and_entries():
    raw = mp_table(2)
    (table_at,) = struct.unpack_from("<I", raw, 4)
    table = raw[table_at - layout.MP_TABLE :]
    (length,) = struct.unpack_from("<H", table, 4)
    (count,) = struct.unpack_from("<H", table, 34)
    assert sum(raw[:16]) & 0xFF == 0
    assert sum(table) & 0xFF == 0
    assert length == len(table)
    sizes = {0: 20, 1: 8, 2: 8, 3: 8, 4: 8}
    at, kinds = 44, []
    while at < length:
        kinds.append(table[at])
        at += sizes[table[at]]
    assert (at, len(kinds)) == (length, count)
    assert [kinds.count(kind) for kind in range(5)] == [2, 1, 1, 23, 2]
    assert table[44:48] == bytes((0, 0, 0x14, 3))


def test_mp_table_of_the_largest_machine_fits():
    assert len(mp_table(MAX_CPUS)) <= layout.MP_TABLE_SIZE
    with pytest.raises(InternalBugError, match="room for"):
        mp_table(64)
