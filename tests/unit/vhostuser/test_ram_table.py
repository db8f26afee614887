"""What a back end is told of guest RAM."""

from __future__ import annotations

import mmap
import os
import struct

import pytest

from instar.errors import ConfigError
from instar.memory import AddressSpace, RamBlock
from instar.vhostuser import ram


def two_parts(*, share: bool) -> AddressSpace:
    fd = os.memfd_create("ram", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, 8192)
    block = RamBlock("ram0", mmap.mmap(fd, 8192), fd=fd, share=share, adopted=False)
    space = AddressSpace()
    space.add_ram(0, block, 0, 4096)
    space.add_ram(1 << 32, block, 4096)
    return space


def test_parts_of_one_block_have_their_offsets_in_it():
    space = two_parts(share=True)
    fd = space.ram[0].block.fd
    ram.share("c", space.ram)
    data, fds = ram.table(space.ram, 99, 512)
    count, _ = struct.unpack_from("<II", data)
    rows = list(struct.iter_unpack("<QQQQ", data[8:]))
    assert count == 3
    assert rows == [
        (0, 4096, 0, 0),
        (1 << 32, 4096, 1 << 32, 4096),
        (ram.RINGS_GPA, 512, ram.RINGS_GPA, 0),
    ]
    assert fds == [fd, fd, 99]
    os.close(fd)


def test_private_ram_is_refused():
    space = two_parts(share=False)
    with pytest.raises(ConfigError, match="ram0 is private"):
        ram.share("c", space.ram)
    os.close(space.ram[0].block.fd)
