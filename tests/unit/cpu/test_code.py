"""Decoded code is what memory holds."""

import pytest
from hart import RAM, Device, Rig, registers

from instar.cpu.rv64 import EXIT_IDLE
from instar.cpu.rv64.asm import assemble

LI_1 = assemble("li x5, 1", RAM).image
LI_2 = assemble("li x5, 2", RAM).image


def word(text):
    return int.from_bytes(assemble(text, RAM).image, "little")


@pytest.mark.parametrize("fence", ["nop", "fence.i"])
def test_code_that_a_program_changes_is_executed_changed(fence):
    rig = Rig()
    rig.program(f"""
        la x8, here
        call here
        mv x10, x5
        sw x7, 0(x8)
        {fence}
        call here
        wfi
    here:
        li x5, 1
        ret
    """)
    rig.machine(x=registers(x7=word("li x5, 2")))
    assert rig.run() == EXIT_IDLE
    assert (rig.x(10), rig.x(5)) == (1, 2)


def test_instruction_that_changes_itself_goes_on_after_it():
    rig = Rig()
    rig.program("la x8, here\nhere: sw x7, 0(x8)\naddi x5, x5, 1\nwfi")
    rig.machine(x=registers(x7=word("nop")))
    assert rig.run(10) == EXIT_IDLE
    assert rig.x(5) == 1


def test_half_of_an_instruction_changed_before_its_page_is_seen():
    """The store is to the second half only, which another decoded entry begins before."""
    rig = Rig()
    rig.program("""
        la x8, here
        call here
        mv x10, x5
        sh x7, 2(x8)
        call here
        wfi
    here:
        li x5, 1
        ret
    """)
    rig.machine(x=registers(x7=word("li x5, 2") >> 16))
    rig.run()
    assert (rig.x(10), rig.x(5)) == (1, 2)


def test_page_that_is_stored_to_all_the_time_is_dropped_and_decoded_again():
    rig = Rig()
    rig.program("""
        li x9, 1000
    again:
        sd x9, 256(x6)
        addi x9, x9, -1
        bnez x9, again
        sw x7, 512(x6)
        jalr x1, 512(x6)
        wfi
    """)
    rig.write(RAM + 516, assemble("ret", RAM).image)
    rig.machine(x=registers(x6=RAM, x7=word("li x5, 2")))
    assert rig.run() == EXIT_IDLE
    assert rig.x(5) == 2
    assert rig.core.stats()["code_page_drop"] >= 1


def test_code_written_by_a_device_is_seen_after_the_access():
    device = Device()
    rig = Rig(bus=device)
    symbols = rig.program("""
        call here
        mv x10, x5
        ld x9, 0(x6)
        call here
        wfi
    here:
        li x5, 1
        ret
    """)
    device.on_access = lambda: rig.write(symbols["here"], LI_2)
    rig.machine(x=registers(x6=device.base))
    rig.run()
    assert (rig.x(10), rig.x(5)) == (1, 2)


@pytest.mark.parametrize("changed", [0xFFE, 0x1000])
def test_instruction_across_pages_follows_changes_of_both_halves(changed):
    rig = Rig()
    rig.write(RAM + 0xFFE, LI_1 + assemble("ret", RAM).image)
    new = LI_2[:2] if changed == 0xFFE else LI_2[2:]
    rig.program("""
        jalr x1, 0(x6)
        mv x10, x5
        sh x7, 0(x8)
        sh x11, 0(x9)
        jalr x1, 0(x6)
        wfi
    """)
    rig.machine(
        x=registers(
            x6=RAM + 0xFFE,
            x7=int.from_bytes(LI_2[:2], "little"),
            x8=RAM + 0xFFE,
            x11=int.from_bytes(LI_2[2:], "little"),
            x9=RAM + 0x1000,
        )
    )
    rig.run()
    assert (rig.x(10), rig.x(5), len(new)) == (1, 2, 2)


def test_more_code_than_the_cache_holds_is_still_executed():
    """A page of code in each of 4200 pages: each adds one and goes to the next."""
    pages = 4200
    rig = Rig(size=(pages + 2) * 0x1000)
    step = assemble("addi x5, x5, 1\nlui x6, 1\nadd x7, x7, x6\njr x7", RAM).image
    for n in range(pages):
        rig.ram[n * 0x1000 : n * 0x1000 + len(step)] = step
    rig.program("wfi", RAM + pages * 0x1000)
    rig.machine(x=registers(x7=RAM))
    assert rig.run() == EXIT_IDLE
    assert rig.x(5) == pages


def test_written_range_outside_of_ram_is_ignored():
    rig = Rig()
    rig.core.dma_written(0, 1 << 63)
    rig.core.dma_written(RAM - 10, 5)
    rig.core.dma_written((1 << 64) - 1, 10)
    rig.core.dma_written(RAM, 0)
    rig.machine()
    assert rig.run(0) == 0
