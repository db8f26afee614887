"""The assembler: labels, expressions, directives, pseudo-instructions, and errors that name the line."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.cpu.rv64.asm import AssemblyError, assemble
from instar.cpu.rv64.disasm import disassemble, instruction_length

ORIGIN = 0x8000_0000
MASK = (1 << 64) - 1


def listing(source):
    """Assemble and disassemble."""
    image = assemble(source, ORIGIN).image
    texts, at = [], 0
    while at < len(image):
        word = int.from_bytes(image[at : at + 4], "little")
        texts.append(disassemble(word, ORIGIN + at))
        at += instruction_length(word)
    return [" ".join(text.split()) for text in texts]


def test_assemble_labels_forwards_and_backwards_resolve():
    assert listing("start: j end\nmiddle: j start\nend: j middle") == [
        "j 0x80000008",
        "j 0x80000000",
        "j 0x80000004",
    ]


def test_assemble_numbered_labels_mean_the_nearest():
    assert listing("1: j 1f\n1: j 1b\n j 1b\nnop") == [
        "j 0x80000004",
        "j 0x80000004",
        "j 0x80000004",
        "nop",
    ]


def test_assemble_returns_labels_and_constants_as_symbols():
    program = assemble(".equ SIZE, 4 * 3\nstart: nop\nend:", ORIGIN)

    assert program.symbols == {"SIZE": 12, "start": ORIGIN, "end": ORIGIN + 4}


def test_assemble_data_directives_make_little_endian_bytes():
    source = '.byte 1, -1\n.half 0x203\n.word \'a\'\n.dword end\n.ascii "x,#"\n.asciz "y\\n"\nend:'

    assert assemble(source, 0x100).image == (
        b"\x01\xff\x03\x02a\0\0\0" + (0x116).to_bytes(8, "little") + b"x,#y\n\0"
    )


def test_assemble_align_fills_with_instructions_that_do_nothing():
    assert listing("nop\n.align 4\nlabel: ret") == ["nop", *["c.nop"] * 6, "ret"]


def test_assemble_space_makes_zeros():
    assert assemble(".space 3", ORIGIN).image == bytes(3)


@pytest.mark.parametrize("comment", ["# note", "// note", "# it's \"open"])
def test_assemble_comments_are_ignored(comment):
    assert listing(f"nop {comment}\n{comment}") == ["nop"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("1 << 4 | 1", 17),
        ("7 & ~2", 5),
        ("-7 / 2", -3),
        ("-7 % 2", -1),
        ("6 ^ 3", 5),
        ("0b101 - 0x5", 0),
        ("'\\n'", 10),
        ("%hi(0x12345fff)", 0x12346),
        ("%lo(0x12345fff)", -1),
        ("10 - 2 - 3", 5),
    ],
)
def test_assemble_expression_follows_the_rules_of_c(text, value):
    assert assemble(f".equ X, {text}", ORIGIN).symbols["X"] == value


def run_constant(lines):
    """Interpret what li makes: lui, addi, addiw, slli on one register."""
    value = 0
    for line in lines:
        name, operands = line.split()
        number = int(operands.split(",")[-1], 0)
        value = {
            "li": lambda _, n: n,
            "lui": lambda _, n: ((n << 12) ^ (1 << 31)) - (1 << 31),
            "addi": lambda v, n: v + n,
            "addiw": lambda v, n: (((v + n) & 0xFFFFFFFF) ^ (1 << 31)) - (1 << 31),
            "slli": lambda v, n: v << n,
        }[name](value, number) & MASK
    return value


@given(value=st.one_of(st.integers(-(1 << 63), MASK), st.integers(-(1 << 33), 1 << 33)))
@settings(max_examples=200, deadline=None)
def test_assemble_li_any_constant_loads_it(value):
    assert run_constant(listing(f"li a0, {value}")) == value & MASK


@given(base=st.integers(0, 1 << 40), distance=st.integers(-(1 << 31) + 0x800, (1 << 31) - 0x801))
@settings(max_examples=200, deadline=None)
def test_assemble_la_any_distance_reaches_the_symbol(base, distance):
    image = assemble(f"la a0, {base + distance}", base).image
    upper = int.from_bytes(image[:4], "little", signed=True) & ~0xFFF
    lower = int.from_bytes(image[4:], "little", signed=True) >> 20

    assert base + upper + lower == base + distance


@pytest.mark.parametrize(
    ("source", "want"),
    [
        ("beqz a0, .", "beqz a0,0x80000000"),
        ("bgt a0, a1, .", "blt a1,a0,0x80000000"),
        ("not a0, a1", "not a0,a1"),
        ("seqz a0, a1", "seqz a0,a1"),
        ("csrw satp, a0", "csrw satp,a0"),
        ("rdtime t0", "csrr t0,time"),
        ("csrr a0, 0x7c0", "csrr a0,0x7c0"),
        ("sfence.vma", "sfence.vma"),
        ("fmv.d fa0, fa1", "fmv.d fa0,fa1"),
        ("fadd.s f1, f2, f3, rmm", "fadd.s ft1,ft2,ft3,rmm"),
        ("fcvt.d.l fa0, a0", "fcvt.d.l fa0,a0"),
        ("lr.d.aq x5, (x6)", "lr.d.aq t0,(t1)"),
        ("amoadd.d a0, a1, 0(a2)", "amoadd.d a0,a1,(a2)"),
        ("ld a0, (sp)", "ld a0,0(sp)"),
        ("fence", "fence"),
        ("jr a0", "jr a0"),
        ("c.lui a0, 0xfffe1", "c.lui a0,0xfffe1"),
        ("c.addi4spn s0, sp, 16", "c.addi4spn s0,sp,16"),
    ],
)
def test_assemble_instruction_as_people_write_it_is_understood(source, want):
    assert listing(source) == [want]


def test_assemble_call_jumps_to_the_symbol_and_links():
    assert listing("call far\n.equ far, 0x80001004") == ["auipc ra,0x1", "jalr ra,4(ra)"]


def test_assemble_defines_replace_constants():
    program = assemble(".equ N, 1\n.byte N", ORIGIN, defines={"N": 7})

    assert (program.image, program.symbols["N"]) == (b"\x07", 7)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nop\nfoo a0", "line 2: there is no instruction 'foo'"),
        ("addi a0, a0, 5000", "line 1: addi: '5000' is 5000, allowed -2048 to 2047"),
        ("addi a0, a0", "line 1: addi takes rd, rs1, imm12, not a0, a0"),
        ("addi a0, q0, 1", "line 1: addi: 'q0' is no x register"),
        ("\n\nj nowhere", "line 3: symbol 'nowhere' is not defined"),
        ("a: nop\na: nop", "line 2: symbol 'a' is defined twice"),
        ("j 1f", "line 1: there is no label 1: after this line"),
        ("beq a0, a1, . + 3", "line 1: beq: '. + 3' is 3, allowed -4096 to 4094 in steps of 2"),
        ("c.lw a0, 0(t0)", "line 1: c.lw: 't0' is 5, allowed 8 to 15"),
        (
            "c.addi4spn s0, sp, 0",
            "line 1: c.addi4spn: '0' is 0, allowed 0 to 1020 in steps of 4, not 0",
        ),
        ("c.addi16sp a0, 16", "line 1: c.addi16sp: 'a0' must be sp here"),
        ("ld a0, 8[sp]", "line 1: ld: '8[sp]' should be an address like 8(sp)"),
        ("lr.d a0, 8(a1)", "line 1: lr.d: '8(a1)' can have no offset"),
        ("lui a0, 0x100000", "line 1: lui: '0x100000' is 0x100000, allowed are 20 bits"),
        ("fence x, w", "line 1: fence: 'x' is no set of i, o, r, w"),
        ("li a0, 1 << 64", "line 1: li: 0x10000000000000000 does not fit in 64 bits"),
        (".byte 256", "line 1: 0x100 does not fit in .byte's 8 bits"),
        (".space 1 << 30", "line 1: .space 1073741824: allowed 0 to 16777216"),
        (".equ X, 1 / 0", "line 1: expression '1 / 0': "),
        (".equ X, 1 << 999", "line 1: shift by 999 bits, limit 128"),
        (".equ X, (1", "line 1: expression '(1' ends too early"),
        (".equ X, 1 2", "line 1: expression '1 2': '2' is too much"),
        (".equ X, @", "line 1: expression '@' is not understood at '@'"),
        (".equ 5, 1", "line 1: .equ takes a name and an expression"),
        (".asciz hello", "line 1: .asciz: hello is no quoted string"),
        (".section .text", "line 1: .section .text: not one of "),
        (f".equ X, {'(' * 100}1", "line 1: expression nests deeper than 64"),
    ],
)
def test_assemble_mistake_is_named_with_its_line(source, message):
    with pytest.raises(AssemblyError) as caught:
        assemble(source, ORIGIN)

    assert str(caught.value).startswith(message)


def test_assemble_define_without_equ_is_refused():
    with pytest.raises(AssemblyError, match="defines M, so it cannot be replaced"):
        assemble(".equ N, 1", ORIGIN, defines={"M": 1})


def test_assemble_define_of_a_label_is_refused():
    with pytest.raises(AssemblyError, match="label 'here' cannot be replaced"):
        assemble("here: nop", ORIGIN, defines={"here": 1})


@given(source=st.text(max_size=60))
@settings(max_examples=300, deadline=None)
def test_assemble_any_text_gives_a_program_or_an_assembly_error(source):
    with contextlib.suppress(AssemblyError):
        assemble(source, ORIGIN)
