"""A program for the Debian guest that echoes what comes over AF_VSOCK: our own assembler, no compiler needed.

``vsockecho`` listens on port :data:`GUEST_PORT` and echoes every connection in a process of its own;
``vsockecho out`` connects to port :data:`HOST_PORT` of the host, echoes until the end, and ends.
"""

from __future__ import annotations

import struct
from pathlib import Path

from instar.cpu.rv64.asm import assemble
from instar.image import cpio

GUEST_PORT = 5000
HOST_PORT = 6000
LOAD = 0x10000
HEADERS = 120  # bytes: ELF header and one program header

SOURCE = f"""
        .equ BUFFER, {LOAD + 0x2000}
        .equ SIZE, 65536
start:  ld      s0, 0(sp)               # argc
        li      a0, 40                  # AF_VSOCK
        li      a1, 1                   # SOCK_STREAM
        li      a2, 0
        li      a7, 198                 # socket
        ecall
        mv      s1, a0
        li      t0, 1
        bne     s0, t0, out
        la      a1, any
        li      a2, 16
        li      a7, 200                 # bind
        ecall
        bnez    a0, fail
        mv      a0, s1
        li      a1, 8
        li      a7, 201                 # listen
        ecall
        bnez    a0, fail
next:   mv      a0, s1
        li      a1, 0
        li      a2, 0
        li      a7, 202                 # accept
        ecall
        bltz    a0, fail
        mv      s2, a0
        li      a0, 17                  # SIGCHLD
        li      a1, 0
        li      a2, 0
        li      a3, 0
        li      a4, 0
        li      a7, 220                 # clone
        ecall
        beqz    a0, echo
        mv      a0, s2
        li      a7, 57                  # close
        ecall
        j       next
out:    mv      s2, s1
        mv      a0, s2
        la      a1, host
        li      a2, 16
        li      a7, 203                 # connect
        ecall
        bnez    a0, fail
echo:   mv      a0, s2
        li      a1, BUFFER
        li      a2, SIZE
        li      a7, 63                  # read
        ecall
        bltz    a0, fail
        beqz    a0, done
        mv      s3, a0
        li      s4, BUFFER
more:   mv      a0, s2
        mv      a1, s4
        mv      a2, s3
        li      a7, 64                  # write
        ecall
        blez    a0, fail
        add     s4, s4, a0
        sub     s3, s3, a0
        bnez    s3, more
        j       echo
done:   li      a0, 0
        j       exit
fail:   li      a0, 1
exit:   li      a7, 93                  # exit
        ecall
        .align  3
any:    .half   40, 0
        .word   {GUEST_PORT}, 0xffffffff, 0
host:   .half   40, 0
        .word   {HOST_PORT}, 2, 0
"""


def elf() -> bytes:
    """The program: one segment that may be read, written and executed, with the buffer behind it."""
    code = assemble(SOURCE, LOAD + HEADERS).image
    size = HEADERS + len(code)
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    head = struct.pack(
        "<16sHHIQQQIHHHHHH", ident, 2, 243, 1, LOAD + HEADERS, 64, 0, 5, 64, 56, 1, 0, 0, 0
    )
    segment = struct.pack("<IIQQQQQQ", 1, 7, 0, LOAD, LOAD, size, 0x2000 + 65536, 0x1000)
    return head + segment + code


def initrd_with_echo(initrd: str, path: Path) -> Path:
    """Write to ``path`` the initramfs with the program added: the kernel takes archives one after another."""
    extra = cpio.archive([cpio.file("bin/vsockecho", elf(), 0o755)])
    path.write_bytes(Path(initrd).read_bytes() + extra)
    return path
