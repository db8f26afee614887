"""A loop that runs as one operation leaves what its instructions leave one by one, wherever the run stops."""

import random

import pytest
from hart import RAM, Rig, registers
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
