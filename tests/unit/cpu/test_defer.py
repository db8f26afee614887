"""A core that defers stops before what reaches out of it, and another one goes on as if there had been only one."""

import pytest
from hart import RAM, Rig

from instar.cpu.rv64 import EXIT_BREAK, EXIT_DEFERRED, EXIT_LIMIT

PROGRAM = """
    li s1, 0x10000000
    li s2, 0
    li s3, 50
loop:
    addi s2, s2, 3
    mul s4, s2, s2
    {access}
    add s2, s2, a0
    addi s3, s3, -1
    bnez s3, loop
end:
    j end
"""
CONSOLE = "li a7, 0x4442434E\n li a6, 2\n li a0, 65\n ecall"
ACCESSES = {
    "load": "lw a0, 8(s1)",
    "store": "sd s4, 16(s1)",
    "load of a float": "flw fa0, 4(s1)\n fmv.x.w a0, fa0",
    "store of a float": "fsw fa0, 4(s1)",
    "console call": CONSOLE,
    "legacy console call": "li a7, 1\n li a0, 66\n ecall",
    "call that the core serves": "li a7, 0x10\n li a6, 0\n li a0, 0\n ecall",
    "time": "rdtime a0",
}
LENGTH = 200


def prepared(rig, text):
    rig.program(text)
    rig.core.start_hart(0, RAM, 0, 0)
    rig.core.load_hart(0, {**rig.core.save_hart(0), "mstatus": 0x2000})
    rig.core.set_break(LENGTH)
    rig.bus.value = 7
    rig.bus.answer = (0, 5)
    return rig


def move(source, target):
    target.core.load_shared(source.core.save_shared())
    target.core.load_hart(0, source.core.save_hart(0))
    target.write(RAM, source.ram[:4096])


@pytest.mark.parametrize("access", ACCESSES)
@pytest.mark.parametrize("turn", [1, 7, 1 << 40])
def test_two_cores_that_take_turns_end_like_one(access, turn):
    text = PROGRAM.format(access=ACCESSES[access])
    alone = prepared(Rig(), text)
    assert alone.core.run(1 << 40) == EXIT_BREAK
    devices, helper = prepared(Rig(), text), prepared(Rig(defers=True), text)
    why = EXIT_LIMIT
    while why != EXIT_BREAK:
        move(devices, helper)
        why = helper.core.run(turn)
        assert helper.core.run(0) in (EXIT_LIMIT, EXIT_BREAK)
        move(helper, devices)
        if why == EXIT_DEFERRED:
            why = devices.core.run(1)
    assert helper.bus.log == helper.bus.calls == []
    assert (devices.bus.log, devices.bus.calls) == (alone.bus.log, alone.bus.calls)
    assert devices.core.save_hart(0) == alone.core.save_hart(0)
    assert devices.core.save_shared() == alone.core.save_shared()


def test_deferred_access_changes_nothing_and_is_deferred_again():
    rig = Rig(defers=True)
    rig.program("lw a0, 0(a1)")
    rig.machine(x=[0] * 11 + [0x1000_0000] + [0] * 20)
    before = rig.core.save_hart(0), rig.core.save_shared()
    assert [rig.core.run(10) for _ in range(2)] == [EXIT_DEFERRED] * 2
    assert (rig.core.save_hart(0), rig.core.save_shared()) == before
    assert rig.bus.log == []


def test_address_where_nothing_answers_is_deferred_too():
    rig = Rig(defers=True)
    rig.program("lw a0, 0(zero)")
    rig.machine()
    assert rig.core.run(10) == EXIT_DEFERRED


def test_all_harts_stand_still_where_one_is_deferred():
    rig = Rig(harts=2, defers=True)
    rig.program("lw a0, 0(zero)", RAM)
    rig.program("here: j here", RAM + 64)
    rig.machine(RAM)
    rig.machine(RAM + 64, hart=1)
    assert rig.core.run(1 << 20) == EXIT_DEFERRED
