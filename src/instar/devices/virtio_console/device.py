"""virtio-console: terminals (``hvc0``) and named channels (``/dev/virtio-ports``) of the guest."""

from __future__ import annotations

from struct import Struct

from instar import log
from instar.devices.virtio_console.state import (
    MAX_MESSAGE,
    MAX_MESSAGES,
    MAX_PORTS,
    ConsoleState,
    MessageState,
    PortState,
)
from instar.errors import QueueError
from instar.virtio.device import VirtioDevice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import ClassVar, Final, Protocol

    from instar.cpr.state import State
    from instar.virtio.queue import Queue

    class Line(Protocol):
        """The host's end of a port (``instar.machine.serial.ConsoleLine``)."""

        @property
        def connected(self) -> bool:
            """Whether somebody is at the other end."""
            ...

        @property
        def size(self) -> tuple[int, int]:
            """Columns and rows of the terminal at the other end, (0, 0) if that is not known."""
            ...

        def follow_size(self) -> None:
            """Begin to find out the size; event "resized" tells that it may be another."""
            ...

        def attach(
            self,
            *,
            receive: Callable[[bytes], object],
            can_receive: Callable[[], int],
            event: Callable[[str], object],
        ) -> None:
            """Connect the device; it is called only while the machine runs."""
            ...

        def write(self, data: bytes, /) -> None:
            """Send, or keep what cannot be sent now."""
            ...

        def pending(self) -> int:
            """Return the number of bytes kept."""
            ...

        def accept_input(self) -> None:
            """Learn that there is room again."""
            ...


F_SIZE: Final = 1 << 0
F_MULTIPORT: Final = 1 << 1
_CONFIG: Final = Struct("<HHII")  # cols, rows, max_nr_ports, emerg_wr
_CONTROL: Final = Struct("<IHH")  # port, event, value
_SIZE: Final = Struct("<HH")  # cols, rows; Linux before 6.12.65 and 6.15 took them for rows, cols
_DEVICE_READY, _PORT_ADD, _PORT_READY, _CONSOLE_PORT, _RESIZE, _PORT_OPEN, _PORT_NAME = (
    0,
    1,
    3,
    4,
    5,
    6,
    7,
)
_PENDING_LIMIT: Final = 1 << 20  # bytes that the host has not taken before the guest has to wait
MAX_OUTPUT: Final = (
    4 << 20
)  # bytes of one buffer; with those before it less than what a character device keeps


class ConsolePort:
    """One port.

    Args:
        line: The host's end.
        console: A terminal (``hvcN``); otherwise a channel that programs of the guest open by its name.
        name: At most 128 bytes; empty: none.
    """

    __slots__ = ("console", "line", "name")

    def __init__(self, line: Line, *, console: bool, name: str = "") -> None:
        self.line = line
        self.console = console
        self.name = name


