"""An IOAPIC of ours, for LAPICs in the kernel (``kernel-irqchip=split``): lines in, messages out.

It is reached like a device and belongs to the interrupt controllers all the same: its state is one of theirs, laid out
as the kernel lays out its own, so that it is known which is which.

Source: Intel 82093AA (I/O APIC) data sheet, 3; Linux Documentation/virt/kvm/api.rst, 7.5 KVM_CAP_SPLIT_IRQCHIP.
"""

from __future__ import annotations

import _thread
import os
from struct import Struct

from instar.cpu.kvm import uapi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

    from instar.cpu.kvm.kvm import KvmVm
    from instar.cpu.kvm.routes import Routes

BASE: Final = 0xFEC00000
SIZE: Final = 0x1000
_LAYOUT: Final = Struct(f"=QIIII{uapi.IOAPIC_PINS}Q")  # struct kvm_ioapic_state
_SELECT, _WINDOW, _EOI = 0x00, 0x10, 0x40
_ID, _VERSION, _ARBITRATION, _TABLE = 0x00, 0x01, 0x02, 0x10
_VERSION_VALUE: Final = 0x20 | uapi.IOAPIC_PINS - 1 << 16  # with an EOI register

_VECTOR: Final = 0xFF
_DELIVERY: Final = 7 << 8
_LOGICAL: Final = 1 << 11
_PENDING: Final = 1 << 12  # delivery status: nothing waits here
_REMOTE_IRR: Final = 1 << 14  # a LAPIC has it and has not acknowledged it
_LEVEL: Final = 1 << 15
_MASKED: Final = 1 << 16
_READ_ONLY: Final = _PENDING | _REMOTE_IRR
_ENTRY_BITS: Final = 0xFF00_0000_0001_FFFF
_MESSAGES_AT: Final = 0xFEE00000
_ASSERT: Final = 1 << 14  # of a message
_LAPIC_ISR: Final = 0x100
_LAPIC_IRR: Final = 0x200


