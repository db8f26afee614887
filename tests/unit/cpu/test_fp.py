"""F and D, instruction by instruction, against exact fractions, in all rounding modes."""

import struct

import fp_reference as ref
import pytest
from bare_core import RAM_BASE, BareCore
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.cpu.rv64.asm import assemble

ONES = (1 << 64) - 1
BOX = ONES << 32 & ONES
FORMATS = {"s": ref.SINGLE, "d": ref.DOUBLE}
MODES = {"rne": 0, "rtz": 1, "rdn": 2, "rup": 3, "rmm": 4}
TABLE = RAM_BASE + 0x1000
CASE = struct.Struct("<8Q")  # f1 f2 f3 x1, flags before; then f4 x4, flags after

LOOP = """
        li t0, 3 << 13
        csrs sstatus, t0
        li s0, {table}
        li s1, {end}
1:      fld f1, 0(s0)
        fld f2, 8(s0)
        fld f3, 16(s0)
        ld x1, 24(s0)
        ld t0, 32(s0)
        fscsr t0
        fmv.d.x f4, zero
        li x4, 0
        {instruction}
        fsd f4, 40(s0)
        sd x4, 48(s0)
        frcsr t0
        sd t0, 56(s0)
        addi s0, s0, 64
        bltu s0, s1, 1b
        wfi
"""


@pytest.fixture(scope="module")
def core():
    return BareCore()


def execute(core, instruction, cases):
    """Run one instruction on cases (f1, f2, f3, x1, fcsr); return (f4, x4, flags) for each."""
    table = b"".join(CASE.pack(*case, 0, 0, 0) for case in cases)
    source = LOOP.format(table=TABLE, end=TABLE + len(table), instruction=instruction)
    core.write(TABLE, table)
    core.start(assemble(source, RAM_BASE).image)
    core.run_until_idle()
    results = CASE.iter_unpack(core.read(TABLE, len(table)))
    return [(f4, x4, flags & 0x1F) for *_, f4, x4, flags in results]


def specials(fmt):
    """Bit patterns at the edges of a format."""
    one = fmt.bias << fmt.fraction
    edges = (0, 1, 2, (1 << fmt.fraction) - 1, 1 << fmt.fraction, one - 1, one, one + 1)
    tops = (fmt.infinity - 1, fmt.infinity, fmt.infinity + 1, fmt.nan, fmt.nan + 1, one << 1)
    return [p & (fmt.sign - 1) | sign for p in edges + tops for sign in (0, fmt.sign)]


@st.composite
def near_one(draw, fmt):
    """Numbers whose exponents are close together: sums and differences overlap."""
    exponent = fmt.bias + draw(st.integers(-2 * fmt.fraction, 2 * fmt.fraction))
    ones = draw(st.integers(0, fmt.fraction))
    fraction = draw(st.integers(0, (1 << fmt.fraction) - 1)) >> ones << ones
    return draw(st.sampled_from((0, fmt.sign))) | exponent << fmt.fraction | fraction


def scaled(odd, exponent, fmt):
    """Return the pattern of odd * 2**exponent, which fits."""
    return ref.encode(odd * ref.Fraction(2) ** exponent, fmt)


def odd_numbers(bits):
    """Odd integers of exactly so many bits."""
    return st.integers(1 << bits - 1, (1 << bits) - 1).map(lambda n: n | 1)


@st.composite
def tied_sum(draw, fmt):
    """Two numbers whose sum lies half-way between two others (if it carries, on a number)."""
    precision, exponent = fmt.fraction + 1, draw(st.integers(-100, 50))
    small = draw(st.integers(1, precision - 2).flatmap(odd_numbers))
    sign = draw(st.sampled_from((0, fmt.sign)))
    large = draw(odd_numbers(precision) | odd_numbers(precision - 1).map(lambda n: 2 * n))
    return scaled(large, exponent, fmt) ^ sign, scaled(small, exponent - 1, fmt) ^ sign


