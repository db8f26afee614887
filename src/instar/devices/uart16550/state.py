"""State of the serial port."""

from __future__ import annotations

from instar.cpr.errors import StateInvalidError
from instar.cpr.state import State, blob, flag, state, u

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

FIFO: Final = 16  # bytes each way


@state("uart16550", version=1)
class UartState(State):
    """Registers and FIFOs of an NS16550A.

    Source: National Semiconductor PC16550D data sheet.
    """

    divisor: int = u(16, "Baud rate divisor (DLL, DLM); kept, has no effect.", default=12)
    ier: int = u(4, "Interrupt enable register.")
    fcr: int = u(8, "FIFO control register, its lasting bits.")
    lcr: int = u(8, "Line control register.")
    mcr: int = u(5, "Modem control register.")
    scr: int = u(8, "Scratch register.")
    lsr_errors: int = u(8, "Overrun and break bits, until the status is read.")
    msr_delta: int = u(4, "Changes of the modem lines, until the status is read.")
    thre_pending: bool = flag("The transmitter emptied and the guest was not told yet.")
    held: bool = flag("The host does not take output now: the transmitter stays full.")
    rx: bytes = blob("Received and not read.", max=FIFO)
    tx: bytes = blob("Written while held, not sent yet.", max=FIFO)

    def check(self) -> None:
        """Refuse bits that no register has, and output waiting for nothing."""
        if self.lsr_errors & ~0x12 or self.fcr & ~0xC1:
            raise StateInvalidError(
                f"uart16550.lsr_errors: {self.lsr_errors:#x} or fcr {self.fcr:#x} has unknown bits"
            )
        if self.tx and not self.held:
            raise StateInvalidError("uart16550.tx: bytes wait though the transmitter is not held")
