"""The serial port against its data sheet and what Linux's 8250 driver expects."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.cpr import state as cpr_state
from instar.cpr.errors import StateInvalidError
from instar.devices.uart16550 import Uart16550, UartState
from instar.devices.uart16550.device import PENDING_LIMIT
from instar.testing.fakes import FakeChardev, FakeIrq

RBR = THR = DLL = 0
IER = DLM = 1
IIR = FCR = 2
LCR, MCR, LSR, MSR, SCR = 3, 4, 5, 6, 7


class Board:
    """A port between a guest and a peer."""

    def __init__(self, chardev=None) -> None:
        self.irq = FakeIrq()
        self.line = chardev or FakeChardev()
        self.uart = Uart16550(self.irq, self.line)

    def read(self, offset) -> int:
        return self.uart.mmio_read(offset, 1)

    def write(self, offset, value) -> None:
        self.uart.mmio_write(offset, 1, value)

    def send(self, data) -> None:
        for byte in data:
            self.write(THR, byte)

    def drain(self) -> bytes:
        out = b""
        while self.read(LSR) & 1:
            out += bytes((self.read(RBR),))
        return out


@pytest.fixture
def board() -> Board:
    return Board()


@pytest.fixture
def stuck(board) -> Board:
    board.line.stuck = True
    board.send(bytes(PENDING_LIMIT + 1))
    return board


def test_output_reaches_the_chardev(board):
    board.send(b"hello")
    assert board.line.sent == b"hello"
    assert board.read(LSR) == 0x60


def test_input_is_read_in_order(board):
    board.write(FCR, 1)
    board.line.type(b"abc")
    assert board.drain() == b"abc"
    assert board.read(RBR) == 0


@pytest.mark.parametrize(("fcr", "room"), [(0, 1), (1, 16)])
def test_input_is_taken_only_as_there_is_room(board, fcr, room):
    board.write(FCR, fcr)
    text = bytes(range(100))
    board.line.type(text)
    assert len(board.line.input) == 100 - room
    assert board.drain() == text


def test_input_beyond_the_room_is_an_overrun(board):
    board.uart.receive(b"ab")
    assert board.read(LSR) & 2
    assert not board.read(LSR) & 2


@pytest.mark.parametrize(
    ("fcr", "count", "source"),
    [(0x01, 1, 0xC4), (0x41, 3, 0xCC), (0x41, 4, 0xC4), (0x81, 8, 0xC4), (0xC1, 13, 0xCC)],
)
def test_receive_interrupt_by_trigger_level_or_time_out(board, fcr, count, source):
    board.write(FCR, fcr)
    board.write(IER, 1)
    board.line.type(bytes(count))
    assert board.irq.level
    assert board.read(IIR) == source
    board.drain()
    assert (board.irq.level, board.read(IIR)) == (False, 0xC1)


def test_thre_interrupt_when_enabled_and_cleared_by_reading_iir(board):
    board.write(IER, 2)
    assert board.irq.level
    assert board.read(IIR) == 2
    assert (board.irq.level, board.read(IIR)) == (False, 1)


def test_thre_interrupt_again_after_each_byte(board):
    board.write(IER, 2)
    board.read(IIR)
    board.write(THR, 65)
    assert board.irq.level
    assert board.read(IIR) == 2


def test_thre_interrupt_disabled_and_enabled_again_asks_again(board):
    board.write(IER, 2)
    board.read(IIR)
    board.write(IER, 0)
    board.write(IER, 2)
    assert board.read(IIR) == 2


def test_interrupts_are_told_by_priority(board):
    board.write(IER, 0x0F)
    board.uart.receive(b"ab")
    board.write(MCR, 0x10)
    seen = []
    for register in (LSR, RBR, IIR, MSR):
        seen.append(board.read(IIR) & 0x0F)
        board.read(register)
    assert seen == [6, 4, 2, 0]
    assert board.read(IIR) == 1


def test_output_the_host_does_not_take_holds_the_transmitter(stuck):
    assert stuck.read(LSR) & 0x60 == 0
    stuck.write(IER, 2)
    assert not stuck.irq.level


def test_output_held_waits_in_the_fifo_and_goes_on_when_drained(board):
    board.write(FCR, 1)
    board.write(IER, 2)
    board.line.stuck = True
    board.send(bytes(PENDING_LIMIT + 1))
    board.send(b"last words")
    assert not board.irq.level
    board.line.unstick()
    assert board.line.sent.endswith(b"\0last words")
    assert board.irq.level
    assert board.read(LSR) & 0x60 == 0x60


def test_output_of_a_guest_that_does_not_look_is_bounded(stuck):
    stuck.write(FCR, 1)
    stuck.send(bytes(5000))
    assert len(stuck.uart.state.tx) == 16
    assert len(stuck.line.kept) == PENDING_LIMIT + 1


@pytest.mark.parametrize("name", ["closed", "opened", "drained"])
def test_output_goes_on_after_any_event_that_made_room(stuck, name):
    stuck.line.kept = b""
    stuck.write(IER, 2)
    stuck.line.event(name)
    assert stuck.irq.level


def test_output_goes_on_for_a_guest_that_polls(stuck):
    stuck.line.kept = b""
    assert stuck.read(LSR) & 0x60 == 0x60


def test_drained_without_anything_held_changes_nothing(board):
    before = cpr_state.save(board.uart.state)
    board.line.event("drained")
    board.line.event("opened")
    assert cpr_state.save(board.uart.state) == before


def test_break_arrives_as_zero_with_its_status(board):
    board.write(IER, 4)
    board.line.event("break")
    assert board.read(IIR) == 6
    assert board.read(LSR) == 0x71
    assert board.read(RBR) == 0
    assert not board.irq.level


def test_fifo_clear_bits_empty_them(board):
    board.write(FCR, 1)
    board.line.type(b"abc")
    board.write(FCR, 3)
    assert board.read(LSR) & 1 == 0


def test_fifo_switched_off_drops_and_makes_room_for_one(board):
    board.write(FCR, 1)
    board.line.type(b"abc")
    board.write(FCR, 0)
    assert (board.read(IIR), board.uart.can_receive()) == (1, 1)


def test_divisor_latch_hides_data_and_ier(board):
    board.write(LCR, 0x83)
    board.write(DLL, 0x34)
    board.write(DLM, 0x12)
    assert (board.read(DLL), board.read(DLM)) == (0x34, 0x12)
    board.write(LCR, 0x03)
    assert (board.read(IER), board.read(LCR), board.line.sent) == (0, 3, b"")


@pytest.mark.parametrize(("register", "mask"), [(IER, 0x0F), (MCR, 0x1F), (SCR, 0xFF)])
def test_register_keeps_its_bits(board, register, mask):
    board.write(register, 0xFF)
    assert board.read(register) == mask


def test_offset_without_register_reads_0(board):
    board.write(0x20, 5)
    assert board.read(0x20) == 0


def test_loopback_gives_output_back_and_nothing_leaves(board):
    board.write(FCR, 1)
    board.write(MCR, 0x10)
    board.line.type(b"outside")
    board.send(b"inside")
    assert (board.drain(), board.line.sent) == (b"inside", b"")
    board.write(MCR, 0)
    assert board.drain() == b"outside"


def test_loopback_overrun_is_told(board):
    board.write(MCR, 0x10)
    board.send(b"ab")
    assert board.read(LSR) & 3 == 3


def test_loopback_break_comes_back(board):
    board.write(MCR, 0x10)
    board.write(LCR, 0x40)
    assert board.read(LSR) & 0x11 == 0x11


@pytest.mark.parametrize(
    ("mcr", "lines"),
    [(0, 0xB0), (0x10, 0), (0x11, 0x20), (0x12, 0x10), (0x1A, 0x90), (0x1F, 0xF0)],
)
def test_modem_lines_follow_the_outputs_in_loopback(board, mcr, lines):
    board.write(MCR, mcr)
    assert board.read(MSR) & 0xF0 == lines


def test_modem_changes_are_told_once(board):
    board.write(MCR, 0x10)
    assert board.read(MSR) == 0x0B
    assert board.read(MSR) == 0


def test_ring_indicator_counts_its_trailing_edge(board):
    board.write(MCR, 0x14)
    assert not board.read(MSR) & 4
    board.write(MCR, 0x10)
    assert board.read(MSR) & 4


def test_linux_8250_probe_finds_a_16550a(board):
    board.write(IER, 0)
    assert board.read(IER) == 0
    board.write(IER, 0x0F)
    assert board.read(IER) == 0x0F
    board.write(IER, 0)
    board.write(MCR, 0x1A)
    assert board.read(MSR) & 0xF0 == 0x90
    board.write(MCR, 0)
    board.write(FCR, 1)
    assert board.read(IIR) >> 6 == 3


def test_reset_sends_what_was_written_and_takes_input_again(board):
    board.line.stuck = True
    board.send(bytes(PENDING_LIMIT + 1) + b"x")
    board.line.type(b"a")
    board.line.input = b"b"
    board.uart.reset()
    board.line.unstick()
    assert board.line.sent[-1:] == b"x"
    assert board.drain() == b"b"


def test_load_midway_is_equal_and_goes_on(board):
    board.write(FCR, 1)
    board.write(IER, 3)
    board.line.type(b"typed before")
    board.read(RBR)
    new = Board()
    new.uart.load_state(cpr_state.load(UartState, 1, cpr_state.save(board.uart.save_state())))
    new.line.input = b" and after"
    new.uart.post_load()
    assert new.irq.level
    assert new.drain() == b"yped before and after"


def test_load_while_held_goes_on_sending_when_the_host_takes_output(stuck):
    stuck.write(THR, 33)
    new = Board()
    new.uart.load_state(cpr_state.load(UartState, 1, cpr_state.save(stuck.uart.save_state())))
    new.uart.post_load()
    assert new.line.sent == b"!"
    assert new.read(LSR) & 0x60 == 0x60


@pytest.mark.parametrize("change", [{"tx": b"x"}, {"lsr_errors": 1}, {"fcr": 2}])
def test_state_that_cannot_be_is_refused(change):
    with pytest.raises(StateInvalidError):
        cpr_state.load(UartState, 1, cpr_state.save(UartState()) | change)


def test_slots_are_state_and_handles():
    assert set(Uart16550.__slots__) == {"state", "irq", "chardev", "state_id"}


access = st.tuples(st.integers(0, 9), st.integers(0, 0xFFFF), st.sampled_from([1, 2, 4, 8]))


@settings(max_examples=80, deadline=None)
@given(st.lists(access, max_size=60), st.binary(max_size=40), st.booleans())
def test_any_accesses_keep_the_state_valid_and_lose_no_input(accesses, typed, stuck):
    board = Board()
    board.line.stuck = stuck
    board.line.type(typed)
    for offset, value, size in accesses:
        board.uart.mmio_write(offset, size, value)
        assert 0 <= board.uart.mmio_read(offset, size) < 256
    state = board.uart.state
    assert cpr_state.load(UartState, 1, cpr_state.save(state)) == state
    assert board.irq.level == (board.uart._interrupt() != 1)


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=200), st.lists(st.integers(1, 40), max_size=20))
def test_input_in_any_pieces_arrives_whole(text, pieces):
    board = Board()
    board.write(FCR, 1)
    got, rest = b"", text
    for piece in pieces:
        board.line.type(rest[:piece])
        rest = rest[piece:]
        got += board.drain()
    board.line.type(rest)
    assert got + board.drain() == text
