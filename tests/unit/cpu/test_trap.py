"""Traps, interrupts, control and status registers."""

import pytest
from hart import MASK, RAM, Device, Rig, registers

VECTOR = RAM + 0x1000
MIE, SIE, TW, TVM, TSR = 1 << 3, 1 << 1, 1 << 21, 1 << 20, 1 << 22
ALL_MEMORY = {"pmpcfg": [0x1F, 0], "pmpaddr": [(1 << 54) - 1] + [0] * 15}
TIMER_ENABLE = 1 << 63


@pytest.fixture
def rig():
    rig = Rig()
    rig.program("wfi", VECTOR)
    return rig


def run(rig, text, *, steps=20, **fields):
    rig.program(text)
    rig.machine(**{"mtvec": VECTOR, **ALL_MEMORY, **fields})
    rig.run(steps)
    return rig.hart()


def test_ecall_enters_machine_mode_with_status_saved(rig):
    hart = run(rig, "ecall", steps=1, priv=0, mstatus=MIE)
    assert (hart["pc"], hart["priv"], hart["mcause"], hart["mepc"]) == (VECTOR, 3, 8, RAM)
    assert hart["mstatus"] & 0x1888 == 0x80  # MPP user, MPIE set, MIE clear


def test_delegated_exception_enters_supervisor_mode(rig):
    hart = run(rig, "ebreak", steps=1, priv=0, medeleg=1 << 3, stvec=VECTOR, mstatus=SIE)
    assert (hart["priv"], hart["scause"], hart["sepc"], hart["stval"]) == (1, 3, RAM, RAM)
    assert hart["mstatus"] & 0x122 == 0x20  # SPP user, SPIE set, SIE clear


def test_machine_mode_exception_is_never_delegated(rig):
    hart = run(rig, "ebreak", steps=1, medeleg=1 << 3, stvec=RAM)
    assert (hart["priv"], hart["mcause"]) == (3, 3)


def test_mret_goes_back_where_status_says(rig):
    hart = run(rig, "mret", steps=1, mepc=VECTOR, mstatus=1 << 11 | 0x80 | 1 << 17)
    assert (hart["pc"], hart["priv"], hart["mstatus"] & 0x21888) == (VECTOR, 1, 0x88)


def test_sret_goes_back_where_status_says(rig):
    hart = run(rig, "sret", steps=1, priv=1, sepc=VECTOR, mstatus=0x100 | 0x20)
    assert (hart["pc"], hart["priv"], hart["mstatus"] & 0x122) == (VECTOR, 1, 0x22)


@pytest.mark.parametrize(
    ("text", "priv", "mstatus"),
    [
        ("mret", 1, 0),
        ("sret", 0, 0),
        ("sret", 1, TSR),
        ("wfi", 0, 0),
        ("wfi", 1, TW),
        ("sfence.vma x0, x0", 0, 0),
        ("sfence.vma x0, x0", 1, TVM),
        ("csrr x5, satp", 1, TVM),
        ("csrr x5, mstatus", 1, 0),
        ("csrw cycle, x0", 3, 0),
        ("csrr x5, cycle", 1, 0),
        ("csrr x5, stimecmp", 1, 0),
        ("csrr x5, fcsr", 3, 0),
        ("fadd.d f0, f0, f0", 3, 0),
        ("fld f0, 0(x6)", 3, 0),
    ],
)
def test_instruction_above_its_privilege_is_illegal(rig, text, priv, mstatus):
    hart = run(rig, text, steps=1, priv=priv, mstatus=mstatus)
    assert (hart["mcause"], hart["mepc"]) == (2, RAM)
    assert hart["mtval"] == rig.read(RAM, 4)


def test_csr_that_does_not_exist_is_illegal(rig):
    rig.put(RAM, 0x7FF022F3, 4)  # csrr x5, 0x7ff
    rig.machine(mtvec=VECTOR)
    rig.run(1)
    assert rig.hart()["mcause"] == 2


