"""Kernels of an x86-64 guest: placed, told what they need, refused if they are wrong."""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instar.boards.microvm import add_ram
from instar.boards.x86 import layout
from instar.boards.x86.boot import BLOCK_ID, adopt_images
from instar.boards.x86.images import BootRequest, load_images
from instar.boards.x86.start import LINUX64, PVH
from instar.errors import ConfigError
from instar.memory import AddressSpace, RamBlock

SIZE = 64 << 20
LOAD = 0x100_0000
KERNEL = b"\xf4" * 0x1000


class Table:
    def __init__(self) -> None:
        self.entries: dict[str, int] = {}

    def find(self, name: str, ident: int) -> int:
        return self.entries.get(name, -1)

    def save(self, name: str, ident: int, fd: int, *, kind: str, owner: str) -> None:
        self.entries[name] = fd


def request(kernel: Path | str, initrd: Path | str = "", size: int = SIZE, cmdline: str = "quiet"):
    return BootRequest(
        kernel=str(kernel), initrd=str(initrd), cmdline=cmdline, ram_size=size, vcpus=2, seed=b"S" * 32
    )  # fmt: skip


def load(kernel, initrd="", size=SIZE, cmdline="quiet", share=False, table=None):
    return load_images(request(kernel, initrd, size, cmdline), table or Table(), share=share)


def ram(images, size: int = SIZE):
    space = AddressSpace()
    add_ram(space, RamBlock("ram", mmap.mmap(-1, size), fd=-1, share=False, adopted=False))
    images.copy_to(space.memory)
    return space.memory


def bzimage(**changes) -> bytes:
    """Return a kernel with a setup header as Linux 6 has it; ``changes`` by name."""
    fields = {
        "sects": (0x1F1, "B", 7), "jump": (0x200, "H", 0x6AEB), "magic": (0x202, "4s", b"HdrS"),
        "version": (0x206, "H", 0x20F), "loadflags": (0x211, "B", 1), "initrd_max": (0x22C, "I", 0x7FFF_FFFF),
        "xload": (0x236, "H", 0x7F), "cmdline_size": (0x238, "I", 2047), "pref": (0x258, "Q", LOAD),
        "init_size": (0x260, "I", 8 << 20),
    }  # fmt: skip
    head = bytearray(8 * 512)
    for name, (at, code, value) in fields.items():
        struct.pack_into("<" + code, head, at, changes.get(name, value))
    return bytes(head) + changes.get("kernel", KERNEL)


def elf(segments=(), entry=LOAD, notes=b"", **changes) -> bytes:
    """Return a program of (address, bytes, size in memory) with one note segment."""
    segments = segments or ((LOAD, KERNEL, 0x2000),)
    count = len(segments) + bool(notes)
    at = 64 + 56 * count
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    head = struct.pack(
        "<16sHHIQQQIHHHHHH", changes.get("ident", ident), 2, changes.get("machine", 62), 1, entry,
        changes.get("phoff", 64), 0, 0, 64, changes.get("phentsize", 56), changes.get("phnum", count), 0, 0, 0,
    )  # fmt: skip
    rows, data = b"", b""
    for gpa, text, memsz in segments:
        rows += struct.pack("<IIQQQQQQ", 1, 7, at + len(data), gpa, gpa, len(text), memsz, 4096)
        data += text
    if notes:
        rows += struct.pack("<IIQQQQQQ", 4, 4, at + len(data), 0, 0, len(notes), len(notes), 4)
    return head + rows + data + notes


def note(entry: int, kind: int = 18, name: bytes = b"Xen\0") -> bytes:
    return struct.pack("<III", len(name), 4, kind) + name + struct.pack("<I", entry)


@pytest.fixture
def file(tmp_path):
    def write(data: bytes, name: str = "k") -> Path:
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


def test_bzimage_is_where_it_wants_to_be_and_entered_in_long_mode(file):
    images = load(file(bzimage()))
    memory = ram(images)
    assert (images.kind, images.entry) == (LINUX64, LOAD + 0x200)
    assert memory.read(LOAD, 0x1000) == KERNEL
    assert images.start().registers["rsi"] == layout.BOOT_PARAMS


