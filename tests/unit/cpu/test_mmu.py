"""Address translation, its caches, and physical memory protection."""

import pytest
from hart import MASK, RAM, Rig, registers

R, W, X, U, A, D = 2, 4, 8, 16, 64, 128
V = 1
TABLES = RAM + 0x100000  # root; then one table for each level below
DATA = RAM + 0x200000
HANDLER = RAM + 0x800
VA = 0x40000000  # root entry 1
SUM, MXR, MPRV = 1 << 18, 1 << 19, 1 << 17
ALL_MEMORY = {"pmpcfg": [0x1F, 0], "pmpaddr": [(1 << 54) - 1] + [0] * 15}


@pytest.fixture
def rig():
    return Rig()


def entry(pa, flags):
    return pa >> 12 << 10 | flags


def map_small(rig, pa, flags, va=VA):
    """Map one 4 KiB page at va, which lies in root entry 1."""
    rig.put(TABLES + 8 * (va >> 30 & 511), entry(TABLES + 0x1000, V))
    rig.put(TABLES + 0x1000 + 8 * (va >> 21 & 511), entry(TABLES + 0x2000, V))
    rig.put(TABLES + 0x2000 + 8 * (va >> 12 & 511), entry(pa, flags | V))


def map_code(rig):
    """Map RAM for the program itself as a gigapage, at its own address."""
    rig.put(TABLES + 8 * (RAM >> 30), entry(RAM, V | R | W | X | A | D))


def enter(rig, text, *, priv=1, x=None, mstatus=0, **fields):
    """Run a program under translation; exceptions go to machine mode, which stops at HANDLER."""
    map_code(rig)
    rig.program(text)
    rig.program("wfi", HANDLER)
    rig.core.load_hart(
        0,
        {
            "pc": RAM,
            "priv": priv,
            "hsm": 0,
            "wfi": 0,
            "satp": 8 << 60 | TABLES >> 12,
            "mtvec": HANDLER,
            "mstatus": mstatus,
            "x": x or registers(x6=VA),
            **ALL_MEMORY,
            **fields,
        },
    )


def run(rig, text, **options):
    enter(rig, text, **options)
    rig.run(50)
    return rig.hart()


def test_small_page_is_loaded_from(rig):
    map_small(rig, DATA, R | A)
    rig.put(DATA + 8, 77)
    assert run(rig, "ld x5, 8(x6)\nwfi")["x"][5] == 77


def test_load_sets_accessed_and_store_sets_dirty(rig):
    map_small(rig, DATA, R | W)
    run(rig, "ld x5, 0(x6)\nwfi")
    assert rig.read(TABLES + 0x2000, 8) & (A | D) == A
    run(rig, "sd x5, 0(x6)\nwfi")
    assert rig.read(TABLES + 0x2000, 8) & (A | D) == A | D


@pytest.mark.parametrize(
    ("flags", "text", "cause"),
    [
        (X, "ld x5, 0(x6)", 13),
        (R, "sd x5, 0(x6)", 15),
        (R | W, "jalr x0, 0(x6)", 12),
        (R | U, "ld x5, 0(x6)", 13),
        (W, "ld x5, 0(x6)", 13),
        (R | 1 << 54, "ld x5, 0(x6)", 13),
        (0, "ld x5, 0(x6)", 13),
    ],
)
def test_access_without_permission_is_a_page_fault(rig, flags, text, cause):
    map_small(rig, DATA, flags | A | D)
    hart = run(rig, text)
    assert (hart["mcause"], hart["mtval"]) == (cause, VA)


def test_user_page_is_readable_with_sum(rig):
    map_small(rig, DATA, R | U | A)
    rig.put(DATA, 5)
    assert run(rig, "ld x5, 0(x6)\nwfi", mstatus=SUM)["x"][5] == 5


