"""The device tree of the board ``virt``: what its guest is told about it.

Source: Linux's Documentation/devicetree/bindings: riscv/cpus, riscv/extensions,
interrupt-controller/sifive,plic-1.0.0, serial/8250, rtc/google,goldfish-rtc, power/reset/syscon-*, virtio/mmio;
Devicetree Specification v0.4, chapter 3.
"""

from __future__ import annotations

from instar.boards.fdt import Node, flatten
from instar.boards.virt import (
    PLIC_BASE,
    PLIC_SIZE,
    PVPANIC_BASE,
    RTC_BASE,
    RTC_IRQ,
    SYSCON_BASE,
    UART_BASE,
    UART_IRQ,
    VIRTIO_BASE,
    VIRTIO_IRQ,
    VIRTIO_STRIDE,
    WATCHDOG_BASE,
)
from instar.devices.pvpanic.device import REGION_SIZE as PVPANIC_SIZE
from instar.devices.watchdog.device import REGION_SIZE as WATCHDOG_SIZE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

PLIC_SOURCES: Final = 95  # interrupts 1 to 95
_UART_CLOCK_HZ: Final = 3_686_400
_POWEROFF_VALUE: Final = 0x5555  # what the guest writes to the sifive,test register
_REBOOT_VALUE: Final = 0x7777
_M_EXTERNAL: Final = 11  # interrupt numbers of a hart's own controller
_S_EXTERNAL: Final = 9

# Phandles: any numbers that differ.
_PLIC_HANDLE: Final = 1
_SYSCON_HANDLE: Final = 2
_FIRST_HART_HANDLE: Final = 3


def virt_fdt(  # noqa: PLR0913 - the facts that differ from machine to machine
    *,
    ram_base: int,
    ram_size: int,
    harts: int,
    isa: str,
    isa_extensions: Sequence[str],
    timebase: int,
    bootargs: str,
    initrd: tuple[int, int] | None,
    rng_seed: bytes,
    virtio_slots: int,
) -> bytes:
    """Return the flattened device tree.

    Args:
        ram_base: Guest physical address of RAM.
        ram_size: Bytes of RAM.
        harts: Number of harts, 1 to 8.
        isa: ``rv64imafdc_zicsr_zifencei...``, for kernels older than ``riscv,isa-extensions``.
        isa_extensions: ``i``, ``m``, ..., ``zicsr``: the same as a list.
        timebase: Ticks of the ``time`` register a second.
        bootargs: Kernel command line; left out when empty.
        initrd: First byte and the byte after the last one; None without.
        rng_seed: Random bytes for the kernel's pool, left out when empty; never reuse them for a second boot.
        virtio_slots: Number of virtio-mmio slots.
    """
    root = Node()
    root.u32("#address-cells", 2)
    root.u32("#size-cells", 2)
    root.text("compatible", "riscv-virtio")
    root.text("model", "riscv-virtio,instar")
    _add_chosen(root, bootargs, initrd, rng_seed)
    memory = root.child(f"memory@{ram_base:x}")
    memory.text("device_type", "memory")
    memory.u64("reg", ram_base, ram_size)
    cpus = root.child("cpus")
    cpus.u32("#address-cells", 1)
    cpus.u32("#size-cells", 0)
    cpus.u32("timebase-frequency", timebase)
    for hart in range(harts):
        _add_cpu(cpus, hart, isa, isa_extensions)
    _add_syscon_action(root, "poweroff", _POWEROFF_VALUE)
    _add_syscon_action(root, "reboot", _REBOOT_VALUE)
    soc = root.child("soc")
    soc.u32("#address-cells", 2)
    soc.u32("#size-cells", 2)
    soc.text("compatible", "simple-bus")
    soc.empty("ranges")
    _add_platform(soc, harts)
    for slot in range(virtio_slots):
        base = VIRTIO_BASE + slot * VIRTIO_STRIDE
        virtio = _add_device(soc, "virtio_mmio", base, VIRTIO_STRIDE, "virtio,mmio")
        _connect(virtio, VIRTIO_IRQ + slot)
    return flatten(root)


