"""The instruction table says one thing about each word."""

import re
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.cpu.rv64.csrs import CSRS, HART_WORDS
from instar.cpu.rv64.gen.decoder import decoder, fields_of, operands, row_lines
from instar.cpu.rv64.gen.interpreter import body, interpreter, operation_body
from instar.cpu.rv64.gen.join import Literals
from instar.cpu.rv64.gen.operations import Operations
from instar.cpu.rv64.isa import COMPRESSED, FIELDS, LOOPS, ROWS, WORDS, Row
from instar.cpu.rv64.state import HartState

ONE = Row("one", "i", 0x0B, 0x7F, "rd", "rd = 1")


def operand_bits(row):
    bits = 0
    for name in fields_of(row):
        for low, width, _ in FIELDS[name].parts:
            bits |= ((1 << width) - 1) << low
    return bits


def overlaps(a, b):
    return (a.match ^ b.match) & a.mask & b.mask == 0


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_row_match_and_operands_are_apart(row):
    assert row.match & ~row.mask == 0
    assert operand_bits(row) & row.mask == 0
    assert row.mask < 1 << (16 if row.ext == "c" else 32)


def test_mnemonics_are_unique():
    assert len({row.name for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("rows", [WORDS, COMPRESSED], ids=["32 bits", "16 bits"])
def test_overlapping_encodings_have_the_narrower_one_first(rows):
    wrong = [
        (a.name, b.name)
        for a, b in combinations(rows, 2)
        if overlaps(a, b) and not (a.mask & b.mask == b.mask or a.nonzero)
    ]
    assert wrong == []


def test_full_width_encodings_do_not_overlap():
    assert [(a.name, b.name) for a, b in combinations(WORDS, 2) if overlaps(a, b)] == []


@pytest.mark.parametrize("row", WORDS, ids=lambda row: row.name)
def test_instruction_effect_has_an_operation_that_can_be_generated(row):
    operations = Operations(WORDS, COMPRESSED, LOOPS)
    for form in operations.forms[row.name]:
        assert operation_body(form.operation, operations)


@pytest.mark.parametrize("row", COMPRESSED, ids=lambda row: row.name)
def test_compressed_instruction_expands_to_one_that_exists(row):
    name, *implied = row.effect.split()
    target = next(wide for wide in WORDS if wide.name == name)
    needed = {role for field in fields_of(target) for role in FIELDS[field].roles.split()}
    given_by = {role for field in fields_of(row) for role in FIELDS[field].roles.split()}
    given_by |= {pair.partition("=")[0] for pair in implied}
    assert needed - given_by <= {"imm"}


def test_field_parts_fill_each_value_bit_once():
    for field in FIELDS.values():
        bits = [at + n for _, width, at in field.parts for n in range(width)]
        assert len(bits) == len(set(bits))


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_field_expression_reads_back_what_was_inserted(data):
    row = data.draw(st.sampled_from([row for row in ROWS if fields_of(row)]))
    word = row.match
    wanted = dict.fromkeys(("rd", "rs1", "rs2", "imm"))
    for name in fields_of(row):
        field = FIELDS[name]
        top = max(at + width for _, width, at in field.parts)
        value = data.draw(st.integers(0, (1 << top) - 1))
        kept = 0
        for low, width, at in field.parts:
            piece = value >> at & ((1 << width) - 1)
            word |= piece << low
            kept |= piece << at
        shown = kept - (kept >> (top - 1) << top) if field.signed else kept + field.base
        wanted.update(dict.fromkeys(set(field.roles.split()) & set(wanted), shown))
    scope = {"w": word, "sext": lambda v, bits: (v & (1 << bits) - 1) - (v >> (bits - 1) << bits)}
    found = {role: eval(text, scope) for role, text in operands(row).items()}
    assert {role: found[role] for role, value in wanted.items() if value is not None} == {
        role: value for role, value in wanted.items() if value is not None
    }


def test_decoder_names_only_operations_that_exist():
    operations = Operations(WORDS, COMPRESSED, LOOPS)
    source = decoder("decode32", WORDS, operations) + decoder("decode16", COMPRESSED, operations)
    names = {f"OP_{name.upper()}" for name in operations.names()}
    assert set(re.findall(r"OP_\w+", source)) <= names


def test_operation_undecoded_is_number_zero():
    assert Operations(WORDS, COMPRESSED, LOOPS).names()[0] == "undecoded"


def test_interpreter_has_a_branch_for_each_operation():
    operations = Operations(WORDS, COMPRESSED, LOOPS)
    found = re.findall(r"op == (\d+):  # (\w+)", interpreter(operations))
    assert found == [(str(n), name) for n, name in enumerate(operations.names())]


def test_effect_unknown_is_refused():
    with pytest.raises(ValueError, match="'teleport' is not known"):
        body("teleport")


def test_operand_unknown_is_refused():
    with pytest.raises(ValueError, match="operand 'where' is not known"):
        row_lines(ONE._replace(syntax="rd, where"), Operations([ONE], (), {}))


def test_literal_above_31_bits_gets_a_name():
    literals = Literals()
    assert literals.replace("a = 0x80000000 + 7 + 1.5\n") == "a = K_80000000 + 7 + 1.5\n"
    assert "#define K_80000000 UINT64_C(0x80000000)" in literals.declarations()


def test_csr_numbers_and_names_are_unique():
    assert len({row.number for row in CSRS}) == len({row.name for row in CSRS}) == len(CSRS)


def test_csr_read_only_numbers_have_no_writer():
    assert [row.name for row in CSRS if row.number >> 10 == 3 and (row.write or row.writer)] == []


def test_hart_state_has_the_fields_that_the_core_saves():
    assert set(HartState.state_fields) == {*HART_WORDS, "x", "f", "pmpcfg", "pmpaddr"}
