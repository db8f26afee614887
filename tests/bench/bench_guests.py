"""What the benchmark runs: a bare-metal loop of ours, and lines of the Debian guest to wait for."""

from __future__ import annotations

from instar.cpu.rv64.asm import assemble

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