def test_boot_parameters_say_where_everything_is(file):
    images = load(file(bzimage()), file(b"initrd", "i"), cmdline="console=ttyS0")
    memory = ram(images)
    page = memory.read(layout.BOOT_PARAMS, 4096)
    start, size = struct.unpack_from("<II", page, 0x218)
    (cmdline,) = struct.unpack_from("<I", page, 0x228)
    assert memory.read(start, size) == b"initrd"
    assert start == SIZE - 4096
    assert memory.read(cmdline, 14) == b"console=ttyS0\0"
    assert memory.read(struct.unpack_from("<Q", page, 0x70)[0], 8) == b"RSD PTR "
    assert page[0x202:0x206] == b"HdrS"
    assert (page[0x210], page[0x1EF]) == (0xFF, 0)  # no loader's id; the sentinel
    (data,) = struct.unpack_from("<Q", page, 0x250)
    assert memory.read(data, 48) == struct.pack("<QII", 0, 9, 32) + b"S" * 32


def test_memory_map_has_ram_and_what_firmware_keeps(file):
    page = ram(load(file(bzimage()))).read(layout.BOOT_PARAMS, 4096)
    rows = [struct.unpack_from("<QQI", page, 0x2D0 + 20 * n) for n in range(page[0x1E8])]
    assert rows == [
        (0, 0x9FC00, 1),
        (0x9FC00, 0x400, 2),
        (0xE0000, 0x20000, 2),
        (0x100000, SIZE - 0x100000, 1),
    ]


def test_ram_above_3_gib_continues_at_4_gib():
    assert layout.ram_parts(5 << 30) == [(0, 0, 3 << 30), (4 << 30, 3 << 30, 2 << 30)]
    assert layout.memory_map(5 << 30)[-2:] == [
        (0x100000, (3 << 30) - 0x100000, 1),
        (4 << 30, 2 << 30, 1),
    ]


def test_mp_table_and_acpi_tables_are_in_memory(file):
    memory = ram(load(file(bzimage())))
    assert memory.read(layout.MP_TABLE, 4) == b"_MP_"
    assert memory.read(layout.ACPI_TABLES + 64, 4) == b"DSDT"


def test_initrd_goes_no_higher_than_the_kernel_takes_it(file):
    images = load(file(bzimage(initrd_max=0x1FF_FFFF)), file(b"initrd", "i"))
    (start,) = struct.unpack_from("<I", ram(images).read(layout.BOOT_PARAMS, 4096), 0x218)
    assert start == 0x1FF_F000


def test_elf_with_a_note_is_entered_as_pvh(file):
    images = load(file(elf(notes=note(LOAD + 0x10))), file(b"initrd", "i"))
    memory = ram(images)
    assert (images.kind, images.entry) == (PVH, LOAD + 0x10)
    assert images.start().registers["rbx"] == layout.START_INFO
    info = struct.unpack("<IIIIQQQQII", memory.read(layout.START_INFO, 56))
    assert info[:4] == (0x336EC578, 1, 0, 1)
    module = struct.unpack("<QQQQ", memory.read(info[4], 32))
    assert memory.read(*module[:2]) == b"initrd"
    assert memory.read(info[5], 6) == b"quiet\0"
    assert memory.read(info[6], 8) == b"RSD PTR "
    assert info[8] == 4
    assert struct.unpack("<QQII", memory.read(info[7], 24)) == (0, 0x9FC00, 1, 0)


def test_elf_without_a_note_is_entered_in_long_mode_and_its_rest_cleared(file):
    images = load(file(elf()))
    assert (images.kind, images.entry) == (LINUX64, LOAD)
    page = ram(images).read(layout.BOOT_PARAMS, 4096)
    assert page[0x202:0x206] == b"HdrS"
    assert images.block.size > 0


def test_notes_of_others_are_no_entries(file):
    notes = note(1, kind=5) + note(2, name=b"GNU\0") + b"\xff" * 7
    assert load(file(elf(notes=notes))).kind == LINUX64


def test_shared_block_is_found_again_and_starts_the_same(file):
    table = Table()
    first = load(file(bzimage()), share=True, table=table)
    again = adopt_images(table)
    assert (again.kind, again.entry, again.argument) == (first.kind, first.entry, first.argument)
    assert ram(again).read(LOAD, 16) == KERNEL[:16]
    os.close(table.entries[f"memory/{BLOCK_ID}"])


