"""A monitor: a session on a character device, with limits against clients that do not read or never stop."""

from __future__ import annotations

from time import monotonic_ns
from typing import TYPE_CHECKING, ClassVar, Final, Literal

from instar import log
from instar.chardev.mux import MuxShare
from instar.monitor.context import ClientContext
from instar.monitor.qmp import QmpSession
from instar.monitor.session import BANNER, HmpSession
from instar.monitor.state import MonitorState

if TYPE_CHECKING:
    from collections.abc import Mapping

    from instar.chardev.base import Chardev
    from instar.loop import Timer
    from instar.monitor.context import Context

SLOW_CLIENT: Final = (
    64 << 10
)  # bytes unsent: its requests are not read until it has taken them all
DEAD_CLIENT: Final = 1 << 20  # bytes unsent (replies, then events): it is dropped
_TURN_NS: Final = (
    20_000_000  # how long one client's requests are answered before others get their turn
)
_POLL_NS: Final = 50_000_000  # how often a waiting prompt looks whether it may come back


class Monitor:
    """Serve HMP or QMP on a character device.

    Args:
        kind: ``qmp`` or ``hmp``.
        chardev: What ``instar.chardev.front_end`` returned; it must not have a front end yet.
        context: What commands act on.
        ident: Unique id; default: the character device's.
        pretty: QMP: indent replies.
        state: Of this monitor in the program before; None: greet whoever is connected.

    Attributes:
        dropped: Clients that were dropped since they did not read, or were gone.
    """

    state_class: ClassVar[type[MonitorState]] = MonitorState

    def __init__(
        self,
        kind: Literal["qmp", "hmp"],
        chardev: Chardev,
        context: Context,
        ident: str = "",
        *,
        pretty: bool = False,
        state: MonitorState | None = None,
    ) -> None:
        self.state_id = f"monitor/{ident or chardev.id}"
        self.kind = kind
        self.dropped = 0
        self._chardev = chardev
        self._context = ClientContext(context, chardev)
        was = state if state is not None and state.kind == kind else None
        self._session: QmpSession | HmpSession = (
            QmpSession(self._context, pretty=pretty, state=was)
            if kind == "qmp"
            else HmpSession(self._context, state=was)
        )
        self._greeted = was is not None and was.greeted
        self._timer: Timer | None = None
        self._malformed = 0  # of the session's count, what was told
        self._closed = False
        self._goes_on = False  # requests wait for the loop's next turn
        chardev.attach(receive=self._receive, can_receive=self._room, event=self._on_event)
        self._context.machine.events.subscribe(self._on_machine_event)
        if was is not None:
            self._pump()
        if chardev.connected and not self._greeted:
            self._open()

    def save_state(self) -> MonitorState:
        """Return what must cross an update; the connection and unsent output belong to the device."""
        state = self._session.save()
        state.greeted = self._greeted
        return state

    def announce_version(self) -> None:
        """Show a person who was here before an update the banner of this version; programs read an event instead."""
        watched = not isinstance(self._chardev, MuxShare) or self._chardev.in_focus
        if self._greeted and watched and isinstance(self._session, HmpSession):
            self._chardev.write(BANNER.rstrip().encode() + self._session.redraw())

    def close(self) -> None:
        """End the session; the device stays open."""
        self._closed = True
        self._context.machine.events.unsubscribe(self._on_machine_event)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._chardev.detach()

    def _open(self) -> None:
        if isinstance(self._chardev, MuxShare) and not self._chardev.in_focus:
            return  # the banner comes when somebody looks
        self._greeted = True
        self._chardev.write(self._session.greeting())
        self._chardev.accept_input()

    def _on_event(self, event: str) -> None:
        if event == "opened":
            self._open()
        elif event == "closed":
            self._session.greeting()  # forgets what was negotiated and typed; the text goes nowhere
            self._greeted = False
        elif event == "focus":
            self._focus()
        elif event == "drained":
            self._go_on()
        elif event == "exit":
            self._context.machine.quit("host-ui")

    def _focus(self) -> None:
        if not self._greeted:
            self._open()
        elif isinstance(self._session, HmpSession):
            self._chardev.write(self._session.redraw())

    def _on_machine_event(self, name: str, data: Mapping[str, object]) -> None:
        stamp_us = self._context.machine.events.stamp_ns // 1000
        line = self._session.event(name, data, stamp_us)
        if not line:
            return
        self._chardev.write(line)
        if self._chardev.pending() > DEAD_CLIENT:
            self._drop(f"{self._chardev.pending()} bytes unread, limit {DEAD_CLIENT}")

    def _room(self) -> int:
        return self._session.room() if self._chardev.pending() < SLOW_CLIENT else 0

    def _receive(self, data: bytes) -> None:
        self._session.feed(data)
        self._pump()

    def _pump(self) -> None:
        """Answer what has come in as long as the client takes the answers."""
        end = monotonic_ns() + _TURN_NS
        while self._chardev.pending() < SLOW_CLIENT:
            reply = self._session.answer()
            if reply is None:
                break
            self._chardev.write(reply)
            self._tell_of_malformed()
            if monotonic_ns() > end:
                self._go_on_later()
                break
        self._poll_later()

    def _tell_of_malformed(self) -> None:
        count = self._session.malformed if isinstance(self._session, QmpSession) else 0
        if count != self._malformed:
            self._malformed = count
            log.limited(
                "warning", self.state_id, f"client sent what is no request, {count} times so far"
            )

    def _go_on_later(self) -> None:
        """Let other clients, and the guest's devices, have a turn first."""
        if not self._goes_on:
            self._goes_on = True
            self._context.loop.call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._goes_on = False
        if self._closed:
            return
        if self._chardev.broken:  # nobody would read the answers, and the next client waits
            self._drop("it has gone, leaving more requests than one turn answers")
        else:
            self._go_on()

    def _drop(self, why: str) -> None:
        self.dropped += 1
        log.limited(
            "warning", self.state_id, f"client dropped: {why}; {self.dropped} dropped so far"
        )
        self._chardev.disconnect()

    def _poll_later(self) -> None:
        if isinstance(self._session, HmpSession) and self._session.busy and self._timer is None:
            self._timer = self._context.loop.call_later(_POLL_NS, self._poll)

    def _poll(self) -> None:
        self._timer = None
        if not isinstance(self._session, HmpSession) or not self._session.busy:
            return
        text = self._session.poll()
        if text is None:
            self._poll_later()
            return
        self._chardev.write(text)
        self._go_on()

    def _go_on(self) -> None:
        self._pump()
        self._chardev.accept_input()
