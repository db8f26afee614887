"""What the benchmarks run: a bare-metal loop of ours, and programs of ours added to the Debian guest."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from instar.cpu.rv64.asm import assemble
from instar.image import cpio

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SETTLE_S = 4.0  # after a boot the kernel works on: it checks certificates, for one
LOAD_ADDRESS = 0x8020_0000
PER_TURN = 18  # instructions; both sides of the branch have as many
# Loads and stores of 64 KiB, multiplications, a branch that depends on data, a call. Prints its sum, powers off.
LOOP = """
        .equ TURNS, 1
        .equ TABLE, 0x80400000
        .equ MULTIPLIER, 6364136223846793005
        .equ UART, 0x10000000
        .equ SRST, 0x53525354

start:  li s0, TURNS
        li s1, MULTIPLIER
        li s3, TABLE
        li s4, 0
        li s5, 0
        li t0, 1
turn:   mul t0, t0, s1
        addi t0, t0, 1013
        srli t1, t0, 51
        slli t1, t1, 3
        add t1, t1, s3
        ld t2, 0(t1)
        xor t2, t2, t0
        sd t2, 0(t1)
        andi t3, t2, 1
        beq t3, zero, even
        add s4, s4, t2
        j both
even:   sub s4, s4, t2
        addi s5, s5, 1
both:   jal ra, mix
        addi s0, s0, -1
        bne s0, zero, turn

        add s4, s4, s5
        li t0, UART
        li t1, 60
digit:  srl t2, s4, t1
        andi t2, t2, 15
        addi t2, t2, 97
        sb t2, 0(t0)
        addi t1, t1, -4
        bge t1, zero, digit
        li t2, 10
        sb t2, 0(t0)
        li a7, SRST
        li a6, 0
        li a0, 0
        li a1, 0
        ecall
wait:   j wait

mix:    srli t4, s4, 7
        xor s4, s4, t4
        ret
"""


def loop_image(turns: int) -> bytes:
    """Return the loop as a raw image for :data:`LOAD_ADDRESS`, entered in S-mode; ``turns`` is at least 1."""
    return assemble(LOOP, LOAD_ADDRESS, defines={"TURNS": turns}).image


PROGRAM_ADDRESS = 0x10000
PROGRAM_SIZE = 0x2000  # bytes, at most
PROGRAM_ROOM = PROGRAM_ADDRESS + PROGRAM_SIZE  # address of 64 KiB of zeros behind a program
_ROOM_SIZE = 0x10000
_HEADERS = 120  # bytes: ELF header and one program header


def program(source: str, defines: Mapping[str, int]) -> bytes:
    """Return a Linux program: its text, assembled, behind the headers of an ELF file that is one segment."""
    code = assemble(source, PROGRAM_ADDRESS + _HEADERS, defines=defines).image
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    entry = PROGRAM_ADDRESS + _HEADERS
    head = struct.pack("<16sHHIQQQIHHHHHH", ident, 2, 243, 1, entry, 64, 0, 5, 64, 56, 1, 0, 0, 0)
    size = _HEADERS + len(code)
    memory = PROGRAM_SIZE + _ROOM_SIZE
    segment = struct.pack(
        "<IIQQQQQQ", 1, 7, 0, PROGRAM_ADDRESS, PROGRAM_ADDRESS, size, memory, 0x1000
    )
    return head + segment + code


def initrd_with(initrd: str, path: Path, name: str, content: bytes) -> str:
    """Write to ``path`` the initramfs with ``/bin/name`` added: the kernel takes archives one after another."""
    with open(initrd, "rb") as stream:
        archive = stream.read()
    path.write_bytes(archive + cpio.archive([cpio.file(f"bin/{name}", content, 0o755)]))
    return str(path)
