"""Start processes for the user, reap them, start them again by policy, and end them with the virtual machine.

An update keeps the process id, so they are this process's children before and after it. Their ends are seen through
the main loop by process descriptors, which, unlike SIGCHLD, no other thread can take away and no exec forgets: what
ended in between is readable as soon as the new program looks.

If the guardian had to take over, the process id is another, and they are children of init (or of a subreaper), which
reaps them. They go on, are watched and ended by their process descriptors, and nothing is started beside them; how
they end is not known then.

Source: own.
"""

from __future__ import annotations

import os
import select
from time import monotonic_ns, sleep

from instar import log
from instar.children.state import ChildrenState, ChildState
from instar.errors import ConfigError, HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import ClassVar, Final, Literal

    from instar.cpr.state import State
    from instar.loop import Loop, Timer

    Restart = Literal["never", "on-failure"]

MAX_RECENT: Final = 5  # restarts within WINDOW_NS; one more failure and it stays down
WINDOW_NS: Final = 60_000_000_000
DELAY_NS: Final = 200_000_000  # before a restart
GRACE_NS: Final = 2_000_000_000  # from SIGTERM to SIGKILL
_POLL_S: Final = 0.01
_UNKNOWN: Final = 256  # no process ends with this status: it was another's child
_SIGTERM, _SIGKILL = 15, 9
_ENDING: Final = (
    1,
    2,
    15,
    17,
)  # SIGHUP, SIGINT, SIGTERM, SIGCHLD: as everybody expects to find them


class ChildSpec:
    """One process as the command line describes it."""

    __slots__ = ("command", "name", "restart")

    def __init__(self, name: str, command: str, restart: Restart = "never") -> None:
        self.name = name
        self.command = command
        self.restart = restart


class _Child:
    """One process, running or not."""

    __slots__ = ("known", "ours", "pidfd", "spec", "state", "timer")

    def __init__(self, spec: ChildSpec, state: ChildState) -> None:
        self.spec = spec
        self.state = state
        self.known = False  # was started, maybe by the program before
        self.ours = True  # this process reaps it
        self.pidfd = -1
        self.timer: Timer | None = None


