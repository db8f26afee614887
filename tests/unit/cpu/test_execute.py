"""Single instructions against small reference functions."""

from functools import cache

import pytest
from hart import MASK, RAM, Rig, registers, signed
from hypothesis import example, given, settings
from hypothesis import strategies as st

from instar.cpu.rv64.asm import assemble

WORD = st.one_of(
    st.integers(0, MASK),
    st.sampled_from(
        [0, 1, 2, MASK, MASK - 1, 1 << 63, (1 << 63) - 1, 1 << 31, (1 << 31) - 1, 1 << 32]
    ),
)
IMMEDIATE = st.integers(-2048, 2047)
DATA = RAM + 0x10000
A, B = 6, 7  # operands in x6 and x7, results in x5


def narrow(value):
    return signed(value, 32)


def divide(a, b):
    """Round towards zero; by zero all ones."""
    return -1 if b == 0 else abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def remainder(a, b):
    return a if b == 0 else a - b * divide(a, b)


BINARY = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "sll": lambda a, b: a << (b & 63),
    "slt": lambda a, b: signed(a) < signed(b),
    "sltu": lambda a, b: a < b,
    "xor": lambda a, b: a ^ b,
    "srl": lambda a, b: a >> (b & 63),
    "sra": lambda a, b: signed(a) >> (b & 63),
    "or": lambda a, b: a | b,
    "and": lambda a, b: a & b,
    "addw": lambda a, b: narrow(a + b),
    "subw": lambda a, b: narrow(a - b),
    "sllw": lambda a, b: narrow(a << (b & 31)),
    "srlw": lambda a, b: narrow((a & 0xFFFFFFFF) >> (b & 31)),
    "sraw": lambda a, b: narrow(a) >> (b & 31),
    "mul": lambda a, b: a * b,
    "mulh": lambda a, b: signed(a) * signed(b) >> 64,
    "mulhsu": lambda a, b: signed(a) * b >> 64,
    "mulhu": lambda a, b: a * b >> 64,
    "div": lambda a, b: divide(signed(a), signed(b)),
    "divu": divide,
    "rem": lambda a, b: remainder(signed(a), signed(b)),
    "remu": remainder,
    "mulw": lambda a, b: narrow(a * b),
    "divw": lambda a, b: narrow(divide(narrow(a), narrow(b))),
    "divuw": lambda a, b: narrow(divide(a & 0xFFFFFFFF, b & 0xFFFFFFFF)),
    "remw": lambda a, b: narrow(remainder(narrow(a), narrow(b))),
    "remuw": lambda a, b: narrow(remainder(a & 0xFFFFFFFF, b & 0xFFFFFFFF)),
}
IMMEDIATES = {
    "addi": BINARY["add"],
    "slti": BINARY["slt"],
    "sltiu": BINARY["sltu"],
    "xori": BINARY["xor"],
    "ori": BINARY["or"],
    "andi": BINARY["and"],
    "addiw": BINARY["addw"],
}
SHIFTS = {
    "slli": BINARY["sll"],
    "srli": BINARY["srl"],
    "srai": BINARY["sra"],
}
BRANCHES = {
    "beq": lambda a, b: a == b,
    "bne": lambda a, b: a != b,
    "blt": lambda a, b: signed(a) < signed(b),
    "bge": lambda a, b: signed(a) >= signed(b),
    "bltu": lambda a, b: a < b,
    "bgeu": lambda a, b: a >= b,
}
LOADS = {"lb": (1, True), "lh": (2, True), "lw": (4, True), "ld": (8, False)}
LOADS |= {"lbu": (1, False), "lhu": (2, False), "lwu": (4, False)}
STORES = {"sb": 1, "sh": 2, "sw": 4, "sd": 8}
ATOMICS = {
    "amoswap": lambda _old, b: b,
    "amoadd": lambda old, b: old + b,
    "amoxor": lambda old, b: old ^ b,
    "amoand": lambda old, b: old & b,
    "amoor": lambda old, b: old | b,
    "amomin": min,
    "amomax": max,
}