class VirtioConsole(VirtioDevice):
    """Up to 7 ports; what the host has not taken makes the guest wait, never is it lost. Terminals have its size.

    Args:
        ports: By number.
        state_id: Unique name of its state.

    Source: virtio 1.2, 5.3 (device 3, VIRTIO_CONSOLE_F_SIZE, VIRTIO_CONSOLE_F_MULTIPORT).
    """

    __slots__ = ("_queues", "ports", "state")
    state_class: ClassVar[type[State]] = ConsoleState
    device_id = 3
    queue_size = 64
    queues: ClassVar[tuple[str, ...]] = (
        "receive0", "transmit0", "to_guest", "from_guest",
        *(f"{way}{port}" for port in range(1, MAX_PORTS) for way in ("receive", "transmit")),
    )  # fmt: skip

    def __init__(self, ports: Mapping[int, ConsolePort], *, state_id: str) -> None:
        super().__init__(state_id)
        self.ports = dict(ports)
        self.state = _reset_state()
        self._queues: dict[str, Queue] = {}  # once the driver is ready
        for number, port in self.ports.items():
            self._attach(number, port)

    def offered(self) -> int:
        """Return the feature bits of the device."""
        return F_SIZE | F_MULTIPORT

    def config(self) -> bytes:
        """Return the configuration space."""
        first = self.state.ports[0]
        return _CONFIG.pack(first.cols, first.rows, MAX_PORTS, 0)

    def begin(self, queues: Sequence[Queue], *, again: bool) -> None:
        """Serve the rings; after a load, go on with what waits at either end."""
        self._queues = {queue.name: queue for queue in queues}
        if not again:
            return
        for number, port in self.ports.items():
            self.port.run(self._transmit, self._queues[f"transmit{number}"])
            self._tell_connected(number)
            port.line.accept_input()

    def reset(self) -> None:
        """Forget what the guest knew."""
        self.state = _reset_state()
        self._queues = {}
        for number in self.ports:
            self._take_size(number)

    def save_state(self) -> ConsoleState:
        """Return the live state."""
        return self.state

    def load_state(self, state: ConsoleState) -> None:
        """Go on from ``state``."""
        missing = MAX_PORTS - len(state.ports)
        state.ports = [*state.ports, *(PortState() for _ in range(missing))]
        self.state = state

    # ------------------------------------------------------------------- the host's side

    def _attach(self, number: int, port: ConsolePort) -> None:
        port.line.attach(
            receive=lambda data: self._receive(number, data),
            can_receive=lambda: self._room(number),
            event=lambda name: self._event(number, name),
        )
        if port.console:
            port.line.follow_size()

    def _room(self, number: int) -> int:
        """Return how many bytes the guest's next buffer takes."""
        queue = self._queues.get(f"receive{number}")
        if queue is None or not self._guest_listens(number):
            return 0
        found = 0

        def look(queue: Queue) -> None:
            nonlocal found
            for chain in queue.peek():
                found = chain.room
                break

        self.port.run(look, queue)
        return found

    def _guest_listens(self, number: int) -> bool:
        """Return whether a program of the guest has the port open; a driver for one port alone does not say."""
        return self.state.ports[number].guest_open or not self.port.features & F_MULTIPORT

    def _receive(self, number: int, data: bytes) -> None:
        def fill(queue: Queue) -> None:
            for chain in queue.peek():
                chain.write(data[: chain.room])
                queue.complete(chain, min(len(data), chain.room))
                break

        queue = self._queues.get(f"receive{number}")
        if queue is not None:  # not reset between the question for room and now
            self.port.run(fill, queue)

    def _event(self, number: int, name: str) -> None:
        if name == "resized":
            if self._take_size(number):
                self._tell_size(number)
        elif not self._queues:
            return
        elif name == "drained":
            self.port.run(self._transmit, self._queues[f"transmit{number}"])
        elif name in {"opened", "closed"}:
            self._tell_connected(number)

    def _tell_connected(self, number: int) -> None:
        """Tell the guest of a change at the host's end; a terminal is always connected."""
        port, state = self.ports[number], self.state.ports[number]
        connected = port.console or port.line.connected
        if state.ready and connected != state.host_open:
            state.host_open = connected
            self._send(number, _PORT_OPEN, int(connected))

    def _take_size(self, number: int) -> bool:
        """Return whether the host's terminal has another size than the guest's."""
        port, state = self.ports[number], self.state.ports[number]
        size = port.line.size
        if not port.console or not all(size) or size == (state.cols, state.rows):
            return False
        state.cols, state.rows = size
        return True

    def _tell_size(self, number: int) -> None:
        """Tell the guest the size of a terminal; a message that it did not fetch yet is replaced."""
        state = self.state.ports[number]
        if not self.port.features & F_SIZE:
            return
        if number == 0:
            self.port.config_changed()
        if state.ready and state.cols:
            head = _CONTROL.pack(number, _RESIZE, 0)
            late = [m for m in self.state.messages if not m.data.startswith(head)]
            self.state.messages = late
            self._send(number, _RESIZE, 0, _SIZE.pack(state.cols, state.rows))

    # ------------------------------------------------------------------- the guest's side

    def _offer_room(self, queue: Queue) -> None:
        """Take new buffers for input."""
        port = self.ports.get(_number(queue))
        if port is not None:
            port.line.accept_input()

    def _transmit(self, queue: Queue) -> None:
        """Send what the host has room for; the rest stays in the ring until "drained"."""
        port = self.ports.get(_number(queue))
        for chain in queue.peek():
            if port is not None:
                if port.line.pending() > _PENDING_LIMIT:
                    break
                if chain.size > MAX_OUTPUT:
                    raise QueueError(f"{chain.size} bytes of output at once, limit {MAX_OUTPUT}")
                port.line.write(chain.read(0, chain.size))
            queue.complete(chain, 0)

    on_receive0 = on_receive1 = on_receive2 = on_receive3 = _offer_room
    on_receive4 = on_receive5 = on_receive6 = _offer_room
    on_transmit0 = on_transmit1 = on_transmit2 = on_transmit3 = _transmit
    on_transmit4 = on_transmit5 = on_transmit6 = _transmit

    def on_to_guest(self, queue: Queue) -> None:
        """Hand over messages that waited for buffers; one that is too small loses its message."""
        messages = self.state.messages
        if not messages:
            return
        for chain in queue.peek():
            data = messages.pop(0).data
            if len(data) > chain.room:
                log.guest(self.state_id, f"a message of {len(data)} bytes, room for {chain.room}")
                data = b""
            chain.write(data)
            queue.complete(chain, len(data))
            if not messages:
                break

    def on_from_guest(self, queue: Queue) -> None:
        """Take messages of the driver."""
        for chain in queue.peek():
            if chain.size >= _CONTROL.size:
                self._message(*_CONTROL.unpack(chain.read(0, _CONTROL.size)))
            else:
                log.guest(
                    self.state_id, f"a message of {chain.size} bytes, {_CONTROL.size} needed"
                )
            queue.complete(chain, 0)

    def _message(self, number: int, event: int, value: int) -> None:
        if event == _DEVICE_READY:
            for known in self.ports if value else ():
                self._send(known, _PORT_ADD, 1)
        elif number not in self.ports:
            log.guest(self.state_id, f"message {event} for port {number}, which is not there")
        elif event == _PORT_READY and value:
            self._introduce(number)
        elif event == _PORT_OPEN:
            self.state.ports[number].guest_open = bool(value)
            self.ports[number].line.accept_input()

    def _introduce(self, number: int) -> None:
        """Tell the driver what the port is."""
        port, state = self.ports[number], self.state.ports[number]
        if port.console:
            self._send(number, _CONSOLE_PORT, 1)
        if port.name:
            self._send(number, _PORT_NAME, 1, port.name.encode()[: MAX_MESSAGE - _CONTROL.size])
        state.ready, state.host_open = True, False
        self._tell_size(number)
        self._tell_connected(number)

    def _send(self, number: int, event: int, value: int, data: bytes = b"") -> None:
        if len(self.state.messages) == MAX_MESSAGES:
            log.guest(self.state_id, f"{MAX_MESSAGES} messages wait for buffers; one is dropped")
            return
        message = _CONTROL.pack(number, event, value) + data
        self.state.messages.append(MessageState(data=message))
        queue = self._queues.get("to_guest")
        if queue is not None:
            self.port.run(self.on_to_guest, queue)


def _number(queue: Queue) -> int:
    """Return the number of the port that a queue belongs to."""
    return int(queue.name[-1])


def _reset_state() -> ConsoleState:
    return ConsoleState(ports=[PortState() for _ in range(MAX_PORTS)])
