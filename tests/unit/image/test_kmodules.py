"""Kernel modules: what they say of themselves, and the order they load in. The ELF files are made here."""

import lzma
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.errors import ConfigError
from instar.image.kmodules import ModuleTree, modinfo, read_module


def elf(info: bytes) -> bytes:
    """A 64-bit little-endian ELF file with a .modinfo section and nothing else."""
    names = b"\0.modinfo\0.names\0"
    at_info, at_names = 64, 64 + len(info)
    sections = [
        (0,) * 10,
        (1, 1, 0, 0, at_info, len(info), 0, 0, 1, 0),
        (10, 3, 0, 0, at_names, len(names), 0, 0, 1, 0),
    ]
    table = at_names + len(names)
    head = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    head += struct.pack(
        "<HHIQQQIHHHHHH", 1, 243, 1, 0, 0, table, 0, 64, 0, 0, 64, len(sections), 2
    )
    return (
        head
        + info
        + names
        + b"".join(struct.pack("<IIQQQQIIQQ", *section) for section in sections)
    )


def tree(tmp_path, modules, builtin=""):
    for path, info in modules.items():
        file = tmp_path / "kernel" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(lzma.compress(elf(info)))
    (tmp_path / "modules.builtin").write_text(builtin)
    return ModuleTree(str(tmp_path))


def test_load_order_puts_what_is_needed_first_and_each_once(tmp_path):
    modules = {
        "fs/ext4.ko.xz": b"depends=jbd2,crc16\0",
        "fs/jbd2.ko.xz": b"depends=crc16\0",
        "lib/crc16.ko.xz": b"depends=\0",
    }
    order = tree(tmp_path, modules).load_order(("ext4", "jbd2"))
    assert [module.name for module in order] == ["crc16", "jbd2", "ext4"]


def test_load_order_finds_dashes_and_soft_dependencies_by_alias(tmp_path):
    modules = {
        "char/virtio-rng.ko.xz": b"softdep=pre: crypto-crc32c post: later\0",
        "crypto/crc32c_generic.ko.xz": b"alias=crypto-crc32c\0",
    }
    order = tree(tmp_path, modules).load_order(("virtio_rng",))
    assert [module.name for module in order] == ["crc32c_generic", "virtio_rng"]


def test_load_order_leaves_out_what_the_kernel_has_built_in(tmp_path):
    modules = {"fs/ext4.ko.xz": b"depends=crc16\0"}
    order = tree(tmp_path, modules, "kernel/lib/crc16.ko\nkernel/net/virtio-net.ko\n").load_order(
        ("ext4", "virtio_net")
    )
    assert [module.name for module in order] == ["ext4"]


def test_load_order_of_a_missing_module_names_it(tmp_path):
    with pytest.raises(ConfigError, match="no module 'absent'"):
        tree(tmp_path, {"fs/ext4.ko.xz": b"depends=absent\0"}).load_order(("ext4",))


def test_load_order_of_a_circle_is_refused(tmp_path):
    modules = {"a.ko.xz": b"depends=b\0", "b.ko.xz": b"depends=a\0"}
    with pytest.raises(ConfigError, match="circle: a b a"):
        tree(tmp_path, modules).load_order(("a",))


def test_read_module_that_is_no_xz_file_is_refused(tmp_path):
    file = tmp_path / "a.ko.xz"
    file.write_bytes(b"no xz")
    with pytest.raises(ConfigError, match=r"a\.ko\.xz cannot be unpacked"):
        read_module(str(file))


def test_modinfo_of_repeated_keys_keeps_their_order():
    assert modinfo(elf(b"alias=x\0name=m\0alias=y\0noise\0")) == {
        "alias": ["x", "y"],
        "name": ["m"],
    }


@settings(max_examples=100)
@given(at=st.integers(0, 300), value=st.integers(0, 255), length=st.integers(0, 400))
def test_modinfo_of_a_damaged_file_is_an_answer_or_a_sentence(at, value, length):
    damaged = bytearray(elf(b"name=m\0"))
    damaged[at % len(damaged)] = value
    try:
        modinfo(bytes(damaged[:length]))
    except ConfigError as error:
        assert "kernel module" in str(error)
