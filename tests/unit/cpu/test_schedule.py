"""Turns, breaks and time: what stops a run leaves no trace in the guest."""

import _thread
import random
import time

import pytest
from hart import RAM, Device, Rig, registers

from instar.cpu.rv64 import EXIT_BREAK, EXIT_IDLE, EXIT_KICKED, EXIT_LIMIT, Core
from instar.cpu.rv64.state import CoreState, HartState

TIME, IPI, HSM = 0x54494D45, 0x735049, 0x48534D
HARTS = 3
END = 60_000

# Every hart counts in a shared word with LR/SC and in one of its own; a timer interrupt every 30 us re-arms itself,
# notes the time, and sends an interrupt to the next hart; a device is read now and then.
GUEST = f"""
    .equ shared, {RAM + 0x8000}
    .equ device, {Device.base}
    li s1, 1
start_next:
    mv a0, s1
    la a1, entry
    li a2, 0
    li a6, 0
    li a7, {HSM}
    ecall
    addi s1, s1, 1
    li t0, {HARTS}
    bne s1, t0, start_next
    li a0, 0
entry:
    mv s0, a0
    la t0, handler
    csrw stvec, t0
    li s2, shared
    slli t0, s0, 6
    add s3, s2, t0
    addi s3, s3, 64
    li t0, 0x22
    csrw sie, t0
    csrsi sstatus, 2
    rdtime t0
    addi t0, t0, 300
    csrw stimecmp, t0
loop:
    lr.d t0, (s2)
    addi t0, t0, 1
    sc.d t1, t0, (s2)
    bnez t1, loop
    ld t0, 0(s3)
    addi t0, t0, 1
    sd t0, 0(s3)
    andi t1, t0, 63
    bnez t1, loop
    li t1, device
    ld t2, 0(t1)
    andi t1, t0, 255
    bnez t1, loop
    wfi
    j loop
    .align 2
handler:
    csrw sscratch, t0
    csrr t0, scause
    andi t0, t0, 15
    sd t1, 24(s3)
    li t1, 1
    beq t0, t1, soft
    rdtime t0
    sd t0, 8(s3)
    addi t0, t0, 300
    csrw stimecmp, t0
    sd a0, 32(s3)
    sd a1, 40(s3)
    li a0, 1
    addi a1, s0, 1
    li t0, {HARTS}
    bne a1, t0, 3f
    li a1, 0
3:  li a6, 0
    li a7, {IPI}
    ecall
    ld a0, 32(s3)
    ld a1, 40(s3)
    j out
soft:
    csrci sip, 2
    ld t0, 16(s3)
    addi t0, t0, 1
    sd t0, 16(s3)
out:
    ld t1, 24(s3)
    csrr t0, sscratch
    sret
"""


class Clocked(Device):
    """A device that reads as the core's time."""

    core: Core

    def mmio_read(self, gpa, size):
        self.log.append(self.core.now_ns())
        return super().mmio_read(gpa, size)


def guest(**options):
    rig = Rig(harts=HARTS, icount_shift=3, bus=Clocked(), size=1 << 16, **options)
    rig.bus.core = rig.core
    rig.program(GUEST)
    rig.supervisor()
    return rig


def advance(rig, end, next_limit=lambda: END):
    """Run to an instruction count, over idle times, in pieces of given lengths."""
    rig.core.set_break(end)
    reason = EXIT_LIMIT
    while reason != EXIT_BREAK:
        reason = rig.core.run(next_limit())
        rig.core.warp_to(rig.core.deadline_ns() if reason == EXIT_IDLE else 0)


def result(rig):
    """Return everything that the guest can tell."""
    return (
        bytes(rig.ram),
        [rig.hart(n) for n in range(HARTS)],
        rig.core.save_shared(),
        list(rig.bus.log),
    )


@pytest.fixture(scope="module")
def undisturbed():
    rig = guest()
    advance(rig, END)
    return result(rig)


def test_guest_of_these_tests_uses_everything(undisturbed):
    ram, harts, _, log = undisturbed
    words = [int.from_bytes(ram[0x8000 + 8 * n : 0x8008 + 8 * n], "little") for n in range(32)]
    own = [words[8 * n + 8 : 8 * n + 16] for n in range(HARTS)]
    assert words[0] >= sum(row[0] for row in own) > 1000
    assert all(row[1] > 0 and row[2] > 0 for row in own)
    assert len(log) > 10
    assert all(hart["minstret"] > 1000 for hart in harts)


