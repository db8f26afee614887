"""A loop that runs as one operation leaves what its instructions leave one by one, wherever the run stops."""

import random
from typing import NamedTuple

import pytest
from hart import RAM, Device, Rig, registers
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.cpu.rv64.asm import assemble
from instar.cpu.rv64.gen.loops import Loop, loops
from instar.cpu.rv64.gen.operations import Operations
from instar.cpu.rv64.isa import COMPRESSED, LOOPS, WORDS

SIZE = 32 << 10
STEPS = 400  # instructions
SHIFT_COPY = """
    head: srl x14, x15, x28
    ld x15, 8(x11)
    addi x11, x11, 8
    sll x12, x15, x29
    or x12, x12, x14
    sd x12, 0(x10)
    addi x10, x10, 8
    bltu x10, x6, head
"""
BLOCK_COPY = "\n".join(
    [
        "head:",
        *(f"ld x{reg}, {8 * at}(x11)" for at, reg in enumerate((14, 15, 16, 17, 7, 12, 28, 29))),
        *(f"sd x{reg}, {8 * at}(x10)" for at, reg in enumerate((14, 15, 16, 17, 7, 12, 28, 29))),
        "addi x10, x10, 64\naddi x11, x11, 64\nbgeu x6, x10, head",
    ]
)
BLOCK_SET = "\n".join(
    [
        "head:",
        *(f"sd x11, {8 * at}(x10)" for at in range(32)),
        "addi x10, x10, 256\nbltu x10, x6, head",
    ]
)
# Like the first, but with a register that is two of the table's: no such loop.
NEARLY = SHIFT_COPY.replace("x14", "x12")
ADDRESSES = st.one_of(
    st.integers(0, 0x200).map(lambda at: RAM + 0x1F00 + 8 * at),  # over the end of a page
    st.integers(0, 24).map(lambda at: RAM + 8 * at),  # into the loop itself
    st.integers(0, 0x40).map(lambda at: RAM + SIZE - 0x100 + 8 * at),  # out of RAM
    st.integers(0, 0x1000).map(lambda at: RAM + 0x3000 + at),  # unaligned
)


def after(program, x, budgets):
    """Return hart, counts and memory after STEPS instructions, run in pieces."""
    rig = Rig(size=SIZE)
    rig.write(RAM, random.Random(1).randbytes(SIZE))
    rig.program(program + "\nend: j end")
    rig.machine(x=x)
    left = STEPS
    for budget in budgets:
        left -= min(budget, left)
        rig.run(STEPS - left - rig.core.icount)
    rig.run(STEPS - rig.core.icount)
    return rig.hart(), rig.core.icount, rig.ram[:]


@pytest.mark.parametrize(
    "program", [SHIFT_COPY, BLOCK_COPY, BLOCK_SET, NEARLY], ids=["shift", "copy", "set", "nearly"]
)
@given(
    to=ADDRESSES,
    source=ADDRESSES,
    length=st.integers(0, 0x400),
    budgets=st.lists(st.integers(1, 60), max_size=12),
)
@settings(max_examples=10, deadline=None)
def test_loop_in_one_go_leaves_what_single_steps_leave(program, to, source, length, budgets):
    x = registers(x10=to, x11=source, x6=to + length, x15=0x1122_3344_5566_7788, x28=24, x29=40)
    assert after(program, x, budgets) == after(program, x, [1] * STEPS)


# What the pages of VA are: a table entry each.
DATA, VA = RAM + 0x8000, 0x4000_0000
V, R, W, X, A, D = 1, 2, 4, 8, 64, 128
READ, WRITE = V | R | A, V | R | W | A | D
PAGES = st.sampled_from(
    [
        DATA >> 2 | WRITE,
        (DATA + 0x1000) >> 2 | WRITE,
        (DATA + 0x2000) >> 2 | WRITE,
        (DATA + 0x3000) >> 2 | READ,
        DATA >> 2 | V | R | W,  # hardware sets the other bits
        RAM >> 2 | WRITE,  # the loop itself
        Device.base >> 2 | WRITE,
        0,
    ]
)
HANDLER = """
    csrr x20, mcause
    csrr x21, mtval
    csrr x22, mepc
    csrr x23, mstatus
    add x24, x24, x20
    li x25, -1
    csrw stimecmp, x25
    addi x26, x26, 1
    li x25, 3
stay: bge x26, x25, stay
    bltz x20, back
    addi x22, x22, 4
    csrw mepc, x22
back: mret
"""


