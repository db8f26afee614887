"""One virtio-mmio slot: registers, feature negotiation, notifications, and what happens to a guest that breaks a rule.

Source: virtio 1.2, 4.2.2 (register layout, version 2).
"""

from __future__ import annotations

from instar import log
from instar.cpr.errors import StateInvalidError
from instar.devices.virtio_mmio.state import VirtioMmioState
from instar.errors import GuestError
from instar.virtio import features as f
from instar.virtio.queue import Queue
from instar.virtio.state import QueueState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ClassVar, Final

    from instar.cpr.state import State
    from instar.devices.handles import IrqLine
    from instar.memory import GuestMemory
    from instar.virtio.device import VirtioDevice

REGION_SIZE: Final = 0x200
MAGIC: Final = 0x7472_6976  # "virt"
VERSION: Final = 2
VENDOR: Final = 0x5453_4E49  # "INST"
TRANSPORT_FEATURES: Final = f.VERSION_1 | f.INDIRECT_DESC | f.EVENT_IDX | f.RING_RESET
_DRIVER_BITS: Final = f.ACKNOWLEDGE | f.DRIVER | f.DRIVER_OK | f.FEATURES_OK | f.FAILED
_USED, _CONFIG = 1, 2
_WORD: Final = 0xFFFF_FFFF

_MAGIC, _VERSION, _DEVICE_ID, _VENDOR_ID = 0x000, 0x004, 0x008, 0x00C
_DEVICE_FEATURES, _DEVICE_FEATURES_SEL = 0x010, 0x014
_DRIVER_FEATURES, _DRIVER_FEATURES_SEL = 0x020, 0x024
_QUEUE_SEL, _QUEUE_SIZE_MAX, _QUEUE_SIZE, _QUEUE_READY = 0x030, 0x034, 0x038, 0x044
QUEUE_NOTIFY, _INTERRUPT_STATUS, _INTERRUPT_ACK, _STATUS = 0x050, 0x060, 0x064, 0x070
_SHM_SEL, _SHM_LEN_LOW, _SHM_BASE_HIGH, _QUEUE_RESET = 0x0AC, 0x0B0, 0x0BC, 0x0C0
_GENERATION, _CONFIG_SPACE = 0x0FC, 0x100

_SELECTORS: Final = {
    _DEVICE_FEATURES_SEL: "features_sel",
    _DRIVER_FEATURES_SEL: "driver_features_sel",
    _QUEUE_SEL: "queue_sel",
    _SHM_SEL: "shm_sel",
}
_ADDRESSES: Final = {
    0x080: ("desc", 0),
    0x084: ("desc", 32),
    0x090: ("avail", 0),
    0x094: ("avail", 32),
    0x0A0: ("used", 0),
    0x0A4: ("used", 32),
}


class EmptySlot:
    """A slot without a device: device id 0 makes drivers ignore it (4.2.2.2)."""

    __slots__ = ()

    def mmio_read(self, offset: int, size: int) -> int:
        """Read magic and version; everything else is 0."""
        known = {_MAGIC: MAGIC, _VERSION: VERSION, _VENDOR_ID: VENDOR}
        return known.get(offset, 0) if size == 4 else 0

    def mmio_write(self, _offset: int, _size: int, _value: int) -> None:
        """Ignore it."""