def test_second_run_is_the_same(undisturbed):
    rig = guest()
    advance(rig, END)
    assert result(rig) == undisturbed


@pytest.mark.parametrize("seed", range(4))
def test_random_stops_change_nothing(undisturbed, seed):
    choose = random.Random(seed)
    rig = guest()
    advance(rig, END, lambda: choose.choice([1, 2, 7, 100, 1999, 2000, 2001, 5000]))
    assert result(rig) == undisturbed


def test_kicks_from_the_device_change_nothing(undisturbed):
    rig = guest()
    rig.bus.on_access = rig.core.kick
    advance(rig, END)
    assert result(rig) == undisturbed


def test_flushing_everything_changes_nothing(undisturbed):
    rig = guest(flush_everything=True)
    advance(rig, END)
    assert result(rig) == undisturbed


@pytest.mark.parametrize("at", [1, 777, 20_011, 43_210])
def test_save_and_load_in_the_middle_change_nothing(undisturbed, at):
    old = guest()
    advance(old, at)
    new = guest()
    new.ram[:] = old.ram[:]
    shared = CoreState(**old.core.save_shared())
    new.core.load_shared({name: getattr(shared, name) for name in CoreState.state_fields})
    for n in range(HARTS):
        state = HartState(**old.hart(n))
        new.core.load_hart(n, {name: getattr(state, name) for name in HartState.state_fields})
    new.bus.log = old.bus.log
    advance(new, END)
    assert result(new) == undisturbed


def spin(**options):
    rig = Rig(**options)
    rig.program("1: addi x5, x5, 1\nj 1b")
    rig.machine()
    return rig


@pytest.mark.parametrize("at", [0, 1, 2, 1999, 30_001])
def test_break_stops_exactly_and_again(at):
    rig = spin()
    rig.core.set_break(at)
    assert rig.run() == EXIT_BREAK
    assert rig.run() == EXIT_BREAK
    assert rig.core.icount == at
    rig.core.set_break(-1)
    assert rig.run(10) == EXIT_LIMIT
    assert rig.core.icount == at + 10


def test_limit_counts_traps_so_that_a_guest_that_only_traps_ends():
    rig = Rig()
    rig.machine(mtvec=0)
    rig.write(RAM, bytes(4))
    assert rig.run(1000) == EXIT_LIMIT
    assert (rig.core.icount, rig.hart()["minstret"]) == (1000, 0)


def test_kick_before_the_run_is_kept_for_it_and_for_it_only():
    rig = spin()
    rig.core.kick()
    rig.core.kick()
    assert rig.run(10) == EXIT_KICKED
    assert rig.run(10) == EXIT_LIMIT


def test_harts_take_turns_of_the_same_length():
    rig = Rig(harts=4)
    rig.program("1: j 1b")
    for n in range(4):
        rig.machine(hart=n)
    rig.run(20_000)
    assert [rig.hart(n)["minstret"] for n in range(4)] == [6000, 6000, 4000, 4000]


def test_all_harts_stopped_is_idle_for_ever():
    rig = Rig(harts=2)
    assert rig.run() == EXIT_IDLE
    assert rig.core.deadline_ns() == -1


def test_waiting_hart_goes_on_when_time_comes():
    rig = Rig()
    rig.program("wfi\nli x5, 1\n1: wfi\nj 1b")
    rig.machine(mie=0x20, menvcfg=1 << 63, stimecmp=50)
    assert rig.run() == EXIT_IDLE
    assert (rig.core.deadline_ns(), rig.x(5)) == (5000, 0)
    rig.core.warp_to(4999)
    assert (rig.run(10), rig.x(5)) == (EXIT_IDLE, 0)
    rig.core.warp_to(5000)
    rig.run(2)
    assert rig.x(5) == 1


def test_deadline_too_far_for_the_clock_is_never():
    rig = Rig()
    rig.machine(mie=0x20, menvcfg=1 << 63, stimecmp=(1 << 64) - 2)
    assert rig.core.deadline_ns() == -1


