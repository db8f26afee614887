"""An NS16550A serial port over a chardev.

Input is taken from the chardev only as the FIFO has room, so nothing is ever overrun; output that the host does not
take keeps the transmitter full, so a guest that looks at its status loses nothing either. There is no
baud rate: the receiver's time-out passes at once.

Source: National Semiconductor PC16550D data sheet; Linux's 8250 driver for what it probes.
"""

from __future__ import annotations

from instar.devices.uart16550.state import FIFO, UartState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar, Final

    from instar.cpr.state import State
    from instar.devices.handles import IrqLine, SerialChardev

REGION_SIZE: Final = 0x100
PENDING_LIMIT: Final = 4096  # bytes the chardev may keep before the guest has to wait

_RBR_THR, _IER, _IIR_FCR, _LCR, _MCR, _LSR, _MSR, _SCR = range(8)
_IER_RDI, _IER_THRI, _IER_RLSI, _IER_MSI = 1, 2, 4, 8
_IIR_NONE, _IIR_MSI, _IIR_THRI, _IIR_RDI, _IIR_RLSI, _IIR_CTI = 1, 0, 2, 4, 6, 0xC
_IIR_FIFOS: Final = 0xC0
_FCR_ENABLE, _FCR_CLEAR_RX, _FCR_CLEAR_TX = 1, 2, 4
_LCR_BREAK, _LCR_DLAB = 0x40, 0x80
_MCR_DTR, _MCR_RTS, _MCR_OUT1, _MCR_OUT2, _MCR_LOOP = 1, 2, 4, 8, 16
_LSR_DR, _LSR_OE, _LSR_BI, _LSR_THRE, _LSR_TEMT = 1, 2, 0x10, 0x20, 0x40
_MSR_TERI: Final = 4
_MSR_CTS, _MSR_DSR, _MSR_RI, _MSR_DCD = 0x10, 0x20, 0x40, 0x80
_TRIGGER: Final = (1, 4, 8, 14)  # bytes, by the top two bits of FCR


