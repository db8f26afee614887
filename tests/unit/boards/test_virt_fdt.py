"""The device tree of board ``virt`` (its text form is compared with dtc's in tests/peers)."""

from __future__ import annotations

import pytest

from instar.boards.virt_fdt import virt_fdt


def blob(**changes: object) -> bytes:
    facts: dict[str, object] = {
        "ram_base": 0x8000_0000,
        "ram_size": 1 << 30,
        "harts": 2,
        "isa": "rv64imafdc_zicsr_zifencei_sstc",
        "isa_extensions": ["i", "m", "a", "f", "d", "c", "zicsr", "zifencei", "sstc"],
        "timebase": 10_000_000,
        "bootargs": "console=ttyS0",
        "initrd": None,
        "rng_seed": b"",
        "virtio_slots": 8,
    }
    return virt_fdt(**(facts | changes))  # type: ignore[arg-type]


def test_virt_fdt_of_the_same_facts_is_the_same_bytes() -> None:
    assert blob() == blob()


@pytest.mark.parametrize(
    ("changes", "needle"),
    [
        ({"initrd": (0x8800_0000, 0x8800_1000)}, b"linux,initrd-start\0"),
        ({"rng_seed": b"seed" * 8}, b"seed" * 8),
        ({"harts": 3}, b"cpu@2\0"),
        ({"virtio_slots": 9}, b"virtio_mmio@10009000\0"),
        ({"bootargs": "quiet"}, b"quiet\0"),
        ({"ram_base": 0x9000_0000}, b"memory@90000000\0"),
    ],
)
def test_virt_fdt_with_a_fact_contains_it_and_without_it_does_not(
    changes: dict[str, object], needle: bytes
) -> None:
    assert (needle in blob(**changes), needle in blob()) == (True, False)


def test_virt_fdt_without_a_command_line_has_no_bootargs() -> None:
    assert b"bootargs" not in blob(bootargs="")


@pytest.mark.parametrize("harts", [1, 8])
def test_virt_fdt_wires_machine_then_supervisor_mode_of_each_hart(harts: int) -> None:
    wires = b"".join(
        handle.to_bytes(4, "big") + irq.to_bytes(4, "big")
        for handle in range(3, 3 + harts)
        for irq in (11, 9)
    )
    assert wires in blob(harts=harts)
