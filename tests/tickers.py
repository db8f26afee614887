"""The bare-metal guest on each CPU back end, the same seen from outside: a console, and a page that says what it did.

On the software CPU it is the one that ships with Instar. On KVM it is ``ticker86/``, which only tests use: the C
compiler that the build uses makes it, and an installed Instar has none. It has integer instructions only, so it runs
on any KVM that runs anything.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from harness import MICROVM, VIRT, Machine, Vm
from instar.image.ticker import (
    STATUS_ADDRESS,
    STATUS_SIZE,
    TickerStatus,
    read_status,
    ticker_image,
)

HERE = Path(__file__).resolve().parent
SOURCES = HERE / "ticker86"
BUILD_ENV = HERE.parent / ".cache/build.env"  # which compiler the build found
COMPILE = 'test ! -e "$0" || . "$0"; exec ${CC:-cc} "$@"'
FLAGS = (
    "-O2", "-std=c11", "-Wall", "-Wextra", "-Werror", "-ffreestanding", "-mgeneral-regs-only", "-mno-red-zone",
    "-fno-pic", "-no-pie", "-fno-stack-protector", "-fno-asynchronous-unwind-tables", "-fcf-protection=none",
    "-nostdlib", "-static", "-Wl,--build-id=none", f"-Wl,-T,{SOURCES}/ticker.ld",
)  # fmt: skip
STATUS_OFFSET = STATUS_ADDRESS - VIRT.ram  # of the page in RAM, the same on both


class Ticker:
    """The guest as a kernel file, and the machine that runs it."""

    def __init__(self, machine: Machine, kernel: Path) -> None:
        self.machine = machine
        self.kernel = kernel

    @property
    def words(self) -> tuple[str, str]:
        return "-kernel", str(self.kernel)

    def vm(self, *extra: str, **options) -> Vm:
        """Start it; the arguments are those of :class:`harness.Vm`."""
        return Vm(*self.words, *extra, machine=self.machine, **options)


def on_software(folder: Path, **defines: int) -> Ticker:
    kernel = folder / "ticker.bin"
    kernel.write_bytes(ticker_image(defines))
    return Ticker(VIRT, kernel)


def on_kvm(folder: Path, **defines: int) -> Ticker:
    kernel = folder / "ticker.elf"
    words = [f"-D{name}={value}" for name, value in defines.items()]
    sources = [SOURCES / name for name in ("entry.S", "ticker.c")]
    command = ["sh", "-c", COMPILE, BUILD_ENV, *FLAGS, *words, *sources, "-o", kernel]
    subprocess.run(command, check=True)
    return Ticker(MICROVM, kernel)


def status(vm: Vm) -> TickerStatus:
    """What the guest did."""
    return read_status(vm.guest_memory(vm.machine.ram + STATUS_OFFSET, STATUS_SIZE))