@pytest.fixture(scope="module")
def rig():
    return Rig()


@cache
def code_of(text):
    return assemble(text, RAM).image


def execute(rig, text, x):
    """Execute one instruction at the start of RAM."""
    code = code_of(text)
    return rig.one(int.from_bytes(code, "little"), x, len(code))


@pytest.mark.parametrize("name", BINARY)
def test_register_operation_matches_reference(rig, name):
    @settings(max_examples=15, deadline=None)
    @given(WORD, WORD)
    @example(1 << 63, MASK)
    @example(0x80000000, 0xFFFFFFFF)
    @example(5, 0)
    def check(a, b):
        hart = execute(rig, f"{name} x5, x6, x7", registers(x6=a, x7=b))
        assert hart["x"][5] == BINARY[name](a, b) & MASK
        assert hart["pc"] == RAM + 4

    check()


@pytest.mark.parametrize("name", IMMEDIATES)
def test_immediate_operation_matches_reference(rig, name):
    @settings(max_examples=15, deadline=None)
    @given(WORD, IMMEDIATE)
    @example(7, 0)
    def check(a, imm):
        hart = execute(rig, f"{name} x5, x6, {imm}", registers(x6=a))
        assert hart["x"][5] == IMMEDIATES[name](a, imm & MASK) & MASK

    check()


@pytest.mark.parametrize("name", SHIFTS)
def test_shift_by_immediate_matches_reference(rig, name):
    @settings(max_examples=15, deadline=None)
    @given(WORD, st.integers(0, 63))
    def check(a, shift):
        hart = execute(rig, f"{name} x5, x6, {shift}", registers(x6=a))
        assert hart["x"][5] == SHIFTS[name](a, shift) & MASK

    check()


@settings(max_examples=15, deadline=None)
@given(WORD, st.integers(0, 31), st.sampled_from(["sll", "srl", "sra"]))
def test_narrow_shift_by_immediate_matches_reference(rig, a, shift, name):
    hart = execute(rig, f"{name}iw x5, x6, {shift}", registers(x6=a))
    assert hart["x"][5] == BINARY[f"{name}w"](a, shift) & MASK


@pytest.mark.parametrize("name", BRANCHES)
def test_branch_goes_where_reference_says(rig, name):
    @settings(max_examples=15, deadline=None)
    @given(WORD, WORD, st.integers(-2048, 2047).map(lambda n: 2 * n))
    @example(3, 3, 8)
    @example(3, 3, -8)
    def check(a, b, offset):
        code = int.from_bytes(
            assemble(f"{name} x6, x7, {offset}+here\n.equ here, {RAM}", RAM).image, "little"
        )
        hart = rig.one(code, registers(x6=a, x7=b))
        assert hart["pc"] == RAM + (offset if BRANCHES[name](a, b) else 4)

    check()


@pytest.mark.parametrize("name", LOADS)
@settings(max_examples=15, deadline=None)
@given(value=WORD, offset=IMMEDIATE)
@example(value=0x8081828384858687, offset=0)
@example(value=0x8081828384858687, offset=-3)
def test_load_extends_as_its_name_says(rig, name, value, offset):
    size, is_signed = LOADS[name]
    rig.put(DATA, value)
    hart = execute(rig, f"{name} x5, {offset}(x6)", registers(x6=DATA - offset))
    wanted = value & ((1 << 8 * size) - 1)
    assert hart["x"][5] == (signed(wanted, 8 * size) & MASK if is_signed else wanted)


@pytest.mark.parametrize("name", STORES)
@settings(max_examples=15, deadline=None)
@given(value=WORD, at=st.integers(0, 8))
def test_store_changes_its_bytes_only(rig, name, value, at):
    size = STORES[name]
    before = bytes(range(24))
    rig.write(DATA, before)
    execute(rig, f"{name} x7, 0(x6)", registers(x6=DATA + at, x7=value))
    data = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")
    assert rig.ram[DATA - RAM : DATA - RAM + 24] == before[:at] + data + before[at + size :]


