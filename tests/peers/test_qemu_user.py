"""Random programs end on our CPU as on QEMU's user-mode emulator: registers, flags and memory.

Straight lines of every computational instruction of RV64IMAFDC, with loads, stores and atomics at any alignment the
instruction allows, from random and special register values.
"""

import os
import random
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from instar.cpu.rv64.asm import assemble
from instar.cpu.rv64.disasm import find_row
from instar.cpu.rv64.isa import ROWS
from instar.cpu.rv64.operands import SUFFIXES, insert, limits, row_fields

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "cpu"))
from bare_core import RAM_BASE, BareCore

LENGTH = 200  # instructions
RESULT = RAM_BASE + 0x1_0000  # x0..x31, f0..f31, fcsr; then what the program stored
RESULT_SIZE = 0x2400
POINTERS = {2: RESULT + 0x1000, 3: RESULT + 0x1000, 8: RESULT + 0x1400}  # never a target
OTHER_KINDS = ("system", "branch", "jal", "jalr", "lr", "sc", "nop", "ebreak", "beq", "bne")
LEFT_OUT = ("auipc", "c.addi16sp")
USABLE = [
    row for row in ROWS if row.effect.split()[0] not in OTHER_KINDS and row.name not in LEFT_OUT
]
EDGES = (0, 1, 2, 1 << 31, (1 << 31) - 1, 0xFFFF_FFFF, 1 << 63, (1 << 63) - 1, (1 << 64) - 1)
SINGLES = (
    0,
    1,
    0x7F800000,
    0x7FC00000,
    0x7FA00000,
    0x3F800000,
    0x007FFFFF,
    0x00800000,
    0x7F7FFFFF,
)
DOUBLES = (0, 1, 0x7FF << 52, 0x7FF8 << 48, 0x7FF4 << 48, 0x3FF << 52, 0xFFFFFFFFFFFFF, 1 << 52)


def candidate(rng, row):
    """Return a random word of an instruction, with its memory operand in the scratch area."""
    word = row.match | rng.choice(list(SUFFIXES.values()) if row.ext == "a" else [0])
    for name, field in row_fields(row).items():
        low, high, step = limits(field)
        value = rng.randrange(low, high + 1, step)
        if name == "rm":
            value = rng.choice((0, 1, 2, 3, 4, 7))
        if field.roles == "rs1" and field.kind == "x" and "(" in row.syntax:
            value = 8 if field.base else rng.choice((3, 8))
        if "rd" in field.roles.split() and field.kind == "x" and value in POINTERS:
            return None
        word |= insert(field, value)
    return word if find_row(word) is row else None


def instructions(rng):
    """Return a program's body as assembler lines."""
    lines = []
    while len(lines) < LENGTH:
        row = rng.choice(USABLE)
        word = candidate(rng, row)
        if word is not None:
            lines.append(f".half {word:#x}" if row.ext == "c" else f".word {word:#x}")
    return lines


def integer(rng):
    kinds = (rng.choice(EDGES), rng.getrandbits(64), rng.getrandbits(rng.randint(1, 64)))
    return rng.choice(kinds)


def floating(rng):
    single = rng.choice((rng.choice(SINGLES), rng.getrandbits(31))) | rng.getrandbits(1) << 31
    near_one = rng.randint(1000, 1050) << 52 | rng.getrandbits(52)
    double = rng.choice((rng.choice(DOUBLES), rng.getrandbits(63), near_one))
    return rng.choice((0xFFFF_FFFF << 32 | single, double | rng.getrandbits(1) << 63))


def program(seed, first, last):
    """Return an image: load all registers, run the body, store all registers, end with ``last``."""
    rng = random.Random(seed)
    body = instructions(rng)
    values = [POINTERS.get(i) or integer(rng) for i in range(32)]
    values += [floating(rng) for _ in range(32)]
    values.append(rng.choice((0, 1, 2, 3, 4)) << 5 | rng.choice((0, 1, 31)))
    lines = [first, "la x31, data", "ld x30, 512(x31)", "fscsr x30"]
    lines += [f"fld f{i}, {256 + 8 * i}(x31)" for i in range(32)]
    lines += [f"ld x{i}, {8 * i}(x31)" for i in range(1, 32)]
    lines += [*body, ".align 2", f"li x3, {RESULT}"]
    lines += [f"sd x{i}, {8 * i}(x3)" for i in range(1, 32) if i != 3]
    lines += [f"fsd f{i}, {256 + 8 * i}(x3)" for i in range(32)]
    lines += ["frcsr t0", "sd t0, 512(x3)", last, ".align 3", "data:"]
    lines += [f".dword {value}" for value in values]
    return assemble("\n".join(lines), RAM_BASE).image


def on_our_cpu(seed):
    core = BareCore()
    core.start(program(seed, "li t0, 3 << 13\ncsrs sstatus, t0", "wfi"))
    core.run_until_idle()
    return core.read(RESULT, RESULT_SIZE)


def on_qemu(seed, path):
    """Make a static program of one segment; it writes its results to standard output."""
    write = f"li a0, 1\nli a1, {RESULT}\nli a2, {RESULT_SIZE}\nli a7, 64\necall"
    image = program(seed, "nop", f"{write}\nli a0, 0\nli a7, 93\necall")
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH", 2, 243, 1, RAM_BASE, 64, 0, 5, 64, 56, 1, 0, 0, 0
    )
    segment = struct.pack("<IIQQQQQQ", 1, 7, 4096, RAM_BASE, RAM_BASE, len(image), 0x2_0000, 4096)
    path.write_bytes((header + segment).ljust(4096, b"\0") + image)
    os.chmod(path, 0o755)
    done = subprocess.run(["qemu-riscv64", path], capture_output=True, check=True, timeout=60)
    return done.stdout


def words(result):
    """Name the words, for a readable difference."""
    names = [f"x{i}" for i in range(32)] + [f"f{i}" for i in range(32)] + ["fcsr"]
    numbers = struct.unpack(f"<{RESULT_SIZE // 8}Q", result)
    names += [f"memory+{8 * i:#x}" for i in range(len(names), len(numbers))]
    return {name: hex(number) for name, number in zip(names, numbers, strict=True)}


@pytest.mark.parametrize("seed", range(20))
def test_qemu_user_random_program_ends_in_the_same_state(seed, tmp_path):
    assert words(on_our_cpu(seed)) == words(on_qemu(seed, tmp_path / "program"))