def test_nothing_inherited_is_none():
    assert adopt_images(Table()) is None


def test_inherited_block_of_another_board_is_refused():
    fd = os.memfd_create("junk")
    os.ftruncate(fd, 8192)
    os.pwrite(fd, b"INSTARBT", 0)
    table = Table()
    table.entries[f"memory/{BLOCK_ID}"] = fd
    with pytest.raises(ConfigError, match="holds no boot images"):
        adopt_images(table)
    os.close(fd)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"#!/bin/sh\n", "neither a bzImage nor an ELF"),
        (bzimage(magic=b"HdrX"), "neither a bzImage"),
        (bzimage(version=0x20B), "boot protocol 2.11, 2.12 is needed"),
        (bzimage(xload=0x7E), "no 64-bit entry"),
        (bzimage(loadflags=0), "no 64-bit entry"),
        (bzimage(kernel=b""), "cut short"),
        (bzimage(sects=255), "cut short"),
        (bzimage(jump=0x10EB), "cut short"),
        (bzimage(pref=0x8000), "wants to be at 0x8000"),
        (bzimage(pref=1 << 63), "needs RAM up to"),
        (bzimage(init_size=0xFFFF_FFFF), "needs RAM up to"),
        (b"\x7fELF", "header is cut short"),
        (elf(machine=243), "not a 64-bit x86"),
        (elf(ident=b"\x7fELF\x01\x01\x01".ljust(16, b"\0")), "not a 64-bit x86"),
        (elf(phentsize=32), "not a 64-bit x86"),
        (elf(phnum=0), "has 0 program headers"),
        (elf(phnum=33), "has 33 program headers"),
        (elf(phoff=1 << 63), "program headers at"),
        (elf(((LOAD, KERNEL, 16),)), "segment 0 has 4096 of 16 bytes"),
        (elf(((LOAD, KERNEL, 1 << 40),)), "segment 0 has"),
        (elf(((0x1000, KERNEL, 0x1000),), entry=0x1000), "where no kernel can be"),
        (elf(((2**64 - 4096, KERNEL, 0x1000),)), "where no kernel can be"),
        (elf(((LOAD, KERNEL, 0x1000), (LOAD + 0x800, KERNEL, 0x1000))), "two segments overlap"),
        (elf(entry=0xFFFF_FFFF_8100_0000), "is entered at"),
        (elf(notes=note(0x10)), "is entered at 0x10"),
        (elf(((0xBFFF_F000, KERNEL, 0x1000),), entry=0xBFFF_F000), "needs RAM up to"),
    ],
)
def test_kernel_that_is_wrong_is_refused_with_the_reason(file, data, text):
    with pytest.raises(ConfigError, match=text) as caught:
        load(file(data))
    assert "nothing was started" in str(caught.value)


def test_segment_beyond_its_file_is_refused(file):
    with pytest.raises(ConfigError, match="segment 0 has"):
        load(file(elf()[:-8]))


def test_command_line_longer_than_the_kernel_takes_is_refused(file):
    with pytest.raises(ConfigError, match="takes 2047"):
        load(file(bzimage()), cmdline="x" * 2048)


def test_initrd_that_does_not_fit_above_the_kernel_is_refused(file):
    initrd = file(bytes(8 << 20), "i")
    with pytest.raises(ConfigError, match="do not fit between"):
        load(file(bzimage()), initrd, size=28 << 20)


def test_no_kernel_is_refused():
    with pytest.raises(ConfigError, match="needs a -kernel"):
        load("")


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_damaged_kernel_is_loaded_whole_or_refused(file, data):
    good = bytearray(data.draw(st.sampled_from([bzimage(), elf(notes=note(LOAD + 4))])))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, 0x290))
        good[at % len(good)] = data.draw(st.integers(0, 255))
    path = file(bytes(good[: data.draw(st.integers(0, len(good)))] or b"x"))
    try:
        images = load(path)
    except ConfigError:
        return
    memory = ram(images)
    memory.read(images.entry, 1)