def test_executable_page_is_readable_with_mxr(rig):
    map_small(rig, DATA, X | A)
    rig.put(DATA, 5)
    assert run(rig, "ld x5, 0(x6)\nwfi", mstatus=MXR)["x"][5] == 5


def test_supervisor_page_is_closed_to_users(rig):
    map_small(rig, DATA, R | W | X | A | D)
    hart = run(rig, "nop", priv=0)
    assert (hart["mcause"], hart["mtval"]) == (12, RAM)


def test_machine_mode_uses_translation_with_mprv(rig):
    map_small(rig, DATA, R | A)
    rig.put(DATA, 6)
    hart = run(rig, "ld x5, 0(x6)\nwfi", priv=3, mstatus=MPRV | 1 << 11)
    assert hart["x"][5] == 6


@pytest.mark.parametrize("va", [1 << 38, 0xFFFFFF8000000000 - 8, 0x8000000000])
def test_address_that_is_not_canonical_is_a_page_fault(rig, va):
    hart = run(rig, "ld x5, 0(x6)", x=registers(x6=va))
    assert (hart["mcause"], hart["mtval"]) == (13, va)


def test_misaligned_superpage_is_a_page_fault(rig):
    rig.put(TABLES + 8, entry(TABLES + 0x1000, V))
    rig.put(TABLES + 0x1000, entry(DATA + 0x1000, V | R | A))
    assert run(rig, "ld x5, 0(x6)")["mcause"] == 13


def test_table_outside_of_ram_is_an_access_fault(rig):
    rig.put(TABLES + 8, entry(0x1000, V))
    hart = run(rig, "ld x5, 0(x6)")
    assert (hart["mcause"], hart["mtval"]) == (5, VA)


def test_translate_shows_the_mapping_without_effect(rig):
    map_small(rig, DATA, R)
    enter(rig, "nop")
    assert rig.core.translate(0, VA + 0x123) == DATA + 0x123
    assert rig.core.translate(0, VA + 0x1000) == -1
    assert rig.core.translate(0, RAM + 0x55) == RAM + 0x55
    assert rig.read(TABLES + 0x2000, 8) & A == 0


def test_fence_of_one_address_drops_a_whole_superpage(rig):
    """A fence for any address of a 2 MiB page drops what is cached of all its parts."""
    rig.put(TABLES + 8, entry(TABLES + 0x1000, V))
    rig.put(TABLES + 0x1000, entry(RAM + 0x200000, V | R | W | A | D))
    rig.put(RAM + 0x200000 + 0x5000, 1)
    rig.put(RAM + 0x5000, 2)
    new = entry(RAM, V | R | W | A | D)
    hart = run(
        rig,
        "ld x5, 0(x6)\nsd x7, 0(x8)\nsfence.vma x9, x0\nld x10, 0(x6)\nwfi",
        x=registers(x6=VA + 0x5000, x7=new, x8=TABLES + 0x1000, x9=VA + 0x1000),
    )
    assert (hart["x"][5], hart["x"][10]) == (1, 2)


@pytest.mark.parametrize("fence", ["sfence.vma x6, x0", "sfence.vma x0, x0", "csrw satp, x12"])
@pytest.mark.parametrize("flush_everything", [False, True])
def test_changed_mapping_is_seen_after_a_fence(fence, flush_everything):
    rig = Rig(flush_everything=flush_everything)
    map_small(rig, DATA, R | W | A | D)
    rig.put(DATA, 1)
    rig.put(DATA + 0x1000, 2)
    new = entry(DATA + 0x1000, V | R | W | A | D)
    x = registers(x6=VA, x7=new, x8=TABLES + 0x2000, x12=8 << 60 | TABLES >> 12)
    hart = run(rig, f"ld x5, 0(x6)\nsd x7, 0(x8)\n{fence}\nld x10, 0(x6)\nwfi", x=x)
    assert (hart["x"][5], hart["x"][10]) == (1, 2)