class Case(NamedTuple):
    """A loop of the supervisor under translation, with all that may end a turn of it."""

    program: str
    pages: list[int]
    to: int
    source: int
    length: int
    stimecmp: int  # of 100 ns; an instruction takes 32 ns
    closed: int  # offset in DATA that physical memory protection closes, 8 bytes

    def rig(self):
        """Return it before its first instruction."""
        rig = Rig(size=64 << 10, icount_shift=5)
        rig.write(RAM, random.Random(1).randbytes(64 << 10))
        rig.program(self.program + "\nend: j end")
        rig.program(HANDLER, RAM + 0x800)
        tables = {0x4000 + 8: RAM + 0x5000 >> 2 | V, 0x5000: RAM + 0x6000 >> 2 | V}
        tables[0x4000 + 16] = RAM >> 2 | WRITE | X
        tables |= {0x6000 + 8 * at: entry for at, entry in enumerate([*self.pages, 0])}
        for at, entry in tables.items():
            rig.put(RAM + at, entry)
        x = registers(x10=VA + self.to, x11=VA + self.source, x6=VA + self.to + self.length)
        x[15], x[28], x[29] = 0x1122_3344_5566_7788, 24, 40
        rig.core.load_hart(
            0,
            {
                "pc": RAM, "priv": 1, "hsm": 0, "wfi": 0, "x": x, "mtvec": RAM + 0x800,
                "satp": 8 << 60 | (RAM + 0x4000) >> 12, "mie": 1 << 5, "menvcfg": 1 << 63 | 1 << 61,
                "stimecmp": self.stimecmp, "pmpcfg": [0x1F18, 0],
                "pmpaddr": [(DATA + self.closed) >> 2, (1 << 54) - 1] + [0] * 14,
            },
        )  # fmt: skip
        return rig

    def outcome(self, stops):
        """Return everything after STEPS instructions, stopped after each of these counts."""
        rig = self.rig()
        for stop in sorted({*stops, STEPS}):
            rig.core.set_break(stop)
            rig.run()
        return rig.hart(), rig.core.save_shared(), rig.ram[:], rig.bus.log


PLACES = st.one_of(st.integers(0, 0x7FF).map(lambda at: 8 * at), st.integers(0xE00, 0x1200))


@pytest.mark.parametrize(
    "program", [SHIFT_COPY, BLOCK_COPY, BLOCK_SET], ids=["shift", "copy", "set"]
)
@given(data=st.data())
@settings(max_examples=10, deadline=None)
def test_loop_that_traps_leaves_what_single_steps_leave(program, data):
    case = Case(
        program,
        pages=data.draw(st.lists(PAGES, min_size=4, max_size=4), "pages"),
        to=data.draw(PLACES, "to"),
        source=data.draw(PLACES, "source"),
        length=data.draw(st.integers(0, 0x1000), "length"),
        stimecmp=data.draw(st.integers(0, 2 * STEPS // 3), "stimecmp"),
        closed=8 * data.draw(st.integers(0, 0x3FF), "closed"),
    )
    stops = data.draw(st.lists(st.integers(1, STEPS), max_size=6), "stops")
    assert case.outcome(stops) == case.outcome(range(1, STEPS))


def test_loop_whose_body_a_program_changes_runs_changed():
    """The second time the target moves on by 16 bytes a turn, so half as many words are copied."""
    rig = Rig(size=SIZE)
    made = rig.program(f"""
        li x5, 2
    again:
        li x10, {RAM + 0x2000}
        li x6, {RAM + 0x2100}
        {SHIFT_COPY}
        la x8, head
        sw x9, 24(x8)
        addi x5, x5, -1
        bnez x5, again
    end: j end
    """)
    wide = int.from_bytes(assemble("addi x10, x10, 16", RAM).image, "little")
    rig.machine(x=registers(x9=wide, x11=RAM + 0x3000))
    rig.run(2000)
    assert rig.hart()["pc"] == made["end"]
    assert rig.x(11) == RAM + 0x3000 + 0x100 + 0x80


def operations():
    return Operations(WORDS, COMPRESSED, LOOPS)


def test_loops_are_all_looked_for():
    source = loops(operations())
    assert all(f"OP_LOOP_{name.upper()}" in source for name in LOOPS)


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (("jal A - -", "bltu - A B"), "jal cannot be part"),
        (("addi A A -", "ld B A -", "bltu - A B"), "depends on the same turn"),
        (("addi A A -", "addi B B -"), "does not end with a branch"),
    ],
)
def test_loop_that_cannot_be_made_is_refused(lines, why):
    with pytest.raises(ValueError, match=why):
        Loop("wrong", lines, operations())
