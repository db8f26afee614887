"""The bare-metal guest on the software CPU, with a serial line and an interrupt controller of a few lines."""

import copy
import ctypes
import hashlib
import mmap
import struct

import pytest

from instar.cpu.rv64 import EXIT_BREAK, EXIT_IDLE, Core
from instar.errors import ConfigError
from instar.image.ticker import (
    LOAD_ADDRESS,
    STATUS_ADDRESS,
    STATUS_SIZE,
    read_status,
    ticker_image,
)

RAM_BASE = 0x8000_0000
RAM_SIZE = 4 << 20
WINDOW = 0x8030_0000
SMALL = {
    "WINDOW": WINDOW,
    "PATTERN": 4096,
    "INTERVAL": 100,
    "TICK_EVERY": 2,
}  # a tick in 20,000 instructions
UART, PLIC, SYSCON = 0x1000_0000, 0x0C00_0000, 0x10_0000
SRST = 0x53525354


class Board:
    """UART and PLIC as far as the guest uses them; everything in it is plain data."""

    def __init__(self):
        self.output = b""
        self.input = b""
        self.registers = {}
        self.claimed = False
        self.resets = []
        self.sbi_has_reset = True

    def mmio_read(self, gpa, _size):
        if gpa == UART:
            char, self.input = self.input[:1], self.input[1:]
            return ord(char)
        if gpa == UART + 5:
            return 0x60 | bool(self.input)
        if gpa == PLIC + 0x20_1004:
            irq = 10 if self.line() else 0
            self.claimed |= bool(irq)
            return irq
        return self.registers.get(gpa, -1)

    def mmio_write(self, gpa, _size, value):
        if gpa == UART:
            self.output += bytes([value])
        elif gpa == PLIC + 0x20_1004:
            self.claimed = False
        else:
            self.registers[gpa] = value
        return 0

    def sbi(self, _hart, eid, _fid, args):
        if eid == SRST and self.sbi_has_reset:
            self.resets.append(args[:2])
            return (0, 0)
        return (-2, 0)

    def line(self):
        """Say whether the PLIC interrupts hart 0 in supervisor mode."""
        enabled = self.registers.get(PLIC + 0x2080) == 1 << 10
        on = self.registers.get(UART + 1) == 1 and self.registers.get(PLIC + 40) == 1
        return bool(self.input) and enabled and on and not self.claimed