class Uart16550:
    """Serve the guest's serial driver.

    Args:
        irq: The port's line.
        chardev: Where bytes come from and go to; the port becomes its front end.
        state_id: Unique name of its state.
    """

    __slots__ = ("chardev", "irq", "state", "state_id")
    state_class: ClassVar[type[State]] = UartState

    def __init__(self, irq: IrqLine, chardev: SerialChardev, state_id: str = "uart0") -> None:
        self.irq = irq
        self.chardev = chardev
        self.state_id = state_id
        self.state = UartState()
        chardev.attach(receive=self.receive, can_receive=self.can_receive, event=self.event)

    def reset(self) -> None:
        """Bring all registers to their reset values; output already written is still sent."""
        if self.state.tx:
            self.chardev.write(self.state.tx)
        self.state = UartState(held=self.chardev.pending() > PENDING_LIMIT)
        self._drive()
        self.chardev.accept_input()

    def save_state(self) -> UartState:
        """Return the live state."""
        return self.state

    def load_state(self, state: UartState) -> None:
        """Go on from ``state``."""
        self.state = state

    def post_load(self) -> None:
        """Drive the line; go on sending if the host takes output again, and receiving if there is room."""
        self._drive()
        self._try_resume()
        self.chardev.accept_input()

    # ------------------------------------------------------------------- the chardev's side

    def can_receive(self) -> int:
        """Return how many bytes the receiver has room for; none in loopback."""
        if self.state.mcr & _MCR_LOOP:
            return 0
        return self._capacity() - len(self.state.rx)

    def receive(self, data: bytes) -> None:
        """Take input; what exceeds :meth:`can_receive` would be an overrun, as on the wire."""
        for byte in data:
            self._push(byte)
        self._drive()

    def event(self, name: str) -> None:
        """Take an event of the chardev: a ``"break"`` on the line, or one that may have made room for output."""
        if name == "break":
            self._receive_break()
        else:
            self._try_resume()

    # ------------------------------------------------------------------- the guest's side

    def mmio_read(self, offset: int, _size: int) -> int:
        """Read a register of one byte."""
        state = self.state
        if state.lcr & _LCR_DLAB and offset in {_RBR_THR, _IER}:
            return state.divisor >> 8 * offset & 0xFF
        if offset == _RBR_THR:
            return self._read_data()
        if offset == _IIR_FCR:
            return self._read_iir()
        if offset == _LSR:
            return self._read_lsr()
        if offset == _MSR:
            value = self._modem_lines(state.mcr) | state.msr_delta
            state.msr_delta = 0
            self._drive()
            return value
        plain = {_IER: state.ier, _LCR: state.lcr, _MCR: state.mcr, _SCR: state.scr}
        return plain.get(offset, 0)

    def mmio_write(self, offset: int, _size: int, value: int) -> None:
        """Write a register of one byte."""
        state = self.state
        value &= 0xFF
        if state.lcr & _LCR_DLAB and offset in {_RBR_THR, _IER}:
            shift = 8 * offset
            state.divisor = state.divisor & ~(0xFF << shift) | value << shift
        elif offset == _RBR_THR:
            self._write_data(value)
        elif offset == _IER:
            self._write_ier(value & 0x0F)
        elif offset == _IIR_FCR:
            self._write_fcr(value)
        elif offset == _LCR:
            self._write_lcr(value)
        elif offset == _MCR:
            self._write_mcr(value & 0x1F)
        elif offset == _SCR:
            state.scr = value

    pio_read = mmio_read  # the same registers at ports, on boards that have such
    pio_write = mmio_write

    # ------------------------------------------------------------------- receiver

    def _capacity(self) -> int:
        return FIFO if self.state.fcr & _FCR_ENABLE else 1

    def _push(self, byte: int) -> None:
        state = self.state
        if len(state.rx) < self._capacity():
            state.rx += bytes((byte,))
        else:
            state.lsr_errors |= _LSR_OE

    def _receive_break(self) -> None:
        self.state.lsr_errors |= _LSR_BI
        self._push(0)  # a break arrives as a zero character
        self._drive()

    def _read_data(self) -> int:
        state = self.state
        if not state.rx:
            return 0
        was_full = self.can_receive() == 0
        byte = state.rx[0]
        state.rx = state.rx[1:]
        self._drive()
        if was_full or not state.rx:
            self.chardev.accept_input()
        return byte

    # ------------------------------------------------------------------- transmitter

    def _write_data(self, byte: int) -> None:
        state = self.state
        state.thre_pending = False
        if state.mcr & _MCR_LOOP:
            self._push(byte)
            state.thre_pending = True
        elif state.held:
            if (
                len(state.tx) < self._capacity()
            ):  # a full transmitter loses it: the guest did not look
                state.tx += bytes((byte,))
        else:
            self.chardev.write(bytes((byte,)))
            state.held = self.chardev.pending() > PENDING_LIMIT
            state.thre_pending = not state.held
        self._drive()

    def _try_resume(self) -> None:
        """Go on sending if the host takes output again."""
        state = self.state
        if not state.held or self.chardev.pending() > PENDING_LIMIT:
            return
        kept, state.tx = state.tx, b""
        if kept:
            self.chardev.write(kept)
        state.held = self.chardev.pending() > PENDING_LIMIT
        state.thre_pending = not state.held
        self._drive()

    # ------------------------------------------------------------------- registers

    def _read_lsr(self) -> int:
        state = self.state
        self._try_resume()  # a guest that polls need not wait for an event
        value = state.lsr_errors | (_LSR_DR if state.rx else 0)
        if not state.held:
            value |= _LSR_THRE | _LSR_TEMT
        state.lsr_errors = 0
        self._drive()
        return value

    def _write_ier(self, value: int) -> None:
        state = self.state
        if (value ^ state.ier) & _IER_THRI:  # enabling it with an empty transmitter asks at once
            state.thre_pending = bool(value & _IER_THRI) and not state.held
        state.ier = value
        self._drive()

    def _write_fcr(self, value: int) -> None:
        state = self.state
        if (value ^ state.fcr) & _FCR_ENABLE:  # switching modes empties both FIFOs
            value |= _FCR_CLEAR_RX | _FCR_CLEAR_TX
        state.fcr = value & (0xC0 | _FCR_ENABLE) if value & _FCR_ENABLE else 0
        if value & _FCR_CLEAR_TX:
            state.tx = b""
            state.thre_pending = not state.held
        if value & _FCR_CLEAR_RX:
            state.rx = b""
        self._drive()
        if value & _FCR_CLEAR_RX:
            self.chardev.accept_input()

    def _write_lcr(self, value: int) -> None:
        started = value & ~self.state.lcr & _LCR_BREAK
        self.state.lcr = value
        if started and self.state.mcr & _MCR_LOOP:
            self._receive_break()

    def _write_mcr(self, value: int) -> None:
        state = self.state
        before, after = self._modem_lines(state.mcr), self._modem_lines(value)
        changed = (before ^ after) >> 4
        if not before & _MSR_RI:  # only the trailing edge of the ring indicator counts
            changed &= ~_MSR_TERI
        left_loop = state.mcr & ~value & _MCR_LOOP
        state.msr_delta |= changed
        state.mcr = value
        self._drive()
        if left_loop:
            self.chardev.accept_input()

    @staticmethod
    def _modem_lines(mcr: int) -> int:
        """Return the upper half of MSR: always connected, or the port's own outputs in loopback."""
        if not mcr & _MCR_LOOP:
            return _MSR_CTS | _MSR_DSR | _MSR_DCD
        return (
            (_MSR_CTS if mcr & _MCR_RTS else 0)
            | (_MSR_DSR if mcr & _MCR_DTR else 0)
            | (_MSR_RI if mcr & _MCR_OUT1 else 0)
            | (_MSR_DCD if mcr & _MCR_OUT2 else 0)
        )

    def _interrupt(self) -> int:
        """Return the interrupt to report, by priority."""
        state = self.state
        if state.ier & _IER_RLSI and state.lsr_errors:
            return _IIR_RLSI
        if state.ier & _IER_RDI and state.rx:
            enough = len(state.rx) >= (_TRIGGER[state.fcr >> 6] if state.fcr & _FCR_ENABLE else 1)
            return _IIR_RDI if enough else _IIR_CTI
        if state.ier & _IER_THRI and state.thre_pending:
            return _IIR_THRI
        if state.ier & _IER_MSI and state.msr_delta:
            return _IIR_MSI
        return _IIR_NONE

    def _read_iir(self) -> int:
        source = self._interrupt()
        if source == _IIR_THRI:  # reading it as the source acknowledges it
            self.state.thre_pending = False
            self._drive()
        return source | (_IIR_FIFOS if self.state.fcr & _FCR_ENABLE else 0)

    def _drive(self) -> None:
        self.irq.set(self._interrupt() != _IIR_NONE)