class VirtioMmio:
    """The transport of one device.

    A guest fault (:class:`GuestError`) ends here: the device asks for a reset, the fault is counted and logged.

    Args:
        device: The device behind the registers; its ``port`` becomes this object.
        memory: Guest RAM, for the rings and buffers.
        irq: The slot's line.
        state_id: Unique name of the transport's state, ``"virtio-mmio/<slot>"``.
    """

    __slots__ = ("device", "irq", "memory", "queues", "state", "state_id")
    state_class: ClassVar[type[State]] = VirtioMmioState

    def __init__(
        self, device: VirtioDevice, memory: GuestMemory, irq: IrqLine, state_id: str
    ) -> None:
        self.device = device
        self.memory = memory
        self.irq = irq
        self.state_id = state_id
        self.queues: list[Queue] = []  # derived: the rules for state.queues
        self._adopt(VirtioMmioState(queues=[QueueState() for _ in device.queues]))
        device.port = self

    # ------------------------------------------------------------------- life

    def reset(self) -> None:
        """Bring slot and device to the reset state, after what is in flight on the host has ended."""
        self.device.stop()
        for queue in self.queues:  # whoever still holds one must find it off
            queue.disable()
        self.device.reset()
        old = self.state
        self._adopt(
            VirtioMmioState(
                generation=old.generation,
                faults=old.faults,
                queues=[QueueState() for _ in old.queues],
            )
        )
        self.irq.set(False)

    def save_state(self) -> VirtioMmioState:
        """Return the live state."""
        return self.state

    def check_against(self, state: VirtioMmioState) -> None:
        """Refuse the state of another device.

        Raises:
            StateInvalidError: it has other queues, or the guest uses a feature that this device does not offer.
        """
        if len(state.queues) != len(self.queues):
            raise StateInvalidError(
                f"{self.state_id}.queues: {len(state.queues)} queues, the device has {len(self.queues)}"
            )
        unknown = state.features & ~self._offered()
        if state.status & f.FEATURES_OK and unknown:
            raise StateInvalidError(
                f"{self.state_id}.features: the guest uses {unknown:#x}, which this device does not offer"
            )
        limit = self.device.queue_size
        if any(queue.ready and queue.size > limit for queue in state.queues):
            raise StateInvalidError(f"{self.state_id}.queues: a queue is larger than {limit}")

    def load_state(self, state: VirtioMmioState) -> None:
        """Go on from ``state``."""
        self._adopt(state)

    def post_load(self) -> None:
        """Drive the line and let the device go on with what was under way."""
        self.irq.set(self.state.interrupts != 0)
        for queue in self.queues:
            if queue.state.ready:
                self.run(self.device.resume, queue)
        if self.state.status & f.DRIVER_OK and not self.state.status & (f.NEEDS_RESET | f.FAILED):
            self._begin(again=True)

    def _begin(self, *, again: bool) -> None:
        try:
            self.device.begin(self.queues, again=again)
        except GuestError as e:
            self._fault(e)

    def _adopt(self, state: VirtioMmioState) -> None:
        self.state = state
        device = self.device
        self.queues = [
            Queue(name, self.memory, queue, device.queue_size, self._used_buffers)
            for name, queue in zip(device.queues, state.queues, strict=True)
        ]
        self._give_features()

    # ------------------------------------------------------------------- the device's side

    @property
    def features(self) -> int:
        """The negotiated features; 0 before the negotiation ended."""
        return self.state.features if self.state.status & f.FEATURES_OK else 0

    def run(self, work: Callable[[Queue], object], queue: Queue) -> None:
        """Do ``work(queue)``, tell the driver of used buffers, and contain what the guest did wrong."""
        try:
            work(queue)
            queue.notify()
        except GuestError as e:
            self._fault(e)

    def config_changed(self) -> None:
        """Tell the driver to read the configuration space again."""
        self.state.generation = (self.state.generation + 1) & _WORD
        if self.state.status & f.DRIVER_OK:
            self._raise(_CONFIG)

    def broken(self, why: str) -> None:
        """Ask for a reset: the host's side of the device is gone."""
        log.limited("warning", self.state_id, f"{why}; the device needs a reset")
        self._ask_for_reset()

    def _fault(self, error: GuestError) -> None:
        self.state.faults += 1
        log.guest(self.state_id, f"{error}; the device needs a reset")
        self._ask_for_reset()

    def _ask_for_reset(self) -> None:
        state = self.state
        if not state.status & f.NEEDS_RESET:
            state.status |= f.NEEDS_RESET
            if state.status & f.DRIVER_OK:  # 2.1.2
                self._raise(_CONFIG)

    def _used_buffers(self) -> None:
        self._raise(_USED)

    def _raise(self, cause: int) -> None:
        self.state.interrupts |= cause
        self.irq.set(True)

    def _offered(self) -> int:
        return TRANSPORT_FEATURES & ~self.device.withheld() | self.device.offered()

    def _give_features(self) -> None:
        for queue in self.queues:
            queue.features = self.features

    def notify(self, index: int) -> None:
        """Serve queue ``index``: the driver added chains, or may have."""
        status = self.state.status
        if not status & f.DRIVER_OK or status & (f.NEEDS_RESET | f.FAILED):
            return
        if index >= len(self.queues) or not self.queues[index].state.ready:
            log.guest(self.state_id, f"notification of queue {index}, which is not ready")
            return
        queue = self.queues[index]
        self.run(self._serve, queue)

    # ------------------------------------------------------------------- registers

    def mmio_read(self, offset: int, size: int) -> int:
        """Read a register (4 bytes) or the configuration space (1 to 8 bytes)."""
        if offset >= _CONFIG_SPACE:
            start = offset - _CONFIG_SPACE
            return int.from_bytes(self.device.config()[start : start + size], "little")
        if offset == _INTERRUPT_STATUS and size == 4:  # the one that is read all the time
            return self.state.interrupts
        if size != 4 or offset & 3:
            log.guest(self.state_id, f"read of {size} bytes at {offset:#x}, registers are words")
            return 0
        if _SHM_LEN_LOW <= offset <= _SHM_BASE_HIGH:
            return _WORD  # a region of length -1 does not exist (4.2.2)
        if offset in {_QUEUE_SIZE_MAX, _QUEUE_READY}:
            return self._read_queue(offset)
        state = self.state
        values = {
            _MAGIC: MAGIC,
            _VERSION: VERSION,
            _DEVICE_ID: self.device.device_id,
            _VENDOR_ID: VENDOR,
            _DEVICE_FEATURES: self._read_features(),
            _STATUS: state.status,
            _GENERATION: state.generation,
        }
        return values.get(offset, 0)

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        """Write a register (4 bytes) or the configuration space (1 to 8 bytes)."""
        value &= (1 << 8 * size) - 1
        if offset >= _CONFIG_SPACE:
            self._write_config(offset - _CONFIG_SPACE, value.to_bytes(size, "little"))
        elif size != 4 or offset & 3:
            log.guest(self.state_id, f"write of {size} bytes at {offset:#x}, registers are words")
        elif offset == QUEUE_NOTIFY:
            self.notify(value)
        elif offset in _SELECTORS:
            setattr(self.state, _SELECTORS[offset], value)
        elif offset in _ADDRESSES:
            self._write_address(offset, value)
        else:
            try:
                self._write_control(offset, value)
            except GuestError as e:
                self._fault(e)

    def _read_queue(self, offset: int) -> int:
        queue = self._selected()
        if queue is None:
            return 0
        return queue.limit if offset == _QUEUE_SIZE_MAX else int(queue.state.ready)

    def _read_features(self) -> int:
        word = self.state.features_sel
        return self._offered() >> 32 * word & _WORD if word < 2 else 0

    def _selected(self) -> Queue | None:
        index = self.state.queue_sel
        return self.queues[index] if index < len(self.queues) else None

    def _write_config(self, offset: int, data: bytes) -> None:
        try:
            self.device.write_config(offset, data)
        except GuestError as e:
            self._fault(e)

    def _write_control(self, offset: int, value: int) -> None:
        if offset == _STATUS:
            self._write_status(value)
        elif offset == _INTERRUPT_ACK:
            self.state.interrupts &= ~value
            self.irq.set(self.state.interrupts != 0)
        elif offset == _DRIVER_FEATURES:
            self._write_features(value)
        elif offset in {_QUEUE_SIZE, _QUEUE_READY, _QUEUE_RESET}:
            queue = self._selected()
            if queue is not None:
                self._write_queue(queue, offset, value)
        else:
            log.guest(self.state_id, f"write of {value:#x} to {offset:#x}, which is not writable")

    def _write_address(self, offset: int, value: int) -> None:
        queue = self._selected()
        if queue is None or queue.state.ready:
            log.guest(
                self.state_id, f"queue address written at {offset:#x}, queue absent or in use"
            )
            return
        name, shift = _ADDRESSES[offset]
        old: int = getattr(queue.state, name)
        setattr(queue.state, name, old & ~(_WORD << shift) | value << shift)

    def _write_queue(self, queue: Queue, offset: int, value: int) -> None:
        ready = queue.state.ready
        if offset == _QUEUE_SIZE:
            if ready:
                log.guest(self.state_id, f"size of queue {queue.name} written while it is in use")
            else:
                queue.state.size = value
        elif offset == _QUEUE_READY:
            if value & 1 and not ready:
                queue.enable()
            elif ready and not value & 1:
                self._stop_queue(queue)
        elif value & 1 and self.features & f.RING_RESET:  # 2.6.1: QueueReset
            self._stop_queue(queue)
            queue.state.size = queue.state.desc = queue.state.avail = queue.state.used = 0

    def _stop_queue(self, queue: Queue) -> None:
        self.device.stop()
        queue.disable()

    def _write_features(self, value: int) -> None:
        state = self.state
        word = state.driver_features_sel
        if state.status & f.FEATURES_OK:
            log.guest(self.state_id, "features written after FEATURES_OK")
        elif word < 2:
            shift = 32 * word
            state.features = state.features & ~(_WORD << shift) | value << shift

    def _write_status(self, value: int) -> None:
        """Take the driver's step of the initialisation (3.1.1)."""
        if value == 0:
            self.reset()
            return
        state = self.state
        added = value & _DRIVER_BITS & ~state.status
        if state.status & _DRIVER_BITS & ~value:
            log.guest(self.state_id, f"status {value:#x} clears bits; only 0 (reset) does that")
        if added & f.FEATURES_OK:
            unknown = state.features & ~self._offered()
            if unknown or not state.features & f.VERSION_1:
                added &= ~f.FEATURES_OK  # the driver reads it back and gives up (2.2.2)
        if added & f.DRIVER_OK and not (state.status | added) & f.FEATURES_OK:
            raise GuestError("DRIVER_OK without FEATURES_OK")
        state.status |= added
        self._give_features()
        if added & f.DRIVER_OK:
            self._begin(again=False)

    def _serve(self, queue: Queue) -> None:
        device = self.device
        device.handlers[self.queues.index(queue)](device, queue)