class Machine:
    """RAM, a core, a board."""

    def __init__(self, board=None, harts=1):
        self.memory = mmap.mmap(-1, RAM_SIZE)
        self.board = board or Board()
        self._anchor = ctypes.c_char.from_buffer(self.memory)
        self.core = Core(
            ram_addr=ctypes.addressof(self._anchor),
            ram_base=RAM_BASE,
            ram_size=RAM_SIZE,
            harts=harts,
            bus=self.board,
            icount_shift=0,
        )

    def boot(self, **defines):
        image = ticker_image(SMALL | defines)
        at = LOAD_ADDRESS - RAM_BASE
        self.memory[at : at + len(image)] = image
        self.core.dma_written(LOAD_ADDRESS, len(image))
        self.core.start_hart(0, LOAD_ADDRESS, 0, 0)
        return self

    def run_to(self, icount):
        """Run to a count, skipping idle time; lines are looked at every 1000 instructions, as absolute steps."""
        while self.core.icount < icount:
            self.core.set_irq(0, 9, self.board.line())
            self.core.set_break(min(icount, (self.core.icount // 1000 + 1) * 1000))
            if self.core.run(1 << 40) == EXIT_IDLE:
                self.core.warp_to(self.core.deadline_ns())
        self.core.set_break(-1)
        return self

    def type(self, text):
        self.board.input += text
        return self

    def status(self):
        at = STATUS_ADDRESS - RAM_BASE
        return read_status(self.memory[at : at + STATUS_SIZE])

    def copy(self):
        """Return a machine of its own in the same state, as an update makes it."""
        other = Machine(copy.deepcopy(self.board))
        other.memory[:] = self.memory[:]
        other.core.load_hart(0, self.core.save_hart(0))
        other.core.load_shared(self.core.save_shared())
        return other

    def fingerprint(self):
        """Everything the guest can tell apart."""
        memory = hashlib.sha256(self.memory).hexdigest()
        return memory, self.core.save_hart(0), self.core.save_shared(), self.board.output


@pytest.fixture(scope="module")
def grown():
    """A machine that has run for some ticks, and is not run any further."""
    return Machine().boot().run_to(200_000)


def test_ticker_after_start_greets_and_ticks(grown):
    lines = grown.board.output.decode().splitlines()

    assert lines[:5] == ["ticker: started", "tick 1", "tick 2", "tick 3", "tick 4"]


def test_ticker_counts_turns_checks_and_interrupts(grown):
    status = grown.status()

    assert status.counter > 200
    assert status.counter - status.checks // 64 in (8, 9)  # the first sweep, 8 blocks, only writes
    assert status.timers // 2 == status.ticks > 4
    assert status.stamp > 1000
    assert status.errors == 0


def test_ticker_input_is_echoed():
    machine = Machine().boot().run_to(50_000).type(b"hello\r").run_to(100_000)

    assert b"hello\n" in machine.board.output
    assert machine.status().received == 6


def test_ticker_command_state_prints_the_counters():
    machine = Machine().boot(TICK_EVERY=1 << 20).run_to(50_000).type(b"state\n").run_to(100_000)
    words = machine.board.output.decode().splitlines()[2].split()

    assert words[::2] == ["counter", "checks", "errors", "ticks", "timers", "received"]
    assert words[5::6] == ["0", "6"]


@pytest.mark.parametrize(("command", "kind"), [(b"exit\n", 0), (b"reboot\n", 1)])
def test_ticker_command_asks_sbi_for_a_reset(command, kind):
    machine = Machine().boot().run_to(50_000).type(command).run_to(80_000)

    assert machine.board.resets == [(kind, 0)]


def test_ticker_exit_without_sbi_reset_writes_the_syscon():
    machine = Machine().boot().run_to(50_000).type(b"exit\n")
    machine.board.sbi_has_reset = False
    machine.run_to(80_000)

    assert machine.board.registers[SYSCON] == 0x5555


def test_ticker_word_changed_by_another_is_reported():
    machine = Machine().boot().run_to(100_000)
    machine.memory[WINDOW - RAM_BASE + 0x123] ^= 1
    machine.run_to(150_000)

    assert b"MEMORY ERROR at 80300120\n" in machine.board.output
    assert machine.status().errors == 1


def test_ticker_time_that_goes_back_is_reported():
    machine = Machine().boot().run_to(100_000)
    shared = machine.core.save_shared()
    machine.core.load_shared(shared | {"clock_ns": shared["clock_ns"] // 2})
    machine.run_to(110_000)

    assert b"TIME ERROR\n" in machine.board.output


def test_ticker_floating_point_register_lost_is_reported():
    machine = Machine().boot().run_to(100_000)
    machine.core.load_hart(0, machine.core.save_hart(0) | {"f": [0] * 32})
    machine.run_to(110_000)

    assert b"FP ERROR\n" in machine.board.output


def test_ticker_unexpected_trap_is_reported_and_ends_as_failure():
    machine = Machine().boot().run_to(50_000)
    machine.core.load_hart(0, machine.core.save_hart(0) | {"pc": 0x1000})
    machine.run_to(80_000)

    assert b"UNEXPECTED TRAP 1 at 1000\n" in machine.board.output
    assert machine.board.resets == [(0, 1)]


def test_ticker_idle_sleeps_between_interrupts():
    machine = Machine().boot(BUSY=0)
    machine.run_to(40_000)
    status = machine.status()

    assert status.counter - status.timers < 4
    assert status.ticks > 4
    assert status.errors == 0


def test_ticker_started_again_in_place_begins_anew():
    machine = Machine().boot().run_to(100_000)
    machine.core.reset()
    machine.core.start_hart(0, LOAD_ADDRESS, 0, 0)
    machine.run_to(200_000)

    assert machine.board.output.count(b"ticker: started\n") == 2
    assert machine.status().errors == 0


def test_ticker_other_harts_count_for_themselves():
    machine = Machine(harts=3).boot().run_to(100_000)

    assert [turns > 1000 for turns in machine.status().turns] == [False, True, True] + [False] * 5


@pytest.mark.parametrize("at", [1, 777, 20_480, 61_234, 99_999])
def test_ticker_saved_and_loaded_ends_as_if_it_never_was(at):
    straight = Machine().boot().type(b"state\n").run_to(120_000)
    copied = Machine().boot().type(b"state\n").run_to(at).copy().run_to(120_000)

    assert copied.fingerprint() == straight.fingerprint()


def test_core_break_stops_at_the_exact_instruction():
    machine = Machine().boot()
    machine.core.set_break(12_345)

    assert (machine.core.run(1 << 40), machine.core.icount) == (EXIT_BREAK, 12_345)


def test_read_status_of_other_memory_is_refused():
    with pytest.raises(ConfigError, match="no ticker runs there"):
        read_status(struct.pack("<8s", b"elsewhat") + bytes(STATUS_SIZE))
