"""Where interrupt lines lead: to a pin of a chip in the kernel, or to a message.

Source: Linux Documentation/virt/kvm/api.rst 4.52 KVM_SET_GSI_ROUTING.
"""

from __future__ import annotations

from instar.cpu.kvm import uapi
from instar.errors import InternalBugError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from instar.cpu.kvm.kvm import KvmVm

_PIC_PINS: Final = 8
_ISA_LINES: Final = 16


class Routes:
    """The routes of a VM; the kernel has a limit of their number, and takes all of them at once.

    Args:
        vm: With its interrupt controllers.
        split: The IOAPIC is not in the kernel: all its lines are messages.
    """

    __slots__ = ("_messages", "_split", "_vm")

    def __init__(self, vm: KvmVm, *, split: bool) -> None:
        self._vm = vm
        self._split = split
        self._messages: dict[int, tuple[int, int]] = {}

    def set_message(self, gsi: int, address: int, data: int) -> None:
        """Let a line send a message; :meth:`apply` makes it so.

        Args:
            gsi: From 24 on where the IOAPIC is in the kernel, any otherwise.
            address: Of the message, 64 bits.
            data: Of the message, 32 bits.
        """
        if not self._split and gsi < uapi.IOAPIC_PINS:
            raise InternalBugError(f"line {gsi} leads to the IOAPIC, not to a message")
        self._messages[gsi] = address, data

    def clear_message(self, gsi: int) -> None:
        """Let a line lead nowhere; :meth:`apply` makes it so."""
        self._messages.pop(gsi, None)

    def apply(self) -> None:
        """Tell the kernel (HostError; the routes before hold then)."""
        self._vm.set_routes(self.entries())

    def entries(self) -> list[bytes]:
        """Return all routes as the kernel's structures."""
        made = [] if self._split else _of_chips()
        for gsi, (address, data) in sorted(self._messages.items()):
            low, high = address & 0xFFFFFFFF, address >> 32
            made.append(uapi.ROUTING_MSI.pack(gsi, uapi.ROUTE_MSI, 0, 0, low, high, data, 0))
        return made


def _of_chips() -> list[bytes]:
    """Return what KVM_CREATE_IRQCHIP sets up: 0 to 15 at both PICs and the IOAPIC, the rest at the IOAPIC."""
    made: list[bytes] = []
    for gsi in range(uapi.IOAPIC_PINS):
        if gsi < _ISA_LINES:
            chip = uapi.IRQCHIP_PIC_MASTER if gsi < _PIC_PINS else uapi.IRQCHIP_PIC_SLAVE
            made.append(_pin(gsi, chip, gsi % _PIC_PINS))
        pin = 2 if gsi == 0 else gsi  # a PC's timer is at pin 2
        if gsi != 2:
            made.append(_pin(gsi, uapi.IRQCHIP_IOAPIC, pin))
    return made


def _pin(gsi: int, chip: int, pin: int) -> bytes:
    return uapi.ROUTING_IRQCHIP.pack(gsi, uapi.ROUTE_IRQCHIP, 0, 0, chip, pin)