class Ioapic:
    """24 lines; any thread may drive them, vCPUs read and write its registers and acknowledge.

    Args:
        vm: Takes the messages.
        routes: What the kernel has to know of them: which vectors are to be told as acknowledged, and where event
            descriptors on lines lead.
    """

    __slots__ = (
        "_id",
        "_irr",
        "_levels",
        "_lock",
        "_resampled",
        "_routes",
        "_select",
        "_table",
        "_vm",
    )

    def __init__(self, vm: KvmVm, routes: Routes) -> None:
        self._vm = vm
        self._routes = routes
        self._lock = _thread.allocate_lock()
        self._levels = 0
        self._resampled: dict[int, int] = {}
        self._set_all(0, 0, 0, [_MASKED] * uapi.IOAPIC_PINS)

    def reset(self) -> None:
        """Mask all lines, as after power-on; those that are driven stay so."""
        with self._lock:
            self._set_all(0, 0, self._levels, [_MASKED] * uapi.IOAPIC_PINS)
            self._tell_kernel()

    def set_line(self, pin: int, level: bool) -> None:  # noqa: FBT001 - the shape of a wire
        """Drive a line, 0 to 23."""
        bit = 1 << pin
        with self._lock:
            rises = level and not self._levels & bit
            self._levels = self._levels | bit if level else self._levels & ~bit
            entry = self._table[pin]
            if not level:
                self._irr &= ~bit
            elif entry & _LEVEL or (rises and not entry & _MASKED):  # a masked edge is lost
                self._irr |= bit
                self._serve(pin)

    def end_of_interrupt(self, vector: int) -> None:
        """A LAPIC is done with a vector: lines that are still driven interrupt again."""
        with self._lock:
            for pin, entry in enumerate(self._table):
                if entry & _VECTOR != vector or not entry & _LEVEL:
                    continue
                if pin in self._resampled:
                    os.eventfd_write(self._resampled[pin], 1)
                if entry & _REMOTE_IRR:
                    self._table[pin] &= ~_REMOTE_IRR
                    if entry & _MASKED:
                        self._tell_kernel(pin)
                    self._serve(pin)

    def resample(self, pin: int, fd: int) -> None:
        """Signal an eventfd when a level that another one raised past us has been acknowledged; -1: not any more."""
        with self._lock:
            if fd < 0:
                self._resampled.pop(pin, None)
            else:
                self._resampled[pin] = fd

    def mmio_read(self, offset: int, size: int) -> int:
        """Read a register; what is none reads 0."""
        with self._lock:
            if offset == _SELECT:
                return self._select
            return self._read(self._select) if offset == _WINDOW else 0

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        """Write a register; what is none takes nothing."""
        if offset == _EOI:
            self.end_of_interrupt(value & _VECTOR)
            return
        with self._lock:
            if offset == _SELECT:
                self._select = value & 0xFF
            elif offset == _WINDOW:
                self._write(self._select, value & 0xFFFFFFFF)

    def waits(self) -> bool:
        """Whether an acknowledgement is due."""
        return any(entry & _REMOTE_IRR for entry in self._table)

    def save(self, lapics: Sequence[bytes] = ()) -> bytes:
        """Return the state as ``struct kvm_irqchip.chip`` has it.

        An acknowledgement that a vCPU was about to come out with when it was parked stays in the kernel, which does not
        say so: a vector that no LAPIC has any more has been acknowledged.

        Args:
            lapics: Registers of all, if :meth:`waits`.
        """
        with self._lock:
            table = [self._acknowledged(entry, lapics) for entry in self._table]
            raw = _LAYOUT.pack(BASE, self._select, self._id, self._irr, 0, *table)
        return raw.ljust(uapi.IRQCHIP_SIZE, b"\0")

    def load(self, chip: bytes) -> None:
        """Take over such a state; its devices drive their lines again."""
        _, select, ident, irr, _, *table = _LAYOUT.unpack_from(chip)
        with self._lock:
            self._levels = 0
            kept = [entry & _ENTRY_BITS for entry in table]
            self._set_all(select & 0xFF, ident, irr & (1 << uapi.IOAPIC_PINS) - 1, kept)
            self._tell_kernel()

    @staticmethod
    def _acknowledged(entry: int, lapics: Sequence[bytes]) -> int:
        if not entry & _REMOTE_IRR or any(_has(regs, entry & _VECTOR) for regs in lapics):
            return entry
        return entry & ~_REMOTE_IRR

    def _set_all(self, select: int, ident: int, irr: int, table: list[int]) -> None:
        self._select = select
        self._id = ident
        self._irr = irr  # lines that have something to say
        self._table = table

    def _read(self, register: int) -> int:
        if register in (_ID, _ARBITRATION):
            return (self._id & 0xF) << 24
        if register == _VERSION:
            return _VERSION_VALUE
        pin, high = divmod(register - _TABLE, 2)
        if not 0 <= pin < uapi.IOAPIC_PINS:
            return 0
        return self._table[pin] >> 32 if high else self._table[pin] & 0xFFFFFFFF

    def _write(self, register: int, value: int) -> None:
        if register == _ID:
            self._id = value >> 24 & 0xF
        pin, high = divmod(register - _TABLE, 2)
        if not 0 <= pin < uapi.IOAPIC_PINS:
            return
        old = self._table[pin]
        if high:
            new = old & 0xFFFFFFFF | value << 32
        else:
            new = old & ~0xFFFFFFFF & ~_READ_ONLY | value & ~_READ_ONLY | old & _READ_ONLY
        new &= _ENTRY_BITS
        if not new & _LEVEL:
            new &= ~_REMOTE_IRR  # nobody acknowledges an edge
        self._table[pin] = new
        if new != old:
            self._tell_kernel(pin)
        self._serve(pin)

    def _serve(self, pin: int) -> None:
        """Send what a line has to say, if it may."""
        entry = self._table[pin]
        if not self._irr >> pin & 1 or entry & (_MASKED | _REMOTE_IRR):
            return
        sent = self._vm.signal_msi(*_message(entry))
        if not entry & _LEVEL:
            self._irr &= ~(1 << pin)
        elif sent:
            self._table[pin] |= _REMOTE_IRR

    def _tell_kernel(self, *pins: int) -> None:
        """Set routes; a line that is masked while a LAPIC has it keeps its own, else nobody tells of the EOI."""
        for pin in pins or range(uapi.IOAPIC_PINS):
            if self._table[pin] & (_MASKED | _REMOTE_IRR) == _MASKED:
                self._routes.clear_message(pin)
            else:
                self._routes.set_message(pin, *_message(self._table[pin]))
        self._routes.apply()


def _message(entry: int) -> tuple[int, int]:
    """Return address and data of the message that a table's entry stands for."""
    target = entry >> 56 << 12
    address = _MESSAGES_AT | target | (1 << 2 if entry & _LOGICAL else 0)
    return address, entry & (_VECTOR | _DELIVERY) | _ASSERT | entry & _LEVEL


def _has(lapic: bytes, vector: int) -> bool:
    """Whether a vector is requested or in service."""
    word, bit = divmod(vector, 32)
    return any(lapic[at + 16 * word + bit // 8] >> bit % 8 & 1 for at in (_LAPIC_ISR, _LAPIC_IRR))