@pytest.mark.parametrize(
    ("name", "written", "read"),
    [
        ("mtvec", MASK, MASK - 2),
        ("mepc", MASK, MASK - 1),
        ("medeleg", MASK, 0xB3FF),
        ("mideleg", MASK, 0x222),
        ("mie", MASK, 0xAAA),
        ("satp", 8 << 60 | 0xFFFF << 44 | 5, 8 << 60 | 5),
        ("satp", 9 << 60 | 5, 0),
        ("menvcfg", MASK, TIMER_ENABLE | 1),
        ("misa", 0, 2 << 62 | 0x14112D),
        ("mhartid", 0, 0),
        ("mscratch", MASK, MASK),
    ],
)
def test_csr_keeps_the_bits_it_has(rig, name, written, read):
    instruction = f"csrw {name}, x6" if name != "mhartid" else "nop"
    hart = run(rig, f"{instruction}\ncsrr x5, {name}\nwfi", x=registers(x6=written))
    assert hart["x"][5] == read


def test_csr_set_and_clear_with_register_zero_do_not_write(rig):
    hart = run(rig, "csrrs x5, cycle, x0\ncsrrc x7, mhartid, x0\nwfi")
    assert hart["mcause"] == 0


def test_counter_written_is_read_by_the_next_instruction(rig):
    hart = run(rig, "csrw minstret, x6\ncsrr x5, minstret\nwfi", x=registers(x6=100))
    assert hart["x"][5] == 100


def test_counters_count_retired_instructions(rig):
    hart = run(rig, "nop\nnop\ncsrr x5, minstret\nebreak", steps=4)
    assert (hart["x"][5], hart["minstret"], hart["mcycle"]) == (2, 3, 4)


def test_status_read_by_supervisor_shows_its_part(rig):
    hart = run(rig, "csrr x5, sstatus\nwfi", priv=1, mstatus=MIE | SIE | 0x6000)
    assert hart["x"][5] == 1 << 63 | 2 << 32 | 0x6000 | SIE


@pytest.mark.parametrize(
    ("priv", "mstatus", "mideleg", "taken"),
    [
        (3, 0, 0, False),
        (3, MIE, 0, True),
        (1, 0, 0, True),
        (3, MIE, 0x222, False),
        (1, 0, 0x222, False),
        (1, SIE, 0x222, True),
        (0, 0, 0x222, True),
    ],
)
def test_interrupt_is_taken_as_privilege_and_status_say(rig, priv, mstatus, mideleg, taken):
    rig.core.set_irq(0, 9, True)
    fields = {"priv": priv, "mstatus": mstatus, "mideleg": mideleg, "mie": 1 << 9}
    hart = run(rig, "nop\nnop", steps=1, stvec=VECTOR, **fields)
    assert (hart["pc"] == VECTOR + 4 or hart["wfi"] == 1) == taken


def test_interrupts_are_taken_in_order_of_importance(rig):
    rig.core.set_irq(0, 9, True)
    rig.core.set_irq(0, 11, True)
    hart = run(rig, "nop", steps=1, mstatus=MIE, mie=0xAAA, mip=2)
    assert hart["mcause"] == 1 << 63 | 11
    rig.core.set_irq(0, 11, False)
    assert run(rig, "nop", steps=1, mstatus=MIE, mie=0xAAA, mip=2)["mcause"] == 1 << 63 | 9
    rig.core.set_irq(0, 9, False)
    assert run(rig, "nop", steps=1, mstatus=MIE, mie=0xAAA, mip=2)["mcause"] == 1 << 63 | 1


def test_vectored_interrupt_goes_to_its_own_place(rig):
    rig.core.set_irq(0, 11, True)
    rig.program("wfi", VECTOR + 44)
    hart = run(rig, "nop", steps=1, mtvec=VECTOR | 1, mstatus=MIE, mie=1 << 11)
    assert hart["pc"] == VECTOR + 48


