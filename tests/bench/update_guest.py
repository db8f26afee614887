"""The guest of ``make bench-update``: Debian with a program that counts in a page that the host sees.

The program locks the page, has the kernel leave locked pages where they are, looks up where that is, and says it on
the console: ``COUNTING page number``. The host reads and writes the page through the memfd of the guest's memory.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from bench_guests import initrd_with, program

if TYPE_CHECKING:
    from pathlib import Path

    from update_stats import Case

RAM_ADDRESS = 0x8000_0000
KERNEL_SHARE = 112  # MiB that are not touched: kernel, initramfs, and 1/20 of all for page tables and the like
MAGIC = b"INSTARBT"
IDLE_AT, QUIET_AT = 16, 32  # in the page
TICK_MS = 2  # between two lines on the console
MAC = "52:54:00:00:00:01"
ADDRESS, PEER_ADDRESS = "10.9.0.2", "10.9.0.1"
PEER_MAC = "52:54:00:00:00:99"

SOURCE = """
        .equ AREA, 0
        .equ TICK, 20000                # timebase ticks (10 MHz)
        .equ PAGE, 0x20000000           # where we have it
        .equ COUNTER, 8
        .equ IDLE, 16
        .equ SWEEPS, 24
        .equ QUIET, 32
        .equ LINE, 0x12000
start:  li a0, PAGE
        li a1, 4096
        li a3, 0xa032                   # MAP_PRIVATE, MAP_FIXED, MAP_ANONYMOUS, MAP_LOCKED, MAP_POPULATE
        call map
        mv s0, a0
        li s1, 0
        li s2, AREA
        beqz s2, ready
        li a0, 0
        mv a1, s2
        li a3, 0x4022                   # MAP_PRIVATE, MAP_ANONYMOUS, MAP_NORESERVE
        call map
        mv s1, a0
        add s2, s1, s2
        li t1, 4096
        mv s3, s1
1:      sd s3, 0(s3)
        add s3, s3, t1
        bltu s3, s2, 1b
ready:  mv s3, s1
        la t0, magic
        ld t0, 0(t0)
        sd t0, 0(s0)
        li a0, -100                     # AT_FDCWD
        la a1, pagemap
        li a2, 0                        # O_RDONLY
        li a3, 0
        li a7, 56                       # openat
        ecall
        bltz a0, fail
        li a1, LINE
        li a2, 8
        li a3, PAGE / 512
        li a7, 67                       # pread64
        ecall
        li t0, 8
        bne a0, t0, fail
        la a1, hello
        li a2, 9
        call print
        li t0, LINE
        ld a0, 0(t0)
        slli a0, a0, 9                  # 55 bits of it
        srli a0, a0, 9
        call number
        li s4, 0                        # lines
        rdtime s5

turn:   ld t0, COUNTER(s0)
        addi t0, t0, 1
        sd t0, COUNTER(s0)
        beqz s1, 2f
        ld t0, 0(s3)                    # a page each turn
        addi t0, t0, 1
        sd t0, 0(s3)
        li t1, 4096
        add s3, s3, t1
        bltu s3, s2, 2f
        mv s3, s1
        ld t0, SWEEPS(s0)
        addi t0, t0, 1
        sd t0, SWEEPS(s0)
2:      rdtime t0
        bgeu t0, s5, tick
rest:   ld t0, IDLE(s0)
        beqz t0, turn
        la a0, while_idle
        li a1, 0
        li a7, 101                      # nanosleep
        ecall
        j turn

tick:   li t1, TICK
        add s5, t0, t1
        ld t1, QUIET(s0)
        bnez t1, rest
        addi s4, s4, 1
        mv a0, s4
        call number
        j turn

# a0 number: a line
number: li a1, LINE + 24                # from its last digit on
        li t0, 10
        sb t0, 0(a1)
3:      remu t2, a0, t0
        divu a0, a0, t0
        addi t2, t2, 48
        addi a1, a1, -1
        sb t2, 0(a1)
        bnez a0, 3b
        li a2, LINE + 25
        sub a2, a2, a1
# a1 text, a2 length
print:  li a0, 1
        li a7, 64                       # write
        ecall
        ret

# a0 where, or 0, a1 length, a3 flags: a0 is where
map:    li a2, 3                        # PROT_READ, PROT_WRITE
        li a4, -1
        li a5, 0
        li a7, 222                      # mmap
        ecall
        li t0, -4096
        bgeu a0, t0, fail
        ret

fail:   li a7, 93                       # exit, with the number of the error
        neg a0, a0
        ecall

        .align  3
while_idle:
        .dword  0, 200000000            # 0.2 s
magic:  .ascii  "INSTARBT"
pagemap:
        .asciz  "/proc/self/pagemap"
hello:  .ascii  "COUNTING "
"""


def page_offset(number: int) -> int:
    """Return where in the memfd a page is, bytes, by its number in the guest."""
    return (number << 12) - RAM_ADDRESS


def area(case: Case) -> int:
    """Return how many bytes the guest touches."""
    usable = case.memory - KERNEL_SHARE - case.memory // 20
    return max(usable, 0) << 20 if case.state == "touched" else 0


def wired(case: Case) -> bool:
    """Say whether the guest has a network card.

    Instar's cpr-transfer refuses guests with this one.
    With a bridge it would park the CPU in the middle of an update, which is measured without a bridge.
    """
    return case.mode == "cpr-exec"


def counting_initrd(initrd: str, path: Path, case: Case) -> str:
    """Write the initramfs of such a guest to ``path``."""
    defines = {"AREA": area(case), "TICK": TICK_MS * 10_000}
    return initrd_with(initrd, path, "counting", program(SOURCE, defines))


def kernel_words(case: Case) -> str:
    """Return the kernel's command line."""
    card = (
        f"ip addr add {ADDRESS}/24 dev eth0; ip link set eth0 up; arp -s {PEER_ADDRESS} {PEER_MAC}"
    )
    wires = f"{card}; " if wired(case) else ""
    script = f"echo 0 > /proc/sys/vm/compact_unevictable_allowed; {wires}counting"
    return f'console=ttyS0 quiet instar.run="{script}"'


def counter(page: bytes) -> int:
    """Return the guest's count from the first bytes of its page, -1 before it began."""
    magic, count = struct.unpack_from("<8sQ", page)
    return count if magic == MAGIC else -1