def test_instruction_across_two_pages_uses_both_mappings(rig):
    """The halves are in pages that are neighbours only virtually; remapping the second one is seen."""
    map_small(rig, DATA, R | X | A, VA)
    map_small(rig, DATA + 0x3000, R | X | A, VA + 0x1000)
    first, second = 0x00500293, 0x00700293  # li x5, 5; li x5, 7: they differ in the upper half
    rig.put(DATA + 0xFFE, first & 0xFFFF, 2)
    rig.put(DATA + 0x3000, first >> 16, 2)
    rig.put(DATA + 0x5000, second >> 16, 2)
    back = 0x000E0067  # jr x28
    rig.put(DATA + 0x3002, back, 4)
    rig.put(DATA + 0x5002, back, 4)
    x = registers(
        x6=VA + 0xFFE, x7=entry(DATA + 0x5000, V | R | X | A), x8=TABLES + 0x2008, x9=VA + 0x1000
    )
    text = f"""
        li x28, {RAM + 0x40}
        jr x6
        .align 6
        mv x10, x5
        sd x7, 0(x8)
        sfence.vma x9, x0
        la x28, done
        jr x6
    done: wfi
    """
    hart = run(rig, text, x=x)
    assert (hart["x"][10], hart["x"][5]) == (5, 7)


def protect(rig, text, *, priv, config, address, **options):
    return run(
        rig,
        text,
        priv=priv,
        satp=0,
        pmpcfg=[config, 0],
        pmpaddr=[*address, *[0] * (16 - len(address))],
        **options,
    )


def test_protection_without_entries_closes_memory_to_supervisor(rig):
    hart = protect(rig, "nop", priv=1, config=0, address=[])
    assert (hart["mcause"], hart["mtval"]) == (1, RAM)


def test_protection_range_closes_a_page_for_stores(rig):
    # Entry 0: read-only up to DATA + 0x1000 from DATA, entry 1: everything.
    config = 0x1F << 16 | 0x09 << 8
    address = [DATA >> 2, (DATA + 0x1000) >> 2, (1 << 54) - 1]
    rig.put(DATA, 4)
    text = "ld x5, 0(x6)\nsd x5, 0(x7)\nsd x5, 0(x6)\nwfi"
    x = registers(x6=DATA, x7=DATA + 0x1000)
    hart = protect(rig, text, priv=1, config=config, address=address, x=x)
    assert (hart["x"][5], hart["mcause"], hart["mtval"]) == (4, 7, DATA)
    assert rig.read(DATA + 0x1000, 8) == 4


def test_protection_locked_entry_binds_machine_mode_and_stays(rig):
    config = 0x99  # locked, power of two, read
    text = "csrw pmpcfg0, x0\ncsrw pmpaddr0, x0\nld x5, 0(x6)\nsd x5, 0(x6)"
    x = registers(x6=DATA)
    hart = protect(rig, text, priv=3, config=config, address=[DATA >> 2 | 0x1FF], x=x)
    assert (hart["mcause"], hart["mtval"], hart["pmpcfg"][0]) == (7, DATA, config)


def test_protection_address_shows_the_grain(rig):
    text = "csrw pmpaddr0, x6\ncsrr x5, pmpaddr0\ncsrw pmpcfg0, x7\ncsrr x8, pmpaddr0\nwfi"
    hart = run(rig, text, priv=3, pmpcfg=[0, 0], x=registers(x6=MASK, x7=0x18))
    assert hart["x"][5] == (1 << 54) - 1 & ~0x3FF
    assert hart["x"][8] == (1 << 54) - 1


def test_protection_reserved_configurations_are_dropped(rig):
    text = "csrw pmpcfg0, x6\ncsrr x5, pmpcfg0\nwfi"
    hart = run(rig, text, priv=3, x=registers(x6=0x12 << 8 | 0x1A))
    assert hart["x"][5] == 0x18  # write without read, four-byte range
