"""Our device trees against dtc, the reference compiler (Debian package device-tree-compiler)."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from instar.boards.fdt import Node, flatten
from instar.boards.virt_fdt import virt_fdt

DTC = shutil.which("dtc")
pytestmark = pytest.mark.skipif(DTC is None, reason="no dtc here: install device-tree-compiler")


def dtc(data: bytes, source: str, target: str) -> bytes:
    done = subprocess.run(
        [str(DTC), "-I", source, "-O", target],
        input=data,
        capture_output=True,
        check=True,
        timeout=20,
    )
    assert done.stderr == b""  # no warnings either
    return done.stdout


def board(harts: int) -> bytes:
    return virt_fdt(
        ram_base=0x8000_0000,
        ram_size=1 << 30,
        harts=harts,
        isa="rv64imafdc_zicsr_zifencei_sstc",
        isa_extensions=["i", "m", "a", "f", "d", "c", "zicsr", "zifencei", "sstc"],
        timebase=10_000_000,
        bootargs="console=ttyS0 quiet",
        initrd=(0x8800_0000, 0x8812_3456),
        rng_seed=bytes(range(32)),
        virtio_slots=8,
    )


@pytest.mark.parametrize("harts", [1, 2, 8])
def test_dtc_given_the_board_tree_writes_the_same_bytes(harts: int) -> None:
    assert dtc(board(harts), "dtb", "dtb") == board(harts)


def test_dtc_shows_what_the_board_tree_says() -> None:
    text = dtc(board(2), "dtb", "dts").decode()
    assert 'stdout-path = "/soc/serial@10000000";' in text
    assert "linux,initrd-end = <0x00 0x88123456>;" in text
    assert "interrupts-extended = <0x03 0x0b 0x03 0x09 0x04 0x0b 0x04 0x09>;" in text
    assert 'compatible = "sifive,test1\\0sifive,test0\\0syscon";' in text
    assert text.count('compatible = "virtio,mmio";') == 8


def test_dtc_compiles_source_to_the_bytes_that_we_write() -> None:
    source = b"""/dts-v1/; /memreserve/ 0x1000 0x2000;
    / { #address-cells = <2>; #size-cells = <1>; model = "m"; names = "a", "bc";
        bus@10 { reg = <0x0 0x10 0x4>; odd = [01 02 03 04 05]; ranges; }; };"""
    root = Node()
    root.u32("#address-cells", 2)
    root.u32("#size-cells", 1)
    root.text("model", "m")
    root.text("names", "a", "bc")
    bus = root.child("bus@10")
    bus.u32("reg", 0, 0x10, 4)
    bus.blob("odd", bytes([1, 2, 3, 4, 5]))
    bus.empty("ranges")
    done = subprocess.run(
        [str(DTC), "-q", "-I", "dts", "-O", "dtb"],
        input=source,
        capture_output=True,
        check=True,
        timeout=20,
    )
    assert flatten(root, reservations=[(0x1000, 0x2000)]) == done.stdout
