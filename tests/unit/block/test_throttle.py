"""Throttling with a clock that the test moves: what is held back, for how long, and that it is done once."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.block.limits import MAX_VALUE, NAMES, Limits
from instar.block.request import BlockRequest
from instar.block.state import ThrottleState
from instar.block.throttle import Throttles
from instar.cpr import state as cpr_state
from instar.errors import CommandError
from instar.testing.fakes import FakeClock

SECOND = 1_000_000_000
KIB = 1024
MIB = 1 << 20


def limits(*, iops_size: int = 0, **values: int) -> Limits:
    """Limits by name: ``bps_total=``, ``bps_total_max=``, ``bps_total_max_length=``."""
    names = [name.replace("-", "_") for name in NAMES]
    columns = [
        tuple(values.get(f"{name}{suffix}", default) for name in names)
        for suffix, default in (("", 0), ("_max", 0), ("_max_length", 1))
    ]
    return Limits(*columns, iops_size=iops_size)


class World:
    """Disks whose requests end when they begin; ``begun`` lists (disk, op, length) with the time in seconds."""

    def __init__(self, *disks: str, ns: int = 0) -> None:
        self.clock = FakeClock(ns)
        self.throttles = Throttles(self.clock, self.clock)
        self.begun: list[tuple[str, BlockRequest]] = []
        self.times: list[float] = []
        self.disks = {disk: self.throttles.add(disk, self.starter(disk)) for disk in disks}

    def starter(self, disk: str):
        def start(request: BlockRequest) -> None:
            self.begun.append((disk, request))
            self.times.append(self.clock.ns / SECOND)

        return start

    def submit(self, op="write", length=4 * KIB, disk="d0") -> BlockRequest:
        request = BlockRequest(op, 0, length, [], lambda _error: None)
        if not self.disks[disk].holds(request):
            self.disks[disk].start(request)
        return request

    def limit(self, disk="d0", group="", *, chosen=False, **values: int) -> None:
        self.throttles.limit(disk, limits(**values), group, chosen=chosen)
        self.throttles.serve()

    def begun_bytes(self, disk="d0") -> int:
        return sum(request.length for name, request in self.begun if name == disk)


def test_disk_without_limits_is_not_held_back():
    world = World("d0")
    for _ in range(1000):
        world.submit()
    assert len(world.begun) == 1000
    assert world.clock.timers == []


@pytest.mark.parametrize(
    ("values", "op", "held"),
    [
        ({"bps_total": 4096}, "read", True),
        ({"bps_total": 4096}, "write", True),
        ({"bps_read": 4096}, "read", True),
        ({"bps_read": 4096}, "write", False),
        ({"bps_write": 4096}, "read", False),
        ({"bps_write": 4096}, "write", True),
        ({"bps_write": 4096}, "write-zeroes", True),
        ({"iops_total": 1}, "read", True),
        ({"iops_read": 1}, "write", False),
        ({"iops_write": 1}, "write", True),
        ({"bps_total": 4096, "iops_total": 1}, "flush", False),
        ({"bps_total": 4096, "iops_total": 1}, "discard", False),
    ],
)
def test_limit_counts_for_its_kind_of_request(values, op, held):
    world = World("d0")
    world.limit(**values)
    for _ in range(3):
        world.submit(op)
    assert len(world.begun) == (1 if held else 3)


def test_rate_is_kept_to_over_time_and_every_request_is_begun_once_in_order():
    world = World("d0")
    world.limit(bps_write=MIB)
    requests = [world.submit(length=64 * KIB) for _ in range(64)]
    world.clock.advance(2 * SECOND)
    # 0.1 s of work may be ahead: one request begins when less than that is left, and none after it.
    assert 2 * MIB <= world.begun_bytes() <= 2.1 * MIB + 64 * KIB
    world.clock.advance(10 * SECOND)
    assert [request for _, request in world.begun] == requests
    assert world.clock.timers == []


def test_small_requests_below_a_tenth_of_a_second_of_work_do_not_wait():
    world = World("d0")
    world.limit(iops_total=100)
    for _ in range(12):
        world.submit()
    assert len(world.begun) == 11  # ten are allowed ahead, and the one that fills the bucket
    world.clock.advance(SECOND // 100)
    assert len(world.begun) == 12


def test_burst_goes_on_until_its_bucket_is_full_and_comes_back_after_a_rest():
    world = World("d0")
    world.limit(iops_total=10, iops_total_max=100)
    for _ in range(300):
        world.submit()
    assert len(world.begun) == 101
    world.clock.advance(SECOND)
    assert len(world.begun) == 111
    world.clock.advance(30 * SECOND)  # all begun, and the bucket empties
    count = len(world.begun)
    assert count == 300
    world.clock.advance(11 * SECOND)
    for _ in range(150):
        world.submit()
    assert len(world.begun) == 300 + 101


def test_long_burst_keeps_to_its_peak_and_ends():
    world = World("d0")
    world.limit(iops_total=10, iops_total_max=100, iops_total_max_length=5)
    for _ in range(2000):
        world.submit()
    assert len(world.begun) == 11  # a tenth of a second at the peak
    world.clock.advance(SECOND)
    assert 108 <= len(world.begun) <= 112
    world.clock.advance(9 * SECOND)  # 500 requests of burst and 10 a second beside
    assert 500 <= len(world.begun) <= 610
    before = len(world.begun)
    world.clock.advance(10 * SECOND)
    assert 98 <= len(world.begun) - before <= 101


def test_iops_size_makes_several_of_a_large_request():
    world = World("d0")
    world.limit(iops_total=10, iops_size=4 * KIB)
    world.submit(length=40 * KIB)
    world.submit(length=512)
    world.submit(length=512)
    assert len(world.begun) == 1
    world.clock.advance(
        SECOND * 9 // 10 - 1
    )  # ten requests are a second of work, a tenth may be ahead
    assert len(world.begun) == 1
    world.clock.advance(1)
    assert len(world.begun) == 2
    world.clock.advance(SECOND // 10)
    assert len(world.begun) == 3


def test_reads_go_on_while_writes_wait():
    world = World("d0")
    world.limit(bps_write=4 * KIB)
    for op in ("write", "write", "read"):
        world.submit(op)
    assert [request.op for _, request in world.begun] == ["write", "read"]


def test_request_behind_waiting_ones_does_not_overtake_them():
    world = World("d0")
    world.limit(bps_write=64 * KIB)
    large = [world.submit(length=64 * KIB) for _ in range(2)]
    small = world.submit(length=512)
    world.clock.advance(SECOND - SECOND // 10)
    assert [request for _, request in world.begun] == large
    world.clock.advance(SECOND)
    assert world.begun[-1][1] is small


def test_disks_of_a_group_share_its_rate_in_turns():
    world = World("d0", "d1", "d2")
    for disk in ("d0", "d1", "d2"):
        world.limit(disk, "g", bps_total=MIB)
    for disk in ("d0", "d0", "d0", "d1", "d1", "d2"):
        for _ in range(20):
            world.submit(disk=disk, length=64 * KIB)
    world.clock.advance(SECOND)
    assert MIB <= sum(map(world.begun_bytes, world.disks)) <= 1.1 * MIB + 64 * KIB
    waited = [disk for disk, _ in world.begun[3:]]
    assert all(set(waited[n : n + 3]) == {"d0", "d1", "d2"} for n in range(0, len(waited) - 2, 3))


def test_disk_that_leaves_its_group_begins_what_was_held_back():
    world = World("d0", "d1")
    for disk in ("d0", "d1"):
        world.limit(disk, "g", iops_total=1)
    for disk in ("d0", "d1", "d1"):
        world.submit(disk=disk)
    assert len(world.begun) == 1
    world.limit("d1")
    assert [disk for disk, _ in world.begun] == ["d0", "d1", "d1"]
    world.submit(disk="d0")
    assert len(world.begun) == 3  # the group went on with its limits


def test_new_limits_count_from_now_on_and_nothing_waits_for_the_old_ones():
    world = World("d0")
    world.limit(bps_total=1)
    for _ in range(3):
        world.submit()
    world.limit(bps_total=MIB)
    assert len(world.begun) == 3
    world.limit()
    assert world.throttles.save_state() == ThrottleState()
    world.submit()
    assert len(world.begun) == 4


def test_forgotten_requests_are_never_begun():
    world = World("d0")
    world.limit(iops_total=1)
    for op in ("read", "read", "write"):
        world.submit(op)
    world.disks["d0"].forget()
    world.clock.advance(10 * SECOND)
    assert len(world.begun) == 1


def test_slowest_limit_does_not_make_the_timer_longer_than_an_hour():
    world = World("d0")
    world.limit(bps_total=1)
    world.submit(length=1 << 30)
    world.submit(length=1 << 30)
    (timer,) = world.clock.timers
    assert timer.at_ns - world.clock.ns == 3600 * SECOND
    world.clock.advance(7200 * SECOND)
    assert len(world.begun) == 1


@settings(max_examples=40, deadline=None)
@given(
    rate=st.integers(512, 10 * MIB),
    peak=st.sampled_from([0, 1, 3, 10]),
    seconds=st.sampled_from([1, 2, 7]),
    lengths=st.lists(st.integers(1, 256).map(lambda n: n * 512), min_size=1, max_size=60),
    pauses=st.lists(st.integers(0, SECOND), min_size=1, max_size=30),
)
def test_any_load_stays_below_rate_and_burst_and_ends(rate, peak, seconds, lengths, pauses):
    world = World("d0")
    world.limit(
        bps_total=rate, bps_total_max=rate * peak, bps_total_max_length=seconds if peak else 1
    )
    burst = rate * peak * seconds if peak else rate / 10
    for n, length in enumerate(lengths):
        world.submit(length=length)
        world.clock.advance(pauses[n % len(pauses)])
        spent = world.clock.ns / SECOND
        assert world.begun_bytes() <= rate * spent + burst + max(lengths) + 1
    world.clock.advance(int(sum(lengths) / rate + 2) * SECOND)
    assert len(world.begun) == len(lengths)


# ------------------------------------------------------------------- across an update


def carried(old: World, new: World) -> None:
    """Let ``new`` go on where ``old`` was."""
    record = cpr_state.save(old.throttles.save_state())
    new.throttles.load_state(cpr_state.load(ThrottleState, 1, record))


def test_buckets_cross_an_update_as_full_as_they_were():
    old = World("d0")
    old.limit(bps_write=MIB)
    for _ in range(40):
        old.submit(length=64 * KIB)
    old.clock.advance(SECOND)
    new = World("d0", ns=old.clock.ns)
    new.limit(bps_write=MIB)
    carried(old, new)
    before = old.begun_bytes()
    for _ in range(40):
        new.submit(length=64 * KIB)
    assert new.begun == []
    new.clock.advance(SECOND)
    assert before + new.begun_bytes() <= 2.1 * MIB + 64 * KIB


def test_limits_of_a_monitor_count_more_than_the_next_command_line():
    old = World("d0", "d1", "d2")
    old.limit("d0", bps_total=MIB)
    old.limit("d0", chosen=True)  # taken away
    old.limit("d1", "g", chosen=True, iops_total=7, iops_total_max=9)
    old.limit("d2", iops_read=5)
    new = World("d0", "d1", "d2")
    new.limit("d0", bps_total=MIB)
    new.limit("d2", iops_read=6)
    carried(old, new)
    throttles = [new.disks[disk].group for disk in ("d0", "d1", "d2")]
    assert throttles[0] is None
    assert (throttles[1].name, throttles[1].limits) == (
        "g", limits(iops_total=7, iops_total_max=9),
    )  # fmt: skip
    assert throttles[2].limits == limits(iops_read=6)
    again = World("d0", "d1", "d2")
    carried(new, again)
    assert again.disks["d1"].group.limits == limits(iops_total=7, iops_total_max=9)


def test_limits_that_the_command_line_changes_begin_with_empty_buckets():
    old = World("d0")
    old.limit(bps_total=1)
    old.submit(length=MIB)
    new = World("d0")
    new.limit(bps_total=MIB)
    carried(old, new)
    new.submit()
    assert len(new.begun) == 1


def test_levels_beyond_the_records_width_are_cut(capfd):
    old = World("d0")
    old.limit(bps_total=1, bps_total_max=MAX_VALUE)
    for _ in range(40):
        old.submit(length=1 << 30)
    new = World("d0")
    new.limit(bps_total=1, bps_total_max=MAX_VALUE)
    carried(old, new)
    assert new.throttles.save_state().groups[0].empty_ns[0] == (1 << 64) - 1


def test_impossible_state_is_left_with_a_warning(capfd):
    old = World("d0", "gone")
    old.limit("d0", chosen=True, bps_total=5)
    old.limit("gone", chosen=True, bps_total=5)
    state = old.throttles.save_state()
    state.groups[0].limits[1] = 7  # reads, beside the total
    new = World("d0")
    new.throttles.load_state(state)
    assert new.disks["d0"].group is None
    said = capfd.readouterr().err
    assert "disk gone: not on this command line, its limits are left" in said
    assert "throttle group d0: bps-total and bps-read or bps-write cannot be used" in said


# ------------------------------------------------------------------- what goes together


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"bps_total": 1, "bps_read": 1}, "bps-total and bps-read or bps-write cannot be used"),
        ({"iops_total": 1, "iops_write": 1}, "iops-total and iops-read or iops-write cannot be"),
        ({"bps_total": 1, "bps_total_max": 2, "bps_write_max": 2}, "bps-total-max and bps-read-max"),
        ({"bps_total": MAX_VALUE + 1}, "bps-total=.* is not within 0 to 1000000000000000"),
        ({"iops_read": -1}, "iops-read='-1' is not within 0"),
        ({"bps_read": 1, "bps_read_max": MAX_VALUE + 1}, "bps-read-max=.* is not within"),
        ({"bps_total_max": 5}, "bps-total-max requires bps-total"),
        ({"bps_total": 6, "bps_total_max": 5}, "bps-total-max=5 is lower than bps-total=6"),
        ({"bps_total": 6, "bps_total_max_length": 2}, "bps-total-max-length requires bps-total-max"),
        (
            {"bps_total": 1, "bps_total_max": 1, "bps_total_max_length": 0},
            "bps-total-max-length='0' is not at least 1 second",
        ),
        (
            {"bps_total": 1, "bps_total_max": MAX_VALUE // 2, "bps_total_max_length": 3},
            "bps-total-max-length='3' is too long for bps-total-max=500000000000000",
        ),
        ({"bps_total": 1, "iops_size": 512}, "iops-size requires an iops limit"),
        ({"iops_total": 1, "iops_size": -1}, "iops-size='-1' is not within"),
    ],
)  # fmt: skip
def test_limits_that_do_not_go_together_are_refused(values, problem):
    world = World("d0")
    world.limit(iops_total=3)
    with pytest.raises(CommandError, match=f"^disk d0: {problem}.*; its limits did not change$"):
        world.limit(**values)
    assert world.disks["d0"].group.limits == limits(iops_total=3)


@pytest.mark.parametrize("name", ["x" * 128, "a\0b"])
def test_group_with_an_impossible_name_is_refused(name):
    world = World("d0")
    with pytest.raises(CommandError, match="is not a name of at most 127 bytes"):
        world.limit(group=name, iops_total=3)
    assert world.disks["d0"].group is None


def test_limits_are_equal_by_value():
    assert limits(bps_total=1) == limits(bps_total=1) != limits(bps_total=2)
    assert len({limits(bps_total=1), limits(bps_total=1)}) == 1
    assert "1" in repr(limits(bps_total=1))