def test_external_line_shows_in_mip_but_is_not_set_by_software(rig):
    rig.core.set_irq(0, 9, True)
    hart = run(rig, "csrrs x5, mip, x6\nwfi", x=registers(x6=2))
    assert (hart["x"][5], hart["mip"]) == (1 << 9, 2)


def test_timer_shows_in_mip_from_its_instruction_on(rig):
    # One instruction is one nanosecond, one tick 100 of them.
    text = "csrr x5, mip\n" + "nop\n" * 98 + "csrr x6, mip\ncsrr x7, mip\nwfi"
    hart = run(rig, text, steps=300, stimecmp=1, menvcfg=TIMER_ENABLE)
    assert (hart["x"][5], hart["x"][6], hart["x"][7]) == (0, 0, 0x20)


@pytest.mark.parametrize(("hart", "bit"), [(1, 9), (-1, 9), (0, 8), (0, 64), (0, -1)])
def test_line_that_does_not_exist_is_refused(rig, hart, bit):
    with pytest.raises(ValueError, match="nothing was changed"):
        rig.core.set_irq(hart, bit, True)


def test_device_access_has_size_and_masked_value():
    device = Device()
    rig = Rig(bus=device)
    device.value = 0x1FF
    base = device.base
    rig.program("lbu x5, 1(x6)\nsh x7, 2(x6)\nsd x7, 8(x6)\nwfi")
    rig.machine(x=registers(x6=base, x7=MASK))
    rig.run(10)
    assert rig.x(5) == 0xFF
    assert device.log == [
        ("read", base + 1, 1),
        ("write", base + 2, 2, 0xFFFF),
        ("write", base + 8, 8, MASK),
    ]


@pytest.mark.parametrize(
    ("text", "cause"),
    [("ld x5, 0(x6)", 5), ("sd x5, 0(x6)", 7), ("jr x6", 1), ("lw x5, 1(x6)", 5)],
)
def test_access_where_nothing_answers_is_an_access_fault(rig, text, cause):
    hart = run(rig, text, steps=2, x=registers(x6=0x2000))
    assert hart["mcause"] == cause
    assert hart["mtval"] in {0x2000, 0x2001}


def test_interrupt_raised_by_a_device_is_taken_after_the_access():
    device = Device()
    rig = Rig(bus=device)
    rig.program("wfi", VECTOR)
    device.on_access = lambda: rig.core.set_irq(0, 11, True)
    x = registers(x6=device.base)
    hart = run(rig, "ld x5, 0(x6)\nnop\nnop", steps=2, x=x, mie=1 << 11, mstatus=MIE)
    assert (hart["mcause"], hart["mepc"]) == (1 << 63 | 11, RAM + 4)


def test_bus_that_raises_ends_the_run_with_its_error():
    device = Device()
    rig = Rig(bus=device)

    def fail():
        raise RuntimeError("our own fault")

    device.on_access = fail
    rig.program("ld x5, 0(x6)")
    rig.machine(x=registers(x6=device.base), mtvec=VECTOR)
    with pytest.raises(RuntimeError, match="our own fault"):
        rig.run(10)
    assert rig.hart()["mcause"] == 5


def test_core_that_runs_refuses_to_be_changed():
    device = Device()
    rig = Rig(bus=device)
    refused = []

    def change():
        for call in (rig.core.reset, lambda: rig.core.load_hart(0, {}), lambda: rig.core.run(1)):
            with pytest.raises(RuntimeError, match="is running"):
                call()
            refused.append(call)

    device.on_access = change
    rig.program("ld x5, 0(x6)\nwfi")
    rig.machine(x=registers(x6=device.base))
    rig.run(10)
    assert len(refused) == 3


def test_watched_doubleword_ends_the_run(rig):
    rig.core.set_watch(VECTOR + 0x100)
    rig.program("sw x0, 0(x6)\nsw x7, 4(x6)\nnop\nwfi")
    rig.machine(x=registers(x6=VECTOR + 0x100, x7=1))
    assert rig.run(100) == 4
    assert rig.hart()["pc"] == RAM + 8
