"""State of the harts and of what they share: architectural fields only, no TLB and no decoded code.

The fields are those of ``Core.save_hart`` and ``Core.save_shared``. The defaults are a hart after reset.
"""

from __future__ import annotations

from instar.cpr.errors import StateInvalidError
from instar.cpr.state import State, flag, i, state, u, us

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

PRIVILEGES: Final = (0, 1, 3)
HART_STATES: Final = (0, 1, 4)
RESET_PC: Final = 0x8000_0000
NEVER: Final = (1 << 64) - 1
MAX_HARTS: Final = 8
MAX_TURN: Final = 2000  # instructions


@state("rv64-hart", version=1)
class HartState(State):
    """One hart.

    Source: RISC-V unprivileged ISA 20191213, privileged architecture 20211203, Sstc 1.0, SBI 2.0 (hart states).
    """

    x: list[int] = us(64, "Integer registers; x[0] is 0.", length=32)
    pc: int = u(64, "Address of the next instruction.", default=RESET_PC)
    priv: int = u(2, "Privilege: 0 user, 1 supervisor, 3 machine.", default=3)
    mstatus: int = u(64, "Status, without the bits that are computed (SD, UXL, SXL).")
    mtvec: int = u(64, "Machine trap vector.")
    medeleg: int = u(64, "Exceptions delegated to supervisor mode.")
    mideleg: int = u(64, "Interrupts delegated to supervisor mode.")
    mie: int = u(64, "Interrupts enabled one by one.")
    mip: int = u(64, "Pending interrupts as software set them; lines and timer are not in it.")
    mepc: int = u(64, "Machine exception program counter.")
    mcause: int = u(64, "Machine trap cause.")
    mtval: int = u(64, "Machine trap value.")
    mscratch: int = u(64, "Machine scratch register.")
    mcounteren: int = u(64, "Counters that supervisor mode may read.")
    menvcfg: int = u(64, "Environment of less privileged modes; bit 63 enables stimecmp.")
    mcycle: int = u(64, "Cycle counter: instructions and exceptions.")
    minstret: int = u(64, "Instructions retired.")
    stvec: int = u(64, "Supervisor trap vector.")
    sepc: int = u(64, "Supervisor exception program counter.")
    scause: int = u(64, "Supervisor trap cause.")
    stval: int = u(64, "Supervisor trap value.")
    sscratch: int = u(64, "Supervisor scratch register.")
    scounteren: int = u(64, "Counters that user mode may read.")
    senvcfg: int = u(64, "Environment of user mode.")
    satp: int = u(64, "Address translation.")
    stimecmp: int = u(64, "Supervisor timer compare.", unit="100 ns", default=NEVER)
    f: list[int] = us(64, "Floating-point registers, NaN-boxed.", length=32)
    fflags: int = u(5, "Accrued floating-point exceptions.")
    frm: int = u(3, "Floating-point rounding mode.")
    pmpcfg: list[int] = us(64, "Physical memory protection: pmpcfg0 and pmpcfg2.", length=2)
    pmpaddr: list[int] = us(64, "Physical memory protection: addresses as written.", length=16)
    reserved: int = u(1, "There is a reservation of a load-reserved.")
    reserved_addr: int = u(64, "Its guest physical address.")
    reserved_value: int = u(64, "The value that was loaded.")
    wfi: int = u(1, "Waits for an interrupt.")
    hsm: int = u(3, "SBI hart state: 0 started, 1 stopped, 4 suspended.", default=1)
    sbi: int = u(1, "Environment calls of supervisor mode go to the built-in SBI.")
    lines: int = u(64, "External interrupt lines that are up, bits as in mip.")

    def check(self) -> None:
        """Refuse privileges and hart states that do not exist."""
        for name, value, known in (
            ("priv", self.priv, PRIVILEGES),
            ("hsm", self.hsm, HART_STATES),
            ("mstatus.MPP", self.mstatus >> 11 & 3, PRIVILEGES),
        ):
            if value not in known:
                raise StateInvalidError(f"rv64-hart.{name}: {value} is not one of {known}")


@state("rv64-core", version=1)
class CoreState(State):
    """What the harts of a core share."""

    icount: int = u(64, "Instructions and exceptions executed, over all harts.")
    clock_ns: int = u(64, "Virtual time.", unit="ns")
    turn: int = u(8, "Hart whose turn it is.")
    turn_left: int = u(16, "What is left of its turn.", unit="instructions", default=MAX_TURN)

    def check(self) -> None:
        """Refuse a turn that no core has."""
        if self.turn >= MAX_HARTS:
            raise StateInvalidError(f"rv64-core.turn: {self.turn}, limit {MAX_HARTS - 1}")
        if self.turn_left > MAX_TURN:
            raise StateInvalidError(f"rv64-core.turn_left: {self.turn_left}, limit {MAX_TURN}")


@state("cpu-model", version=1)
class ModelState(State):
    """What of the harts the command line decides and the guest can tell apart."""

    harts: int = u(8, "Number of harts.", default=1)
    sstc: bool = flag("Supervisor mode may use stimecmp itself.")
    icount_shift: int = i(
        8, "An instruction takes 2**icount_shift ns of virtual time; -1: real time.", default=-1
    )
