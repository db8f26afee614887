"""Run the ELF files of a built riscv-tests `isa` folder on the software CPU.

    python tools/riscv_tests.py FOLDER [NAME...]

Prints a line for each test that does not pass and then `N passed, N failed`; exit status 0 if all passed, 1 if one
failed, 2 if there is nothing to run. The suite is github.com/riscv-software-src/riscv-tests; its tests end by storing
to `tohost`: 1 is a pass, another odd number is twice the number of the test case that failed, plus 1.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
import sys
from pathlib import Path
from typing import Final, NamedTuple

from instar.cpu.rv64._core import Core

RAM_BASE: Final = 0x8000_0000
RAM_SIZE: Final = 4 << 20
LIMIT: Final = 30_000_000  # instructions; the longest test needs about 1 million
STEP: Final = 100_000
MACHINE_MODE: Final = 3
SUITES: Final = ("ui", "um", "ua", "uc", "uf", "ud", "si", "mi")


class NotATestError(Exception):
    """The file is no riscv64 ELF program with a `tohost` symbol in RAM."""


class Test(NamedTuple):
    """A program: where it starts, where it reports, what to load (address, bytes)."""

    entry: int
    tohost: int
    segments: list[tuple[int, bytes]]


class NoBus:
    """A bus with nothing on it."""

    def mmio_read(self, _gpa: int, _size: int) -> int:
        """Return -1: nothing is there."""
        return -1

    def mmio_write(self, _gpa: int, _size: int, _value: int) -> int:
        """Return -1: nothing is there."""
        return -1

    def sbi(self, _hart: int, _eid: int, _fid: int, *_args: object) -> tuple[int, int]:
        """Return "not supported"."""
        return (-2, 0)


def symbol(data: bytes, name: bytes) -> int:
    """Return the value of a symbol of an ELF file."""
    (offset,) = struct.unpack_from("<Q", data, 40)
    (count,) = struct.unpack_from("<H", data, 60)
    sections = [struct.unpack_from("<IIQQQQIIQQ", data, offset + 64 * i) for i in range(count)]
    for section in sections:
        if section[1] != 2:  # SHT_SYMTAB
            continue
        texts = sections[section[6]][4]
        for at in range(section[4], section[4] + section[5], 24):
            text, _, _, _, value, _ = struct.unpack_from("<IBBHQQ", data, at)
            if data[texts + text : texts + text + len(name) + 1] == name + b"\0":
                return value
    raise NotATestError(f"has no symbol {name.decode()}")


def load(path: Path) -> Test:
    """Read an ELF file."""
    data = path.read_bytes()
    if data[:6] != b"\x7fELF\x02\x01" or data[18:20] != b"\xf3\0":
        raise NotATestError("is no riscv64 ELF file")
    try:
        entry, offset = struct.unpack_from("<QQ", data, 24)
        (count,) = struct.unpack_from("<H", data, 56)
        headers = [struct.unpack_from("<IIQQQQQQ", data, offset + 56 * i) for i in range(count)]
        segments = [(h[4], data[h[2] : h[2] + h[5]]) for h in headers if h[0] == 1 and h[5]]
        tohost = symbol(data, b"tohost")
    except (struct.error, IndexError) as exc:
        raise NotATestError(f"is a damaged ELF file: {exc}") from exc
    for address, length in [(a, len(b)) for a, b in segments] + [(tohost, 8)]:
        if not RAM_BASE <= address <= RAM_BASE + RAM_SIZE - length:
            raise NotATestError(f"has {length} bytes at {address:#x}, outside RAM")
    return Test(entry, tohost, segments)


def run(test: Test) -> str:
    """Run a program on a CPU of its own; return what went wrong, nothing if it passed."""
    memory = mmap.mmap(-1, RAM_SIZE)
    for address, data in test.segments:
        memory[address - RAM_BASE : address - RAM_BASE + len(data)] = data
    anchor = ctypes.c_char.from_buffer(memory)
    core = Core(
        ram_addr=ctypes.addressof(anchor),
        ram_base=RAM_BASE,
        ram_size=RAM_SIZE,
        harts=1,
        bus=NoBus(),
        icount_shift=0,
    )
    core.start_hart(0, test.entry, 0, 0)
    core.load_hart(0, core.save_hart(0) | {"priv": MACHINE_MODE, "sbi": 0})
    result = 0
    while result == 0 and core.icount < LIMIT:
        core.run(STEP)
        (result,) = struct.unpack_from("<Q", memory, test.tohost - RAM_BASE)
    state = core.save_hart(0)
    where = f"pc={state['pc']:#x} mcause={state['mcause']:#x} mepc={state['mepc']:#x} mtval={state['mtval']:#x}"
    if result == 0:
        return f"no result after {LIMIT} instructions, {where}"
    return "" if result == 1 else f"case {result >> 1}, {where}"


def main(folder: Path, names: list[str]) -> int:
    """Run the tests of a folder, all or some; return the exit status."""
    wanted = tuple(f"rv64{suite}-{kind}-" for suite in SUITES for kind in "pv")
    paths = sorted(p for p in folder.glob("rv64*") if p.name.startswith(wanted) and not p.suffix)
    paths = [p for p in paths if not names or p.name in names]
    failed = 0
    for path in paths:
        try:
            fault = run(load(path))
        except NotATestError as exc:
            fault = str(exc)
        if fault:
            failed += 1
            print(f"{path.name:<32} {fault}")
    print(f"{len(paths) - failed} passed, {failed} failed")
    if not paths:
        print(f"no riscv-tests in {folder}", file=sys.stderr)
        return 2
    return 1 if failed else 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: riscv_tests.py FOLDER [NAME...]")
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
