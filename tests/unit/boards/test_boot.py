"""Boot images: placed, kept in a block of their own, refused if they cannot be."""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path

import pytest

from instar.boards.boot import adopt_images
from instar.boards.images import BootRequest, load_images
from instar.errors import ConfigError
from instar.memory import AddressSpace, RamBlock

BASE = 0x8000_0000
SIZE = 64 << 20


class Table:
    def __init__(self) -> None:
        self.entries: dict[str, int] = {}

    def find(self, name: str, ident: int) -> int:
        return self.entries.get(name, -1)

    def save(self, name: str, ident: int, fd: int, *, kind: str, owner: str) -> None:
        self.entries[name] = fd


def request(kernel: Path | str = "", initrd: Path | str = "", size: int = SIZE) -> BootRequest:
    return BootRequest(
        kernel=str(kernel), initrd=str(initrd), cmdline="", ram_base=BASE, ram_size=size
    )


def ram(size: int = SIZE):
    space = AddressSpace()
    space.add_ram(BASE, RamBlock("ram0", mmap.mmap(-1, size), fd=-1, share=False, adopted=False))
    return space.memory


def image(text_offset: int, size: int) -> bytes:
    return (
        struct.pack(
            "<IIQQQIIQ8sI", 0, 0, text_offset, size, 0, 2, 0, 0, b"RISCV\0\0\0", 0x05435352
        )
        + b"K" * 100
    )


def elf(entry: int, gpa: int, data: bytes, memsz: int, machine: int = 243) -> bytes:
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    head = struct.pack(
        "<16sHHIQQQIHHHHHH", ident, 2, machine, 1, entry, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )
    return head + struct.pack("<IIQQQQQQ", 1, 7, 120, 0, gpa, len(data), memsz, 4096) + data


def test_raw_kernel_initrd_and_tree_are_copied_where_they_are_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "k").write_bytes(b"\x13\x00\x00\x00" * 8)
    (tmp_path / "i").write_bytes(b"initrd!")
    told: list[object] = []
    images = load_images(
        request(tmp_path / "k", tmp_path / "i"),
        lambda where: told.append(where) or b"tree",
        Table(),
        share=False,
    )
    memory = ram()
    images.copy_to(memory)
    (start, end) = told[0]
    assert images.entry == BASE + 0x200000
    assert memory.read(images.entry, 32) == b"\x13\x00\x00\x00" * 8
    assert (memory.read(start, 7), end - start, start % 4096) == (b"initrd!", 7, 0)
    assert memory.read(images.fdt, 4) == b"tree"


def test_image_header_says_where_and_how_much(tmp_path: Path) -> None:
    (tmp_path / "k").write_bytes(image(0x400000, 8 << 20))
    images = load_images(request(tmp_path / "k"), lambda _: b"tree", Table(), share=False)
    assert images.entry == BASE + 0x400000


def test_elf_segments_are_loaded_and_their_rest_cleared(tmp_path: Path) -> None:
    (tmp_path / "k").write_bytes(elf(BASE + 0x1004, BASE + 0x1000, b"code", 16))
    images = load_images(request(tmp_path / "k"), lambda _: b"tree", Table(), share=False)
    memory = ram()
    memory.write(BASE + 0x1000, b"\xff" * 32)
    images.copy_to(memory)
    assert images.entry == BASE + 0x1004
    assert memory.read(BASE + 0x1000, 17) == b"code" + bytes(12) + b"\xff"


def test_shared_block_is_found_again_without_any_file(tmp_path: Path) -> None:
    (tmp_path / "k").write_bytes(b"kernel")
    table = Table()
    first = load_images(request(tmp_path / "k"), lambda _: b"tree", table, share=True)
    (tmp_path / "k").unlink()
    again = adopt_images(table)
    memory = ram()
    again.copy_to(memory)
    assert (again.entry, again.fdt) == (first.entry, first.fdt)
    assert memory.read(again.entry, 6) == b"kernel"
    os.close(table.entries["memory/virt.boot"])


def test_nothing_inherited_is_none() -> None:
    assert adopt_images(Table()) is None


def test_inherited_block_that_is_none_of_ours_is_refused() -> None:
    fd = os.memfd_create("junk")
    os.ftruncate(fd, 8192)
    table = Table()
    table.entries["memory/virt.boot"] = fd
    with pytest.raises(ConfigError, match="holds no boot images"):
        adopt_images(table)
    os.close(fd)


@pytest.mark.parametrize(
    ("kernel", "text"),
    [
        (b"", "0 bytes, allowed 1 to"),
        (b"\x7fELF", "header is cut short"),
        (elf(0, BASE, b"x", 4, machine=62), "not a 64-bit RISC-V"),
        (elf(0, 0x1000, b"x", 4), "do not fit"),
        (elf(0, BASE, b"x", 1 << 40), "larger than its file"),
        (image(0, 1 << 29), "do not fit"),
    ],
)
def test_impossible_kernel_is_refused(tmp_path: Path, kernel: bytes, text: str) -> None:
    (tmp_path / "k").write_bytes(kernel)
    with pytest.raises(ConfigError, match=text):
        load_images(request(tmp_path / "k"), lambda _: b"tree", Table(), share=False)


def test_elf_program_that_points_far_outside_its_file_is_refused(tmp_path: Path) -> None:
    broken = bytearray(elf(0, BASE, b"x", 4))
    at = int.from_bytes(broken[32:40], "little")  # the segment table
    broken[at + 8 : at + 16] = b"\xff" * 8  # where the segment is in the file
    (tmp_path / "k").write_bytes(broken)
    with pytest.raises(ConfigError, match="larger than its file"):
        load_images(request(tmp_path / "k"), lambda _: b"tree", Table(), share=False)


def test_elf_program_whose_segment_table_is_outside_has_no_segments(tmp_path: Path) -> None:
    broken = bytearray(elf(0, BASE, b"x", 4))
    broken[32:40] = b"\xff" * 8
    (tmp_path / "k").write_bytes(broken)
    images = load_images(request(tmp_path / "k"), lambda _: b"tree", Table(), share=False)
    assert images.entry == int.from_bytes(broken[24:32], "little")


@pytest.mark.parametrize("option", ["-kernel", "-initrd"])
def test_folder_or_pipe_is_refused_without_waiting(tmp_path: Path, option: str) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "k").write_bytes(b"kernel")
    for wrong in (pipe, tmp_path):
        asked = {"-kernel": request(wrong), "-initrd": request(tmp_path / "k", wrong)}[option]
        with pytest.raises(ConfigError, match=f"{option} {wrong}: is not a regular file"):
            load_images(asked, lambda _: b"tree", Table(), share=False)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"-kernel .*/no: No such file"):
        load_images(request(tmp_path / "no"), lambda _: b"tree", Table(), share=False)
    with pytest.raises(ConfigError, match=r"-initrd .*/no: No such file"):
        load_images(request("", tmp_path / "no"), lambda _: b"tree", Table(), share=False)
