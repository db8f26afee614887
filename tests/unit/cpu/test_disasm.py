"""The disassembler: text of single words, and back through the assembler to the same word."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.cpu.rv64.asm import assemble
from instar.cpu.rv64.disasm import disassemble, find_row, instruction_length
from instar.cpu.rv64.isa import FIELDS, ROWS, Row
from instar.cpu.rv64.operands import CSRS, SUFFIXES, insert, limits, row_fields

PC = 0x8000_0000
LEGAL = {
    "rm": st.sampled_from((0, 1, 2, 3, 4, 7)),
    "csr": st.one_of(st.sampled_from(sorted(CSRS.values())), st.integers(0, 0xFFF)),
}


@st.composite
def field_bits(draw, name):
    field = FIELDS[name]
    low, high, step = limits(field)
    multiples = st.integers(low // step, high // step).map(lambda count: count * step)
    return insert(field, draw(LEGAL.get(name, multiples)))


@st.composite
def words(draw, row: Row):
    bits = [draw(field_bits(name)) for name in row_fields(row)]
    suffix = {"a": st.sampled_from(sorted(SUFFIXES.values()))}.get(row.ext, st.just(0))
    return row.match | draw(suffix) | sum(bits)


@given(word=st.sampled_from(ROWS).flatmap(words), aliases=st.booleans())
@settings(max_examples=300, deadline=None)
def test_disassemble_any_instruction_assembles_to_the_same_word(word, aliases):
    text = disassemble(word, PC, aliases=aliases)

    assert int.from_bytes(assemble(text, PC).image, "little") == word


@given(word=st.integers(0, (1 << 32) - 1))
@settings(max_examples=300, deadline=None)
def test_disassemble_any_bits_gives_text(word):
    assert disassemble(word, PC).isprintable()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_find_row_with_all_operands_full_finds_that_instruction(row):
    word = row.match | sum(insert(field, limits(field)[1]) for field in row_fields(row).values())

    assert find_row(word) is row


@pytest.mark.parametrize(
    ("word", "text"),
    [
        (0x00000013, "nop"),
        (0x00008067, "ret"),
        (0x00500513, "li      a0,5"),
        (0x00050593, "mv      a1,a0"),
        (0xFE051EE3, "bnez    a0,0x7ffffffc"),
        (0x0080006F, "j       0x80000008"),
        (0x12345537, "lui     a0,0x12345"),
        (0x00813503, "ld      a0,8(sp)"),
        (0xC0102573, "csrr    a0,time"),
        (0x0310000F, "fence   rw,w"),
        (0x0EB6252F, "amoswap.w.aqrl a0,a1,(a2)"),
        (0x02C5F553, "fadd.d  fa0,fa1,fa2"),
        (0x1141, "c.addi  sp,-16"),
        (0x8082, "c.jr    ra"),
        (0x0000, ".half   0x0000"),
        (0xFFFFFFFF, ".word   0xffffffff"),
    ],
)
def test_disassemble_known_word_reads_as_in_binutils(word, text):
    assert disassemble(word, PC) == text


def test_disassemble_without_aliases_names_the_instruction_itself():
    assert disassemble(0x00008067, PC, aliases=False) == "jalr    zero,0(ra)"


def test_disassemble_compressed_word_ignores_the_upper_half():
    assert disassemble(0xFFFF1141, PC) == "c.addi  sp,-16"


@pytest.mark.parametrize(("word", "length"), [(0x0001, 2), (0x00000013, 4), (0x8082, 2)])
def test_instruction_length_follows_the_low_bits(word, length):
    assert instruction_length(word) == length