@st.composite
def tied_product(draw, fmt):
    """Two numbers whose product has one or two bits more than fit."""
    bits = draw(st.integers(2, fmt.fraction))
    exponent, sign = draw(st.integers(-60, 50)), draw(st.sampled_from((0, fmt.sign)))
    a, b = draw(odd_numbers(bits)), draw(odd_numbers(fmt.fraction + 2 - bits))
    return scaled(a, exponent, fmt) ^ sign, scaled(b, exponent // 2, fmt)


@st.composite
def tied_integer(draw, fmt):
    """An odd multiple of one half."""
    odd = draw(st.integers(1, fmt.fraction).flatmap(odd_numbers))
    return scaled(odd, -1, fmt) ^ draw(st.sampled_from((0, fmt.sign)))


def patterns(fmt):
    return st.one_of(
        st.sampled_from(specials(fmt)), st.integers(0, 2 * fmt.sign - 1), near_one(fmt)
    )


def boxed(pattern, letter):
    return pattern | (BOX if letter == "s" else 0)


def batch(letter, count):
    """Lists of operand tuples; as a list, one run of the CPU does them all."""
    operands = st.tuples(*[patterns(FORMATS[letter])] * count)
    return st.lists(operands, min_size=20, max_size=40)


def negated(pattern, fmt):
    return pattern ^ fmt.sign


ARITHMETIC = {
    "fadd": (2, ref.add),
    "fsub": (2, lambda a, b, fmt, mode: ref.add(a, negated(b, fmt), fmt, mode)),
    "fmul": (2, ref.mul),
    "fdiv": (2, ref.div),
    "fsqrt": (1, ref.sqrt),
    "fmadd": (3, ref.fma),
    "fmsub": (3, lambda a, b, c, fmt, mode: ref.fma(a, b, negated(c, fmt), fmt, mode)),
    "fnmsub": (3, lambda a, b, c, fmt, mode: ref.fma(negated(a, fmt), b, c, fmt, mode)),
    "fnmadd": (
        3,
        lambda a, b, c, fmt, mode: ref.fma(negated(a, fmt), b, negated(c, fmt), fmt, mode),
    ),
}


def check_arithmetic(core, name, letter, mode, operands, before):
    """Execute one arithmetic instruction on a batch and compare results and flags."""
    count, function = ARITHMETIC[name]
    fmt = FORMATS[letter]
    cases = [
        [*(boxed(p, letter) for p in tuple_), *[0] * (4 - count), before] for tuple_ in operands
    ]
    registers = ", ".join(f"f{i + 1}" for i in range(count))
    got = execute(core, f"{name}.{letter} f4, {registers}, {mode}", cases)
    want = [function(*tuple_, fmt, MODES[mode]) for tuple_ in operands]

    assert got == [(boxed(bits, letter), 0, flags | before) for bits, flags in want]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("letter", FORMATS)
@pytest.mark.parametrize("name", ARITHMETIC)
@given(data=st.data())
@settings(max_examples=2, deadline=None)
def test_arithmetic_any_operands_is_exact_then_rounded_once(core, name, letter, mode, data):
    operands = data.draw(batch(letter, ARITHMETIC[name][0]))

    check_arithmetic(core, name, letter, mode, operands, before=0)


ONE = {"s": 0x3F800000, "d": 0x3FF0000000000000}
TIES = {  # instruction: how to make its operands of a pair that ties
    "fadd": (tied_sum, lambda a, b, one, sign: (a, b)),
    "fsub": (tied_sum, lambda a, b, one, sign: (a, b ^ sign)),
    "fmul": (tied_product, lambda a, b, one, sign: (a, b)),
    "fmadd": (tied_sum, lambda a, b, one, sign: (a, one, b)),
    "fmsub": (tied_product, lambda a, b, one, sign: (a, b, 0)),
    "fnmsub": (tied_product, lambda a, b, one, sign: (a, b, sign)),
    "fnmadd": (tied_sum, lambda a, b, one, sign: (one, b, a)),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("letter", FORMATS)
@pytest.mark.parametrize("name", TIES)
@given(data=st.data())
@settings(max_examples=2, deadline=None)
def test_arithmetic_ties_are_broken_as_the_mode_says(core, name, letter, mode, data):
    strategy, arrange = TIES[name]
    fmt = FORMATS[letter]
    pairs = data.draw(st.lists(strategy(fmt), min_size=10, max_size=20))

    operands = [arrange(a, b, ONE[letter], fmt.sign) for a, b in pairs]
    check_arithmetic(core, name, letter, mode, operands, before=0)


@pytest.mark.parametrize("letter", FORMATS)
@pytest.mark.parametrize("name", ARITHMETIC)
@given(data=st.data())
@settings(max_examples=2, deadline=None)
def test_arithmetic_with_inexact_raised_before_gives_the_same(core, name, letter, data):
    """NX set and rounding to nearest: the way over the host's FPU."""
    operands = data.draw(batch(letter, ARITHMETIC[name][0]))

    check_arithmetic(core, name, letter, "rne", operands, before=ref.NX)


@pytest.mark.parametrize("mode", MODES)
def test_arithmetic_dynamic_rounding_takes_the_mode_from_fcsr(core, mode):
    one, tiny = 0x3FF0000000000000, 0x0000000000000001
    got = execute(core, "fadd.d f4, f1, f2", [(one, tiny, 0, 0, MODES[mode] << 5)])
    bits, flags = ref.add(one, tiny, ref.DOUBLE, MODES[mode])

    assert got == [(bits, 0, flags)]


def test_single_arithmetic_operand_that_is_not_boxed_counts_as_nan(core):
    got = execute(core, "fadd.s f4, f1, f2", [(0x3F800000, BOX | 0x3F800000, 0, 0, 0)])

    assert got == [(BOX | 0x7FC00000, 0, 0)]


INTEGERS = {
    "w": (-(1 << 31), (1 << 31) - 1),
    "wu": (0, (1 << 32) - 1),
    "l": (-(1 << 63), (1 << 63) - 1),
    "lu": (0, (1 << 64) - 1),
}


def as_register(number, kind):
    """Return how a register holds an integer: 32-bit ones sign-extended."""
    narrow = ((number & 0xFFFFFFFF) ^ (1 << 31)) - (1 << 31)
    return (narrow if kind.startswith("w") else number) & ONES


def as_number(register, kind):
    """Return the integer that a conversion takes from a register."""
    low, high = INTEGERS[kind]
    number = register & (high - low)
    return number - (high - low + 1) if number > high else number


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", INTEGERS)
@pytest.mark.parametrize("letter", FORMATS)
@given(data=st.data())
@settings(max_examples=2, deadline=None)
def test_convert_to_integer_rounds_and_saturates(core, letter, kind, mode, data):
    fmt = FORMATS[letter]
    edges = [ref.rounded(ref.Fraction(n), fmt, 0)[0] for n in INTEGERS[kind] if n]
    around = st.builds(lambda p, d: max(0, p + d), st.sampled_from(edges), st.integers(-3, 3))
    values = data.draw(
        st.lists(st.one_of(patterns(fmt), around, tied_integer(fmt)), min_size=20, max_size=40)
    )
    cases = [(boxed(value, letter), 0, 0, 0, 0) for value in values]
    got = execute(core, f"fcvt.{kind}.{letter} x4, f1, {mode}", cases)
    want = [ref.to_int(value, fmt, MODES[mode], *INTEGERS[kind]) for value in values]

    assert got == [(0, as_register(number, kind), flags) for number, flags in want]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", INTEGERS)
@pytest.mark.parametrize("letter", FORMATS)
@given(data=st.data())
@settings(max_examples=2, deadline=None)
def test_convert_from_integer_rounds(core, letter, kind, mode, data):
    tied = odd_numbers(FORMATS[letter].fraction + 2)
    some = st.one_of(st.integers(0, ONES), st.integers(0, 63).map(lambda n: ONES >> n), tied)
    values = data.draw(st.lists(some, min_size=20, max_size=40))
    cases = [(0, 0, 0, value, 0) for value in values]
    got = execute(core, f"fcvt.{letter}.{kind} f4, x1, {mode}", cases)
    want = [ref.from_int(as_number(v, kind), FORMATS[letter], MODES[mode]) for v in values]

    assert got == [(boxed(bits, letter), 0, flags) for bits, flags in want]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("source", "target"), [("s", "d"), ("d", "s")])
@given(data=st.data())
@settings(max_examples=2, deadline=None)
def test_convert_between_formats_rounds(core, source, target, mode, data):
    fmt = FORMATS[source]
    border = st.integers(896 << 52, 898 << 52).map(lambda p: p & (2 * fmt.sign - 1))
    tied = odd_numbers(ref.SINGLE.fraction + 2).map(
        lambda n: scaled(n >> 2 * (source == "s") | 1, 0, fmt)
    )
    values = data.draw(st.lists(st.one_of(patterns(fmt), border, tied), min_size=20, max_size=40))
    cases = [(boxed(value, source), 0, 0, 0, 0) for value in values]
    got = execute(core, f"fcvt.{target}.{source} f4, f1, {mode}", cases)
    want = [ref.resize(v, fmt, FORMATS[target], MODES[mode]) for v in values]

    assert got == [(boxed(bits, target), 0, flags) for bits, flags in want]


@pytest.mark.parametrize("letter", FORMATS)
@pytest.mark.parametrize("name", ref.RELATIONS)
@given(data=st.data())
@settings(max_examples=2, deadline=None)
def test_compare_orders_numbers_and_flags_nans(core, name, letter, data):
    operands = data.draw(batch(letter, 2))
    cases = [(boxed(a, letter), boxed(b, letter), 0, 0, 0) for a, b in operands]
    got = execute(core, f"{name}.{letter} x4, f1, f2", cases)
    want = [ref.compare(name, a, b, FORMATS[letter]) for a, b in operands]

    assert got == [(0, result, flags) for result, flags in want]


@pytest.mark.parametrize("letter", FORMATS)
@pytest.mark.parametrize("name", ["fmin", "fmax"])
@given(data=st.data())
@settings(max_examples=2, deadline=None)
def test_minimum_prefers_numbers_and_orders_zeros(core, name, letter, data):
    operands = data.draw(batch(letter, 2))
    cases = [(boxed(a, letter), boxed(b, letter), 0, 0, 0) for a, b in operands]
    got = execute(core, f"{name}.{letter} f4, f1, f2", cases)
    want = [ref.extreme(a, b, FORMATS[letter], largest=name == "fmax") for a, b in operands]

    assert got == [(boxed(bits, letter), 0, flags) for bits, flags in want]


@pytest.mark.parametrize("letter", FORMATS)
@given(data=st.data())
@settings(max_examples=2, deadline=None)
def test_class_of_any_pattern_is_one_bit(core, letter, data):
    operands = data.draw(batch(letter, 1))
    got = execute(
        core, f"fclass.{letter} x4, f1", [(boxed(a, letter), 0, 0, 0, 0) for (a,) in operands]
    )

    assert got == [(0, 1 << ref.class_of(a, FORMATS[letter]), 0) for (a,) in operands]


SIGNS = {
    "fsgnj": lambda _, b: b,
    "fsgnjn": lambda _, b: ~b,
    "fsgnjx": lambda a, b: a ^ b,
}


@pytest.mark.parametrize("letter", FORMATS)
@pytest.mark.parametrize("name", SIGNS)
@given(data=st.data())
@settings(max_examples=2, deadline=None)
def test_sign_injection_changes_only_the_sign(core, name, letter, data):
    sign = FORMATS[letter].sign
    operands = data.draw(batch(letter, 2))
    cases = [(boxed(a, letter), boxed(b, letter), 0, 0, 0) for a, b in operands]
    got = execute(core, f"{name}.{letter} f4, f1, f2", cases)
    want = [a & (sign - 1) | SIGNS[name](a, b) & sign for a, b in operands]

    assert got == [(boxed(bits, letter), 0, 0) for bits in want]


@pytest.mark.parametrize(
    ("instruction", "case", "f4", "x4"),
    [
        ("fmv.w.x f4, x1", (0, 0, 0, 0x1234567887654321, 0), BOX | 0x87654321, 0),
        ("fmv.d.x f4, x1", (0, 0, 0, 0x1234567887654321, 0), 0x1234567887654321, 0),
        ("fmv.x.w x4, f1", (0x87654321, 0, 0, 0, 0), 0, 0xFFFFFFFF87654321),
        ("fmv.x.d x4, f1", (0x1234567887654321, 0, 0, 0, 0), 0, 0x1234567887654321),
        ("fsgnj.s f4, f1, f2", (0x3F800000, BOX | 0x80000000, 0, 0, 0), BOX | 0xFFC00000, 0),
    ],
)
def test_move_keeps_the_bits(core, instruction, case, f4, x4):
    assert execute(core, instruction, [case]) == [(f4, x4, 0)]


NAN, INFINITY, ZERO = 0x7FF8000000000000, 0x7FF0000000000000, 0
BELOW_NORMAL, NORMAL, ABOVE_ONE = 0x000FFFFFFFFFFFFF, 0x0010000000000000, 0x3FF0000000000001


@pytest.mark.parametrize(
    ("instruction", "operands", "bits", "flags"),
    [
        ("fmadd.d f4, f1, f2, f3", (INFINITY, ZERO, NAN), NAN, ref.NV),
        ("fmadd.d f4, f1, f2, f3", (ZERO, INFINITY, ZERO), NAN, ref.NV),
        ("fmul.d f4, f1, f2", (INFINITY, NAN, 0), NAN, 0),
        ("fdiv.d f4, f1, f2", (NORMAL, ZERO, 0), INFINITY, ref.DZ),
        ("fmul.d f4, f1, f2", (BELOW_NORMAL, ABOVE_ONE, 0), NORMAL, ref.NX),
        ("fmul.d f4, f1, f2, rdn", (BELOW_NORMAL, ABOVE_ONE, 0), BELOW_NORMAL, ref.UF | ref.NX),
        ("fsqrt.d f4, f1", (1 << 63, 0, 0), 1 << 63, 0),
        ("fsqrt.d f4, f1", (0xBFF0000000000000, 0, 0), NAN, ref.NV),
    ],
)
def test_arithmetic_special_case_has_the_flags_of_the_standard(
    core, instruction, operands, bits, flags
):
    assert execute(core, instruction, [(*operands, 0, 0)]) == [(bits, 0, flags)]


TRAPPING = """
        la t0, 1f
        csrw stvec, t0
        li t0, {state} << 13
        csrs sstatus, t0
        li t0, 5 << 5
        {prepare}
        .word {word}
        wfi
        .align 2
1:      csrr a0, scause
        csrr a1, stval
        wfi
"""


@pytest.mark.parametrize(
    ("word", "state", "prepare"),
    [
        (0x0220D253, 1, ""),  # fadd.d with rounding mode 5
        (0x0220E253, 1, ""),  # 6
        (0x0220F253, 1, "fscsr t0"),  # dynamic, and fcsr says 5
        (0x5A11F253, 1, ""),  # fsqrt.d whose rs2 is not 0
        (0x0420F253, 1, ""),  # fadd of half precision
        (0x2220B253, 1, ""),  # fsgnj.d, funct3 3
        (0x0220F253, 0, ""),  # floating point is off
        (0x0000B207, 0, ""),  # fld
    ],
)
def test_float_instruction_that_is_reserved_or_off_is_illegal(core, word, state, prepare):
    core.start(assemble(TRAPPING.format(word=word, state=state, prepare=prepare), RAM_BASE).image)
    core.run_until_idle()
    registers = core.core.save_hart(0)["x"]

    assert registers[10:12] == [2, word]
