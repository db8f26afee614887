"""Throttling: requests beyond a disk's limits are held back until the limits allow them.

Each limit is a bucket that requests fill and time empties. Here a bucket is one number: the moment at which it would
be empty, in virtual time. Work puts that moment off by what it takes at the limit's rate, and a request has to wait
while the moment is further ahead than the bucket is large. Virtual time stands still with the machine, so buckets do
so too, and cross an update as they are.

What is held back has not begun: a stop does not wait for it, and in an update it is one of the requests in flight of
the guest's queue, begun anew by the next program.

Source: own; the buckets' meaning follows QEMU's docs/throttle.txt.
"""

from __future__ import annotations

from instar import log
from instar.block.limits import FIRST_IOPS, MAX_GROUP_NAME, NAMES, Limits
from instar.block.state import ThrottledDiskState, ThrottleGroupState, ThrottleState
from instar.errors import CommandError
from instar.units import shorten

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ClassVar, Final, Protocol

    from instar.block.request import BlockRequest
    from instar.cpr.state import State

    Start = Callable[[BlockRequest], object]

    class Clock(Protocol):
        """Virtual time."""

        def now_ns(self) -> int:
            """Return it."""
            ...

    class Timer(Protocol):
        """A pending call."""

        def cancel(self) -> object:
            """Forget it."""
            ...

    class Timers(Protocol):
        """Calls back while the machine runs, with the machine lock held."""

        def call_later(self, delay_ns: int, callback: Callable[[], object], /) -> Timer:
            """Call ``callback`` once, not before ``delay_ns`` have passed."""
            ...


_NS: Final = 1_000_000_000
_PEAK_ROOM_NS: Final = 100_000_000  # inside a burst requests keep to its peak in steps of this
_LONGEST_NS: Final = 3_600 * _NS  # of a timer; the loop cannot wait for years at once
_MAX_U64: Final = (1 << 64) - 1
_READ, _WRITE = 0, 1
_WAYS: Final = {"read": _READ, "write": _WRITE, "write-zeroes": _WRITE}
_BUCKETS: Final = ((0, 1, 3, 4), (0, 2, 3, 5))  # what counts for reads, for writes