def test_count_read_by_a_device_is_that_before_its_instruction():
    device = Device()
    rig = Rig(bus=device)
    counts = []
    device.on_access = lambda: counts.append((rig.core.icount, rig.core.now_ns()))
    rig.program("nop\nnop\nld x5, 0(x6)\nnop\namoadd.w x0, x0, (x7)\nsw x5, 0(x6)\nwfi")
    rig.machine(x=registers(x6=Device.base, x7=RAM + 0x1000))
    rig.run()
    assert counts == [(2, 2), (5, 5)]


def test_warp_goes_forward_only():
    rig = Rig()
    rig.core.warp_to(1000)
    rig.core.warp_to(10)
    assert rig.core.now_ns() == 1000


def test_real_time_stands_still_while_the_clock_is_stopped():
    rig = Rig(icount_shift=-1)
    before = rig.core.now_ns()
    rig.core.clock_start()
    rig.core.clock_start()
    running = [rig.core.now_ns() for _ in range(100)]
    rig.core.clock_stop()
    stopped = rig.core.now_ns()
    assert before == 0 < running[-1] <= stopped == rig.core.now_ns()
    assert running == sorted(running)


def test_real_time_is_saved_and_loaded():
    rig = Rig(icount_shift=-1)
    rig.core.load_shared({"icount": 7, "clock_ns": 12345, "turn": 0, "turn_left": 2000})
    assert rig.core.save_shared()["clock_ns"] == rig.core.now_ns() == 12345


def test_kick_and_lines_from_another_thread_reach_a_running_core():
    """The guest spins until its interrupt handler has run; the run ends with the other thread's kick."""
    rig = Rig(icount_shift=-1)
    rig.program("1: beqz x5, 1b\nli x6, 1\n2: j 2b")
    rig.program("li x5, 1\ncsrw mie, x0\nmret", RAM + 0x1000)
    rig.machine(mtvec=RAM + 0x1000, mstatus=8, mie=1 << 11, x=registers())

    def other():
        rig.core.set_irq(0, 11, True)
        while rig.hart()["x"][5] == 0:
            time.sleep(0)
        rig.core.kick()

    _thread.start_new_thread(other, ())
    assert rig.run(1 << 60) == EXIT_KICKED
    assert rig.x(5) == 1


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"priv": 2}, "priv: 2 is not one of"),
        ({"hsm": 3}, "hsm: 3 is not one of"),
        ({"mstatus": 2 << 11}, "mstatus.MPP"),
        ({"x": [0] * 31}, "x: 32 numbers"),
        ({"f": [1 << 64] * 32}, "f: 32 numbers"),
        ({"pc": -1}, "pc: -1 is not"),
        ({"nonsense": 1}, "nonsense: 1 is not"),
    ],
)
def test_hart_state_that_contradicts_is_refused_whole(fields, complaint):
    rig = Rig()
    before = rig.hart()
    with pytest.raises(ValueError, match=complaint):
        rig.core.load_hart(0, {"mscratch": 5, **fields})
    assert rig.hart() == before


@pytest.mark.parametrize(
    ("name", "value"), [("icount", -1), ("clock_ns", 1 << 64), ("turn", 1), ("turn_left", 2001)]
)
def test_shared_state_out_of_range_is_refused_whole(name, value):
    rig = Rig()
    before = rig.core.save_shared()
    with pytest.raises(ValueError, match=name):
        rig.core.load_shared({**before, name: value})
    assert rig.core.save_shared() == before


@pytest.mark.parametrize(
    "options",
    [
        {"harts": 0},
        {"harts": 9},
        {"icount_shift": 11},
        {"icount_shift": -2},
        {"ram_size": 4097},
        {"ram_size": 0},
        {"ram_base": 1},
        {"ram_addr": 0},
        {"ram_addr": 12345},
    ],
)
def test_core_with_an_argument_out_of_range_is_not_made(options):
    rig = Rig()
    good = {"ram_addr": 1 << 40, "ram_base": RAM, "ram_size": 4096, "harts": 1, "bus": rig.bus}
    with pytest.raises(ValueError, match="no core was made"):
        Core(**{**good, **options})


def test_core_that_was_never_initialized_refuses_to_run():
    with pytest.raises(RuntimeError, match="never initialized"):
        Core.__new__(Core).run(1)