class Children:
    """All processes of this virtual machine.

    Args:
        specs: What the command line says.
        loop: The main loop; everything happens in its thread.
        inert: In a rehearsal: they are another process's children, and nothing is done to them.
    """

    state_id = "children"
    state_class: ClassVar[type[State]] = ChildrenState

    def __init__(self, specs: Sequence[ChildSpec], loop: Loop, *, inert: bool = False) -> None:
        self._inert = inert
        self._loop = loop
        self._children = {spec.name: _Child(spec, ChildState(name=spec.name)) for spec in specs}
        self._closed = False

    @property
    def any(self) -> bool:
        """Whether there are some, or were."""
        return bool(self._children)

    def start(self) -> None:
        """Start them all.

        Raises:
            ConfigError: a command line is not one.
            HostError: a program cannot be executed. Those started before it run.
        """
        for child in self._children.values():
            self._spawn(child)

    def start_new(self) -> None:
        """Start those that the program before did not know, and end those that the command line has no more."""
        for child in self._children.values():
            if not child.spec.command and child.pidfd >= 0:
                self._signal(child, _SIGTERM)
            if not child.known:
                try:
                    self._spawn(child)
                except (ConfigError, HostError) as e:
                    log.error(f"{e}; it was not started")

    def close(self) -> None:
        """End them all: SIGTERM, and SIGKILL after 2 seconds; none is left behind."""
        self._closed = True
        running = [child for child in self._children.values() if child.state.pid]
        for child in self._children.values():
            if child.timer is not None:
                child.timer.cancel()
        for child in running:
            self._signal(child, _SIGTERM)
        deadline = monotonic_ns() + GRACE_NS
        while (running := [child for child in running if not self._reaped(child)]) and (
            monotonic_ns() < deadline
        ):
            sleep(_POLL_S)
        for child in running:
            self._signal(child, _SIGKILL)
            select.select([child.pidfd], [], [])
            self._reaped(child)

    # ------------------------------------------------------------------- an update

    def save_state(self) -> ChildrenState:
        """Return names, process ids and restarts."""
        return ChildrenState(children=[child.state for child in self._children.values()])

    def load_state(self, state: ChildrenState) -> None:
        """Watch the children of the program before; those that the command line has no more :meth:`start_new` ends."""
        for saved in state.children:
            child = self._children.get(saved.name)
            if child is None:
                log.warning(f"child {saved.name}: not on this command line, it is ended")
                child = _Child(ChildSpec(saved.name, ""), saved)
                self._children[saved.name] = child
            child.state = saved
            child.known = True
            if self._inert:
                continue
            if saved.pid:
                self._go_on(child)
            elif saved.recent and child.spec.restart == "on-failure":
                self._start_later(child)

    def _go_on(self, child: _Child) -> None:
        pid = child.state.pid
        child.ours = _is_ours(pid)
        try:
            self._watch(child)
        except OSError:  # it has ended, and init has reaped it
            self._gone(child)
            return
        if not child.ours and child.state.started not in (0, _started(pid)):
            self._forget(child)  # its number is another process's by now
            self._gone(child)

    def _gone(self, child: _Child) -> None:
        child.state.pid = 0
        log.warning(
            f"child {child.spec.name} ended while nobody looked{self._consequence(child, _UNKNOWN)}"
        )

    def _forget(self, child: _Child) -> None:
        self._loop.unwatch(child.pidfd)
        os.close(child.pidfd)
        child.pidfd = -1

    # ------------------------------------------------------------------- one child

    def _spawn(self, child: _Child) -> None:
        from shlex import split  # noqa: PLC0415 - nothing is started on the way to the guest's first instruction

        name = child.spec.name
        child.known = True
        try:
            argv = split(child.spec.command)
        except ValueError as e:
            raise ConfigError(f"child {name}: command {child.spec.command!r}: {e}") from e
        if not argv:
            raise ConfigError(f"child {name}: command is empty")
        actions = [  # nothing to read; what it says goes where our own messages go
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, 2, 1),
        ]
        try:
            child.state.pid = os.posix_spawnp(
                argv[0], argv, os.environ, file_actions=actions, setpgroup=0, setsigmask=(), setsigdef=_ENDING
            )  # fmt: skip
        except OSError as e:
            raise HostError(f"child {name}: cannot execute {argv[0]}: {e.strerror}") from e
        child.ours = True
        child.state.started = _started(child.state.pid)
        self._watch(child)

    def _watch(self, child: _Child) -> None:
        child.pidfd = os.pidfd_open(child.state.pid)
        self._loop.watch(child.pidfd, readable=lambda: self._on_end(child))

    def _reaped(self, child: _Child) -> bool:
        """Whether it has ended; then it is no zombie any more."""
        code = _status(child)
        if code is None:
            return False
        self._forget(child)
        child.state.pid = 0
        if not self._closed:
            how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
            if code == _UNKNOWN:
                how = "ended; how is not known, for it was another process's child"
            log.warning(f"child {child.spec.name} {how}{self._consequence(child, code)}")
        return True

    def _consequence(self, child: _Child, code: int) -> str:
        """Decide what follows from an end, and say it."""
        state = child.state
        if code == 0 or child.spec.restart == "never":
            state.recent = 0
            return ""
        now = monotonic_ns()
        if now - state.first_ns > WINDOW_NS:
            state.first_ns, state.recent = now, 0
        if state.recent >= MAX_RECENT:
            state.recent = 0
            return f"; it was started again {MAX_RECENT} times in a minute and stays down now"
        state.recent += 1
        state.restarts += 1
        self._start_later(child)
        return "; it is started again"

    def _start_later(self, child: _Child) -> None:
        child.timer = self._loop.call_later(DELAY_NS, lambda: self._restart(child))

    def _restart(self, child: _Child) -> None:
        child.timer = None
        try:
            self._spawn(child)
        except HostError as e:
            log.error(f"{e}; it stays down")

    def _on_end(self, child: _Child) -> None:
        self._reaped(child)

    def _signal(self, child: _Child, number: int) -> None:
        from signal import pidfd_send_signal  # noqa: PLC0415 - nobody is signalled before the guest runs

        try:
            pidfd_send_signal(child.pidfd, number)
        except ProcessLookupError:  # it has just ended
            return


def _is_ours(pid: int) -> bool:
    """Return whether this process reaps it."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _status(child: _Child) -> int | None:
    """Return with what it has ended, None if it has not; a child of ours is no zombie any more."""
    if child.ours:
        pid, status = os.waitpid(child.state.pid, os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None
    return _UNKNOWN if select.select([child.pidfd], [], [], 0)[0] else None


def _started(pid: int) -> int:
    """Return when the kernel started it (clock ticks since boot), 0 if that is not to be seen."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return int(file.read().rpartition(b")")[2].split()[_START_TIME])
    except OSError:
        return 0


_START_TIME: Final = 19  # field of /proc/PID/stat, counted from the one after the name