class Group:
    """Disks that share one set of limits; they take turns."""

    __slots__ = (
        "_clock",
        "_due_ns",
        "_empty_ns",
        "_peak_empty_ns",
        "_timer",
        "_timers",
        "_turns",
        "chosen",
        "limits",
        "members",
        "name",
    )

    def __init__(self, name: str, clock: Clock, timers: Timers) -> None:
        self.name = name
        self.limits = Limits()
        self.chosen = False  # by a monitor: the next command line does not change them
        self.members: list[DiskThrottle] = []
        self._clock = clock
        self._timers = timers
        self._timer: Timer | None = None
        self._due_ns = 0
        self._turns = [0, 0]  # whose request is next, by way
        self._empty_ns = [0] * len(NAMES)
        self._peak_empty_ns = [0] * len(NAMES)

    def limit(self, limits: Limits) -> None:
        """Take other limits; all buckets are empty."""
        self.limits = limits
        self._empty_ns = [0] * len(NAMES)
        self._peak_empty_ns = [0] * len(NAMES)

    def admits(self, way: int, length: int) -> bool:
        """Return whether a new request may begin, and count it if so."""
        now = self._clock.now_ns()
        if self._held(way) or self._wait_ns(way, now) > 0:
            return False
        self._count(way, length, now)
        return True

    def serve(self) -> None:
        """Begin what the limits allow by now, and see to it that the rest begins in time."""
        for way in (_READ, _WRITE):
            while (held := self._held(way)) and self._wait_ns(way, self._clock.now_ns()) <= 0:
                member = held[0]
                self._turns[way] = self.members.index(member) + 1
                request = member.held[way].pop(0)
                self._count(way, request.length, self._clock.now_ns())
                member.start(request)
        self.arm()

    def arm(self) -> None:
        """See to it that :meth:`serve` is called when the first request held back may begin."""
        now = self._clock.now_ns()
        waits = [self._wait_ns(way, now) for way in (_READ, _WRITE) if self._held(way)]
        if not waits:
            return
        wait = min(max(1, min(waits)), _LONGEST_NS)
        if self._timer is not None:
            if self._due_ns <= now + wait:
                return
            self._timer.cancel()
        self._due_ns = now + wait
        self._timer = self._timers.call_later(wait, self._ring)

    def disarm(self) -> None:
        """Forget the timer: nobody is in the group any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def levels(self) -> list[int]:
        """Return when each bucket is empty: those of the rates, then those of the peaks."""
        return [min(at, _MAX_U64) for at in self._empty_ns + self._peak_empty_ns]

    def fill(self, levels: list[int]) -> None:
        """Go on with buckets that :meth:`levels` returned."""
        self._empty_ns, self._peak_empty_ns = levels[: len(NAMES)], levels[len(NAMES) :]

    def _ring(self) -> None:
        self._timer = None
        self.serve()

    def _held(self, way: int) -> list[DiskThrottle]:
        """Return the disks with requests held back, the next one first."""
        turn = self._turns[way]
        order = self.members[turn:] + self.members[:turn]
        return [member for member in order if member.held[way]]

    def _wait_ns(self, way: int, now: int) -> int:
        """Return how long the next request has to wait; 0 or less: it has not."""
        limits, wait = self.limits, 0
        for n in _BUCKETS[way]:
            if not limits.rates[n]:
                continue
            wait = max(wait, self._empty_ns[n] - now - limits.room_ns(n))
            if limits.seconds[n] > 1:
                wait = max(wait, self._peak_empty_ns[n] - now - _PEAK_ROOM_NS)
        return wait

    def _count(self, way: int, length: int, now: int) -> None:
        """Put a request into the buckets."""
        limits = self.limits
        size = limits.iops_size
        for n in _BUCKETS[way]:
            rate = limits.rates[n]
            if not rate:
                continue
            # The request is units / parts: so many bytes, or one request, or as many as iops-size makes of it.
            units, parts = (length, 1) if n < FIRST_IOPS else (1, 1)
            if n >= FIRST_IOPS and 0 < size < length:
                units, parts = length, size
            self._empty_ns[n] = max(now, self._empty_ns[n]) + _work_ns(units, rate * parts)
            if limits.seconds[n] > 1:
                work = _work_ns(units, limits.peaks[n] * parts)
                self._peak_empty_ns[n] = max(now, self._peak_empty_ns[n]) + work


def _work_ns(units: int, rate: int) -> int:
    """Return how long ``units`` take at ``rate`` a second, rounded up: a limit is never exceeded."""
    return -(-units * _NS // rate)


class DiskThrottle:
    """One disk's requests that are held back.

    Attributes:
        disk: Its name.
        start: Begins a request.
        group: Whose limits it keeps to; None: it has none.
        chosen: By a monitor: the next command line does not change that.
        held: By way (reads, writes), in the order of their arrival.
    """

    __slots__ = ("chosen", "disk", "group", "held", "start")

    def __init__(self, disk: str, start: Start) -> None:
        self.disk = disk
        self.start = start
        self.group: Group | None = None
        self.chosen = False
        self.held: tuple[list[BlockRequest], list[BlockRequest]] = ([], [])

    def holds(self, request: BlockRequest) -> bool:
        """Return whether ``request`` has to wait; then it is begun from here later. Lock held."""
        group = self.group
        way = _WAYS.get(request.op)
        if group is None or way is None or group.admits(way, request.length):
            return False
        self.held[way].append(request)
        group.arm()
        return True

    def forget(self) -> None:
        """Forget what is held back: the guest's device was reset. Lock held."""
        for requests in self.held:
            requests.clear()

    def release(self) -> None:
        """Begin everything that is held back."""
        for requests in self.held:
            while requests:
                self.start(requests.pop(0))