def _add_chosen(
    root: Node, bootargs: str, initrd: tuple[int, int] | None, rng_seed: bytes
) -> None:
    chosen = root.child("chosen")
    if bootargs:
        chosen.text("bootargs", bootargs)
    chosen.text("stdout-path", f"/soc/serial@{UART_BASE:x}")
    if initrd is not None:
        chosen.u64("linux,initrd-start", initrd[0])
        chosen.u64("linux,initrd-end", initrd[1])
    if rng_seed:
        chosen.blob("rng-seed", rng_seed)


def _add_cpu(cpus: Node, hart: int, isa: str, isa_extensions: Sequence[str]) -> None:
    cpu = cpus.child(f"cpu@{hart:x}")
    cpu.text("device_type", "cpu")
    cpu.u32("reg", hart)
    cpu.text("status", "okay")
    cpu.text("compatible", "riscv")
    cpu.text("riscv,isa", isa)
    cpu.text("riscv,isa-base", "rv64i")
    cpu.text("riscv,isa-extensions", *isa_extensions)
    cpu.text("mmu-type", "riscv,sv39")
    controller = cpu.child("interrupt-controller")
    controller.u32("#address-cells", 0)
    controller.u32("#interrupt-cells", 1)
    controller.empty("interrupt-controller")
    controller.text("compatible", "riscv,cpu-intc")
    controller.u32("phandle", _FIRST_HART_HANDLE + hart)


def _add_syscon_action(root: Node, name: str, value: int) -> None:
    action = root.child(name)
    action.text("compatible", f"syscon-{name}")
    action.u32("regmap", _SYSCON_HANDLE)
    action.u32("offset", 0)
    action.u32("value", value)


def _add_platform(soc: Node, harts: int) -> None:
    plic = _add_device(soc, "plic", PLIC_BASE, PLIC_SIZE, "sifive,plic-1.0.0", "riscv,plic0")
    plic.u32("#address-cells", 0)
    plic.u32("#interrupt-cells", 1)
    plic.empty("interrupt-controller")
    plic.u32("riscv,ndev", PLIC_SOURCES)
    wires: list[int] = []
    for hart in range(harts):  # the order of the PLIC's contexts: M, then S of each hart
        handle = _FIRST_HART_HANDLE + hart
        wires += [handle, _M_EXTERNAL, handle, _S_EXTERNAL]
    plic.u32("interrupts-extended", *wires)
    plic.u32("phandle", _PLIC_HANDLE)
    serial = _add_device(soc, "serial", UART_BASE, 0x100, "ns16550a")
    serial.u32("clock-frequency", _UART_CLOCK_HZ)
    _connect(serial, UART_IRQ)
    rtc = _add_device(soc, "rtc", RTC_BASE, 0x1000, "google,goldfish-rtc")
    _connect(rtc, RTC_IRQ)
    _add_device(soc, "pvpanic", PVPANIC_BASE, PVPANIC_SIZE, "qemu,pvpanic-mmio")
    _add_device(soc, "watchdog", WATCHDOG_BASE, WATCHDOG_SIZE, "allwinner,sun6i-a31-wdt")
    syscon = _add_device(
        soc, "test", SYSCON_BASE, 0x1000, "sifive,test1", "sifive,test0", "syscon"
    )
    syscon.u32("phandle", _SYSCON_HANDLE)


def _add_device(soc: Node, name: str, base: int, size: int, *compatible: str) -> Node:
    node = soc.child(f"{name}@{base:x}")
    node.text("compatible", *compatible)
    node.u64("reg", base, size)
    return node


def _connect(device: Node, irq: int) -> None:
    device.u32("interrupts", irq)
    device.u32("interrupt-parent", _PLIC_HANDLE)