@pytest.mark.parametrize("offset", range(-8, 1))
def test_access_across_pages_is_whole(rig, offset):
    rig.put(DATA + 0x1000 + offset, 0)
    execute(rig, "sd x7, 0(x6)", registers(x6=DATA + 0x1000 + offset, x7=0x0102030405060708))
    hart = execute(rig, "ld x5, 0(x6)", registers(x6=DATA + 0x1000 + offset))
    assert hart["x"][5] == rig.read(DATA + 0x1000 + offset, 8) == 0x0102030405060708


@pytest.mark.parametrize("name", ATOMICS)
@pytest.mark.parametrize(("suffix", "bits"), [("w", 32), ("d", 64)])
@settings(max_examples=10, deadline=None)
@given(old=WORD, value=WORD)
def test_atomic_matches_reference(rig, name, suffix, bits, old, value):
    rig.put(DATA, old)
    hart = execute(rig, f"{name}.{suffix} x5, x7, (x6)", registers(x6=DATA, x7=value))
    top = (1 << bits) - 1
    assert hart["x"][5] == signed(old, bits) & MASK
    assert rig.read(DATA, bits // 8) == ATOMICS[name](signed(old, bits), signed(value, bits)) & top
    assert rig.read(DATA, 8) & ~top == old & ~top


@settings(max_examples=15, deadline=None)
@given(old=WORD, value=WORD, pick=st.sampled_from([("minu", min), ("maxu", max)]))
def test_unsigned_atomic_matches_reference(rig, old, value, pick):
    name, reference = pick
    rig.put(DATA, old)
    execute(rig, f"amo{name}.w x5, x7, (x6)", registers(x6=DATA, x7=value))
    assert rig.read(DATA, 4) == reference(old & 0xFFFFFFFF, value & 0xFFFFFFFF)
    rig.put(DATA, old)
    execute(rig, f"amo{name}.d x5, x7, (x6)", registers(x6=DATA, x7=value))
    assert rig.read(DATA, 8) == reference(old, value)


def test_atomic_misaligned_address_is_refused(rig):
    hart = execute(rig, "amoadd.w x5, x7, (x6)", registers(x6=DATA + 1))
    assert (hart["mcause"], hart["mtval"]) == (6, DATA + 1)


def test_register_zero_stays_zero(rig):
    hart = execute(rig, "addi x0, x6, 5", registers(x6=1))
    assert hart["x"][0] == 0


def test_store_conditional_to_reserved_address_succeeds_once(rig):
    rig.program("lr.d x5, (x6)\nsc.d x8, x7, (x6)\nsc.d x9, x7, (x6)")
    rig.put(DATA, 3)
    rig.machine(x=registers(x6=DATA, x7=9))
    rig.run(3)
    assert (rig.x(5), rig.x(8), rig.x(9), rig.read(DATA, 8)) == (3, 0, 1, 9)


def test_store_conditional_after_a_change_fails(rig):
    rig.program("lr.w x5, (x6)\nsw x0, 0(x6)\nsc.w x8, x7, (x6)")
    rig.put(DATA, 0xFFFFFFFF)
    rig.machine(x=registers(x6=DATA, x7=9))
    rig.run(3)
    assert (rig.x(8), rig.read(DATA, 4)) == (1, 0)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, (1 << 32) - 1), st.lists(WORD, min_size=31, max_size=31))
def test_any_word_leaves_the_core_whole(rig, word, values):
    rig.core.reset()
    hart = rig.one(word, [0, *values])
    assert hart["x"][0] == 0
    assert hart["priv"] in {0, 1, 3}
    rig.core.load_hart(0, hart)


@pytest.mark.parametrize("word", [0, 0xFFFFFFFF, 0x0000007F])
def test_illegal_word_traps_with_the_word(rig, word):
    hart = rig.one(word, registers())
    assert hart["mcause"] == 2
    assert hart["mtval"] == (word if word & 3 == 3 else word & 0xFFFF)
