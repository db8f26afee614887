"""The interrupt controller, clause by clause of the PLIC specification."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.cpr import state as cpr_state
from instar.cpr.errors import StateInvalidError
from instar.devices.plic import REGION_SIZE, Plic, PlicLine, PlicState
from instar.errors import InternalBugError

PENDING, ENABLE, CONTEXT = 0x1000, 0x2000, 0x20_0000


class Board:
    """A controller for two harts, whose wires are remembered."""

    def __init__(self, contexts=4) -> None:
        self.levels = [False] * 16
        self.plic = Plic(contexts, self.levels.__setitem__)

    def write(self, offset, value) -> None:
        self.plic.mmio_write(offset, 4, value)

    def read(self, offset) -> int:
        return self.plic.mmio_read(offset, 4)

    def route(self, source, context=1, priority=1) -> PlicLine:
        self.write(4 * source, priority)
        word = ENABLE + 0x80 * context + 4 * (source // 32)
        self.write(word, self.read(word) | 1 << source % 32)
        return self.plic.line(source)

    def claim(self, context=1) -> int:
        return self.read(CONTEXT + 0x1000 * context + 4)

    def complete(self, source, context=1) -> None:
        self.write(CONTEXT + 0x1000 * context + 4, source)


@pytest.fixture
def board() -> Board:
    return Board()


def test_line_rise_interrupts_the_enabled_context_only(board):
    board.route(10).set(True)
    assert board.levels == [False, True] + [False] * 14


@pytest.mark.parametrize("source", [1, 31, 32, 63, 64, 95])
def test_source_is_pending_claimed_and_completed(board, source):
    line = board.route(source)
    line.set(True)
    assert board.read(PENDING + 4 * (source // 32)) == 1 << source % 32
    assert board.claim() == source
    assert not board.levels[1]
    line.set(False)
    board.complete(source)
    assert board.claim() == 0


def test_plic_5_gateway_makes_no_second_request_before_completion(board):
    line = board.route(10)
    line.set(True)
    board.claim()
    line.set(False)
    line.set(True)
    assert board.claim() == 0
    board.complete(10)
    assert board.levels[1]
    assert board.claim() == 10


def test_plic_5_line_still_high_at_completion_requests_again(board):
    board.route(10).set(True)
    board.claim()
    board.complete(10)
    assert board.claim() == 10


def test_plic_5_request_stays_when_the_line_falls(board):
    line = board.route(10)
    line.set(True)
    line.set(False)
    assert board.claim() == 10


def test_priority_0_never_interrupts(board):
    board.route(10, priority=0).set(True)
    assert not board.levels[1]
    assert board.claim() == 0


def test_higher_priority_is_claimed_first_and_equal_ones_by_number(board):
    for source, priority in ((9, 2), (8, 2), (40, 3)):
        board.route(source, priority=priority).set(True)
    assert [board.claim() for _ in range(4)] == [40, 8, 9, 0]


@pytest.mark.parametrize(("threshold", "level"), [(2, True), (3, False), (7, False)])
def test_threshold_must_be_exceeded_and_does_not_stop_claims(board, threshold, level):
    board.write(CONTEXT + 0x1000, threshold)
    board.route(10, priority=3).set(True)
    assert board.levels[1] is level
    assert board.read(CONTEXT + 0x1000) == threshold
    assert board.claim() == 10


def test_plic_9_completion_by_a_context_that_has_it_not_enabled_is_ignored(board):
    board.route(10).set(True)
    board.claim()
    board.complete(10, context=3)
    assert board.claim() == 0
    board.complete(10)
    assert board.claim() == 10


@pytest.mark.parametrize("source", [0, 10, 96, 0xFFFF_FFFF])
def test_completion_of_what_was_not_claimed_is_ignored(board, source):
    board.route(10)
    board.complete(source)
    assert board.claim() == 0


def test_two_contexts_one_claims(board):
    board.route(10, context=1)
    board.route(10, context=3).set(True)
    assert board.levels[1]
    assert board.levels[3]
    assert board.claim(3) == 10
    assert board.claim(1) == 0
    assert not board.levels[1]


def test_source_0_cannot_be_enabled_and_has_no_priority(board):
    board.write(0, 7)
    board.write(ENABLE + 0x80, 0xFFFF_FFFF)
    assert board.read(0) == 0
    assert board.read(ENABLE + 0x80) == 0xFFFF_FFFE


def test_priority_keeps_three_bits(board):
    board.write(4, 0xFFFF_FFFF)
    assert board.read(4) == 7


@pytest.mark.parametrize(
    "offset",
    [4 * 96, 0xFFC, PENDING + 12, ENABLE + 12, ENABLE + 0x80 * 4, CONTEXT + 8, CONTEXT + 0x4000],
)
def test_register_that_does_not_exist_reads_0_and_ignores_writes(board, offset):
    before = cpr_state.save(board.plic.state)
    board.write(offset, 0xFFFF_FFFF)
    assert board.read(offset) == 0
    assert cpr_state.save(board.plic.state) == before


@pytest.mark.parametrize(("offset", "size"), [(4, 1), (4, 8), (6, 4)])
def test_access_of_wrong_width_does_nothing(board, offset, size):
    board.plic.mmio_write(offset, size, 7)
    assert board.plic.mmio_read(offset, size) == 0
    assert board.read(4) == 0


@pytest.mark.parametrize("source", [0, 96])
def test_line_that_does_not_exist_is_our_bug(board, source):
    with pytest.raises(InternalBugError):
        board.plic.line(source)


@pytest.mark.parametrize("contexts", [0, 17])
def test_contexts_out_of_range_is_our_bug(contexts):
    with pytest.raises(InternalBugError):
        Board(contexts)


def test_reset_forgets_requests_until_devices_drive_their_lines_again(board):
    line = board.route(10)
    line.set(True)
    board.plic.reset()
    board.route(10)
    assert (board.levels[1], board.claim()) == (False, 0)
    line.set(True)
    assert board.claim() == 10


def test_load_midway_goes_on_and_post_load_drives_the_harts(board):
    line = board.route(10)
    line.set(True)
    board.route(11).set(True)
    board.claim()
    new = Board()
    new.plic.load_state(cpr_state.load(PlicState, 1, cpr_state.save(board.plic.save_state())))
    assert new.plic.state == board.plic.state
    new.plic.post_load()
    assert new.levels == board.levels
    new.complete(10)
    assert [new.claim(), new.claim()] == [10, 11]


def test_load_for_another_number_of_harts_is_refused(board):
    with pytest.raises(StateInvalidError, match="4, this machine has 2"):
        Board(2).plic.check_against(board.plic.state)


@pytest.mark.parametrize(
    "change",
    [{"contexts": 17}, {"priority": [8] * 96}, {"threshold": [8] * 16}, {"pending": [1, 0, 0]}],
)
def test_state_that_cannot_be_is_refused(board, change):
    with pytest.raises(StateInvalidError):
        cpr_state.load(PlicState, 1, cpr_state.save(board.plic.state) | change)


def test_slots_are_state_and_handles():
    assert set(Plic.__slots__) == {"state", "set_hart_irq"}


offset = st.one_of(
    st.integers(0, 0x40).map(lambda n: 4 * n),
    st.sampled_from([PENDING, ENABLE, ENABLE + 0x80, CONTEXT, CONTEXT + 4, CONTEXT + 0x1004]),
    st.integers(0, REGION_SIZE - 8),
)
action = st.one_of(
    st.tuples(st.just("line"), st.integers(1, 95), st.booleans()),
    st.tuples(st.just("write"), offset, st.integers(0, (1 << 32) - 1)),
    st.tuples(st.just("read"), offset, st.just(0)),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(action, max_size=40))
def test_any_accesses_keep_requests_single_and_state_valid(actions):
    board = Board()
    do = {
        "line": lambda n, level: board.plic.line(n).set(level),
        "write": board.write,
        "read": lambda where, _: board.read(where),
    }
    for name, *arguments in actions:
        do[name](*arguments)
        state = board.plic.state
        assert not any(p & c for p, c in zip(state.pending, state.claimed, strict=True))
    assert cpr_state.load(PlicState, 1, cpr_state.save(state if actions else PlicState()))
