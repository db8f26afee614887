"""An assembler for classic BPF as seccomp runs it: load a word, mask it, compare it, return.

Source: Linux Documentation/networking/filter.rst, Documentation/userspace-api/seccomp_filter.rst; numbers from
include/uapi/linux/filter.h and bpf_common.h.
"""

from __future__ import annotations

from struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

INSTRUCTION: Final = Struct(
    "=HBBI"
)  # struct sock_filter: code, jump if true, jump if false, constant
MAX_INSTRUCTIONS: Final = 4096  # BPF_MAXINSNS
MAX_JUMP: Final = 255
LOAD_WORD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS: accumulator = word at the offset
AND: Final = 0x54  # BPF_ALU | BPF_AND | BPF_K
JUMP_EQUAL: Final = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
JUMP_GREATER_EQUAL: Final = 0x35  # BPF_JMP | BPF_JGE | BPF_K
JUMP_SET: Final = 0x45  # BPF_JMP | BPF_JSET | BPF_K
RETURN: Final = 0x06  # BPF_RET | BPF_K


class Assembler:
    """Instructions in order; a comparison that does not hold leaves the block that is open.

    A block is what lies between :meth:`begin` and :meth:`end`. Blocks are not nested.
    """

    __slots__ = ("_leave", "_rows")

    def __init__(self) -> None:
        self._rows: list[tuple[int, int, int, int]] = []
        self._leave: list[
            tuple[int, bool]
        ] = []  # comparisons of the open block; leave when the result is this

    def load(self, offset: int) -> None:
        """Load the 32-bit word at ``offset`` bytes of ``struct seccomp_data``."""
        self._rows.append((LOAD_WORD, 0, 0, offset))

    def mask(self, bits: int) -> None:
        """Keep these bits of the word."""
        self._rows.append((AND, 0, 0, bits))

    def begin(self) -> None:
        """Open a block."""
        self._leave = []

    def equal(self, value: int) -> None:
        """Leave the block unless the word is ``value``."""
        self._leave.append((len(self._rows), False))
        self._rows.append((JUMP_EQUAL, 0, 0, value))

    def other(self, value: int) -> None:
        """Leave the block if the word is ``value``."""
        self._leave.append((len(self._rows), True))
        self._rows.append((JUMP_EQUAL, 0, 0, value))

    def lacks(self, bits: int) -> None:
        """Leave the block if the word has one of ``bits``."""
        self._leave.append((len(self._rows), True))
        self._rows.append((JUMP_SET, 0, 0, bits))

    def within(self, first: int, last: int) -> None:
        """Leave the block unless the word is one of ``first`` to ``last``."""
        self._leave.append((len(self._rows), False))
        self._rows.append((JUMP_GREATER_EQUAL, 0, 0, first))
        self._leave.append((len(self._rows), True))
        self._rows.append((JUMP_GREATER_EQUAL, 0, 0, last + 1))

    def answer(self, value: int) -> None:
        """End with this value."""
        self._rows.append((RETURN, 0, 0, value))

    def end(self) -> None:
        """Close the block: here is where its comparisons leave to.

        Raises:
            ValueError: It is too long to be left.
        """
        here = len(self._rows)
        for at, when in self._leave:
            code, _, _, value = self._rows[at]
            jump = here - at - 1
            if jump > MAX_JUMP:
                raise ValueError(f"a block of {jump} instructions, limit {MAX_JUMP}")
            self._rows[at] = (code, jump, 0, value) if when else (code, 0, jump, value)
        self._leave = []

    def program(self) -> bytes:
        """Return the instructions as the kernel reads them.

        Raises:
            ValueError: There are too many.
        """
        if len(self._rows) > MAX_INSTRUCTIONS:
            raise ValueError(f"{len(self._rows)} instructions, limit {MAX_INSTRUCTIONS}")
        return b"".join(INSTRUCTION.pack(*row) for row in self._rows)