class Throttles:
    """The limits of all disks; the machine lock guards them.

    Args:
        clock: Virtual time.
        timers: Call back in virtual time, or in host time while the machine runs.
    """

    __slots__ = ("_clock", "_disks", "_groups", "_timers")
    state_id = "throttle"
    state_class: ClassVar[type[State]] = ThrottleState

    def __init__(self, clock: Clock, timers: Timers) -> None:
        self._clock = clock
        self._timers = timers
        self._disks: dict[str, DiskThrottle] = {}
        self._groups: dict[str, Group] = {}

    def add(self, disk: str, start: Start) -> DiskThrottle:
        """Return what holds back the requests of a disk, which has no limits yet."""
        made = self._disks[disk] = DiskThrottle(disk, start)
        return made

    def group_of(self, disk: str) -> Group | None:
        """Return whose limits a disk keeps to; None: it has none."""
        return self._disks[disk].group

    def limit(self, disk: str, limits: Limits, group: str = "", *, chosen: bool = False) -> None:
        """Give a disk, and all disks of its group, other limits; :meth:`serve` has to follow.

        Args:
            disk: One that was added.
            limits: No limit at all takes the disk out of its group, which stays as it is.
            group: Whose limits these are; default: the one it is in, or else one of the disk's name.
            chosen: At run time: they count for the next program, too, whatever its command line says.

        Raises:
            CommandError: the limits or the group's name are impossible; nothing changed.
        """
        problem = limits.problem()
        if problem:
            raise CommandError(f"disk {disk}: {problem}; its limits did not change")
        if len(group.encode("utf-8", "replace")) > MAX_GROUP_NAME or "\0" in group:
            raise CommandError(
                f"disk {disk}: group {shorten(group)} is not a name of at most {MAX_GROUP_NAME} bytes; "
                "its limits did not change"
            )
        member = self._disks[disk]
        member.chosen = chosen
        if not limits.limiting:
            self._leave(member)
            return
        joined = self._join(member, group or (member.group.name if member.group else disk))
        joined.limit(limits)
        joined.chosen = chosen

    def serve(self) -> None:
        """Begin what the limits allow by now; the machine runs."""
        for disk in self._disks.values():
            if disk.group is None:
                disk.release()
        for group in list(self._groups.values()):
            group.serve()

    def _join(self, member: DiskThrottle, name: str) -> Group:
        if member.group is not None and member.group.name == name:
            return member.group
        self._leave(member)
        group = self._groups.get(name)
        if group is None:
            group = self._groups[name] = Group(name, self._clock, self._timers)
        group.members.append(member)
        member.group = group
        return group

    def _leave(self, member: DiskThrottle) -> None:
        group, member.group = member.group, None
        if group is None:
            return
        group.members.remove(member)
        if not group.members:
            group.disarm()
            del self._groups[group.name]

    # ------------------------------------------------------------------- Stateful

    def save_state(self) -> ThrottleState:
        """Return all groups with their buckets, and which disks a monitor put where."""
        return ThrottleState(
            groups=[
                ThrottleGroupState(
                    name=group.name,
                    chosen=group.chosen,
                    limits=[*group.limits.rates, *group.limits.peaks, *group.limits.seconds],
                    iops_size=group.limits.iops_size,
                    empty_ns=group.levels(),
                )
                for group in self._groups.values()
            ],
            disks=[
                ThrottledDiskState(disk=disk.disk, group=disk.group.name if disk.group else "")
                for disk in self._disks.values()
                if disk.chosen
            ],
        )

    def load_state(self, state: ThrottleState) -> None:
        """Go on with the buckets of the program before, and with what monitors chose there.

        A group whose limits the new command line changes begins with empty buckets.
        """
        for saved in state.disks:
            self._load_disk(saved)
        for group in state.groups:
            self._load_group(group)
        for disk in self._disks.values():
            if disk.group is not None and not disk.group.limits.limiting:
                self._leave(disk)

    def _load_disk(self, saved: ThrottledDiskState) -> None:
        disk = self._disks.get(saved.disk)
        if disk is None:
            log.warning(f"disk {saved.disk}: not on this command line, its limits are left")
            return
        disk.chosen = True
        if saved.group:
            self._join(disk, saved.group)
        else:
            self._leave(disk)

    def _load_group(self, saved: ThrottleGroupState) -> None:
        group = self._groups.get(saved.name)
        if group is None:
            return  # no disk is in it any more
        count = len(NAMES)
        values = saved.limits
        limits = Limits(
            tuple(values[:count]),
            tuple(values[count : 2 * count]),
            tuple(values[2 * count :]),
            iops_size=saved.iops_size,
        )
        problem = limits.problem()
        if problem:
            log.warning(f"throttle group {group.name}: {problem}; its limits are left")
            return
        if saved.chosen:
            group.limit(limits)
            group.chosen = True
        if group.limits == limits:
            group.fill(saved.empty_ns)
