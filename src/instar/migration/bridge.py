"""The old program's end of a bridge: start the helper while the guest runs, hand it the harts, take them back.

Not on the resume path; the new program's end is in ``bridge_link`` and ``incoming``. Nothing here may cost an update:
a helper that is not there or says no is left out, with a note in the report. From the word ``go`` on it has the harts,
and only who asks it back knows how the guest goes on.

Source: own; docs/decisions/0011.
"""

from __future__ import annotations

import contextlib
import os
import socket
from time import monotonic_ns

from instar import log
from instar.cpr.adopted import BRIDGE
from instar.cpr.errors import CprError, PeerError
from instar.cpr.fds import Fds
from instar.cpr.versions import readable_versions
from instar.migration.bridge_link import PATIENCE_NS, Bridge
from instar.migration.channels import BRIDGE as BRIDGE_FD
from instar.migration.first_word import await_first_word
from instar.migration.saving import host_records
from instar.migration.sections import read_records

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Final

    from instar.cpr.rehearsal import Answer
    from instar.cpr.state import Record
    from instar.cpr.target import Target
    from instar.migration.migration import Migration
    from instar.migration.report import Report

_SIGKILL: Final = 9
_STREAMS: Final = (0, 1)


class Crossing:
    """One bridge, for one update, if there is to be one.

    Args:
        migration: Whose vCPUs cross.
        report: Where it is noted if they do not.
    """

    def __init__(self, migration: Migration, report: Report) -> None:
        self._migration = migration
        self._machine = migration.machine
        self._report = report
        self._bridge: Bridge | None = None
        self._over = False

    def start(
        self,
        target: Target | None,
        argv: list[str],
        answer: Answer | None,
        go_on: Callable[[], object],
    ) -> bool:
        """Start the helper, if that is wanted and possible.

        Args:
            target: What will be executed; None: nothing.
            argv: Its arguments.
            answer: What it told in its rehearsal.
            go_on: Called when the helper has said something.

        Returns:
            Whether there is anything to wait for.
        """
        if target is None or not self._migration.host.wants_bridge:
            return False
        why = self._obstacle(answer)
        if why:
            self._report.notes.append(f"no bridge: {why}")
            return False
        return self._start(target, argv, go_on)

    def _obstacle(self, answer: Answer | None) -> str:
        """Return why there cannot be a bridge; "" if there can."""
        if answer is None:
            return "without a rehearsal it is not known whether the new program knows bridges"
        if not answer.bridges:
            return f"version {answer.program} knows none"
        if self._migration.settings.capabilities["pause-before-switchover"]:
            return "pause-before-switchover: the guest is to stand still"
        return "" if self._machine.running else "the guest does not run"

    def _start(self, target: Target, argv: list[str], go_on: Callable[[], object]) -> bool:
        ram = self._machine.memory_backends[0].block.fd
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            crossing = (theirs.fileno(), ram, *((target.fd,) if target.script else ()))
            try:
                pid = os.posix_spawn(
                    f"/dev/fd/{target.fd}",
                    argv,
                    {**os.environ, BRIDGE: f"{theirs.fileno()},{ram}"},
                    file_actions=[
                        *((os.POSIX_SPAWN_OPEN, n, "/dev/null", os.O_RDWR, 0) for n in _STREAMS),
                        *((os.POSIX_SPAWN_DUP2, fd, fd) for fd in crossing),
                    ],
                    setpgroup=0,
                )
            except OSError as e:
                ours.close()
                self._leave_out(f"it cannot be started: {os.strerror(e.errno or 0)}")
                return False
        self._bridge = Bridge(ours.detach(), pid)
        await_first_word(self._machine.loop, self._bridge.fd, PATIENCE_NS, go_on)
        return True

    def check(self) -> None:
        """Take its first word; without the right one there is no bridge."""
        if self._bridge is None:
            return
        try:
            self._bridge.greet()
        except CprError as e:
            self._leave_out(str(e))

    def go_over(self, versions: Mapping[str, int]) -> None:
        """Hand the harts over; the guest stands still and all that was in flight has ended.

        Args:
            versions: Of states, that the helper reads.
        """
        bridge, machine = self._bridge, self._machine
        if bridge is None:
            return
        try:
            answer = bridge.ask(
                "load",
                states=host_records(machine.vcpus.harts, Fds(), versions),
                timer=machine.vcpus.next_timer_ns(),
                stop_at=machine.replay_break,
            )
            if "error" in answer:
                raise PeerError(f"the bridge: {answer['error']}")
            bridge.tell("go")
        except CprError as e:
            self._leave_out(str(e))
            return
        self._over = True
        self._report.over_ns = monotonic_ns()

    def hand_on(self, fds: Fds, info: Record) -> None:
        """Name the socket for the next program."""
        if self._over and self._bridge is not None:
            fds.save(*BRIDGE_FD, self._bridge.fd, kind="socket", owner="migration")
            info["bridge"] = self._bridge.pid

    def come_back(self) -> None:
        """Take the harts back, if they went; the update is off. If the helper is gone, the guest cannot go on."""
        bridge, self._over = self._bridge if self._over else None, False
        if bridge is None:
            return
        self._report.over_ns = -1
        try:
            self._take_back(bridge)
        except CprError as e:
            log.error(f"{e}: the guest's vCPUs are lost with it; the guest stands still for good")
            self._machine.state.runstate = "internal-error"  # what it goes back to

    def _take_back(self, bridge: Bridge) -> None:
        answer = bridge.take_back({name: list(row) for name, row in readable_versions().items()})
        loaded = read_records(answer.get("states"), self._machine.vcpus.harts)
        self._machine.vcpus.reload(loaded.apply)

    def _leave_out(self, why: str) -> None:
        """Go on without: the guest waits for the new monitor, as without a bridge."""
        self._report.notes.append(f"no bridge: {why}; the guest stands still a little longer")
        self.end()

    def end(self) -> None:
        """End the helper."""
        bridge, self._bridge = self._bridge, None
        if bridge is None:
            return
        self._machine.loop.unwatch(bridge.fd)
        os.close(bridge.fd)
        with contextlib.suppress(ProcessLookupError):
            os.kill(bridge.pid, _SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(bridge.pid, 0)
