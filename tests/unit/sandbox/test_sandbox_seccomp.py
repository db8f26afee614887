"""A filter does what its rules say: run by an interpreter of the few instructions there are."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.sandbox import bpf, seccomp
from instar.sandbox.numbers import NUMBERS
from instar.sandbox.rehearsal import rules, rules_for_anybody
from instar.sandbox.seccomp import (
    ALLOW,
    EPERM,
    NOTHING,
    Condition,
    Rule,
    compile_filter,
    descriptor,
    descriptors,
)

X86, ARM = 0xC000003E, 0xC00000B7
REFUSED = 0x50000 | EPERM
UNKNOWN = 0x50000 | seccomp.ENOSYS


def run(program: bytes, number: int, *arguments: int, architecture: int = X86) -> int:
    words = [number, architecture, 0, 0]
    for value in (*arguments, *[0] * (6 - len(arguments))):
        words += [value & 0xFFFFFFFF, value >> 32]
    rows = list(bpf.INSTRUCTION.iter_unpack(program))
    at = word = 0
    while True:
        code, true, false, k = rows[at]
        at += 1
        match code:
            case bpf.LOAD_WORD:
                word = words[k // 4]
            case bpf.AND:
                word &= k
            case bpf.JUMP_EQUAL:
                at += true if word == k else false
            case bpf.JUMP_GREATER_EQUAL:
                at += true if word >= k else false
            case bpf.JUMP_SET:
                at += true if word & k else false
            case _:
                return k


def call(rules: list[Rule], name: str, *arguments: int) -> int:
    return run(compile_filter(rules, "x86_64"), NUMBERS[name][0], *arguments)


def test_call_that_no_rule_names_is_allowed() -> None:
    assert call([Rule(["bind"])], "connect") == ALLOW


def test_call_of_a_rule_fails_with_its_error() -> None:
    assert call([Rule(["bind", "connect"], error=13)], "connect") == 0x50000 | 13


def test_first_rule_that_matches_decides() -> None:
    rules = [Rule(["write"], [descriptor(0, 2)], error=0), Rule(["write"])]
    assert call(rules, "write", 2) == ALLOW
    assert call(rules, "write", 3) == REFUSED


@given(st.integers(0, (1 << 64) - 1), st.integers(1, (1 << 64) - 1), st.integers(0, (1 << 64) - 1))
@settings(max_examples=60)
def test_masked_argument_is_compared_in_both_halves(value: int, mask: int, argument: int) -> None:
    rules = [Rule(["openat"], [Condition(2, value & mask, mask=mask)])]
    expected = REFUSED if argument & mask == value & mask else ALLOW
    assert call(rules, "openat", 0, 0, argument) == expected


@given(st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFFFFFFFF))
@settings(max_examples=30)
def test_argument_that_must_differ(value: int, argument: int) -> None:
    rules = [Rule(["ioctl"], [Condition(1, value, mask=0xFFFFFFFF, differs=True)])]
    assert call(rules, "ioctl", 0, argument) == (ALLOW if argument == value else REFUSED)
    assert call(rules, "ioctl", 0, value) == ALLOW


@given(st.sets(st.integers(0, 60), max_size=20), st.integers(0, 70))
@settings(max_examples=60)
def test_descriptors_of_a_set_are_known_by_few_ranges(numbers: set[int], fd: int) -> None:
    tests = descriptors(0, numbers)
    assert len(tests) <= sum(number - 1 not in numbers for number in numbers)
    expected = REFUSED if fd in numbers else ALLOW
    assert call([Rule(["read"], [one]) for one in tests], "read", fd) == expected


def test_call_that_does_nothing_returns_0() -> None:
    rules = [Rule(["close"], [descriptor(0, 5)], error=NOTHING)]
    assert call(rules, "close", 5) == 0x50000
    assert call(rules, "close", 6) == ALLOW


def test_all_tests_of_a_rule_have_to_hold() -> None:
    rules = [Rule(["mmap"], [Condition(2, 2, mask=2), Condition(3, 1, mask=0x21)])]
    assert call(rules, "mmap", 0, 0, 3, 1) == REFUSED
    assert call(rules, "mmap", 0, 0, 1, 1) == ALLOW
    assert call(rules, "mmap", 0, 0, 3, 0x21) == ALLOW


def test_upper_half_of_a_descriptor_is_not_looked_at() -> None:
    assert call([Rule(["write"], [descriptor(0, 5)])], "write", (7 << 32) | 5) == REFUSED


def test_calls_of_another_architecture_are_unknown() -> None:
    program = compile_filter([], "x86_64")
    assert run(program, 1, architecture=0x40000003) == UNKNOWN
    assert run(program, 0x40000001) == UNKNOWN
    assert run(compile_filter([], "aarch64"), 64, architecture=ARM) == ALLOW


def test_name_without_a_number_here_matches_nothing() -> None:
    program = compile_filter([Rule(["fork", "bind"])], "aarch64")
    assert run(program, NUMBERS["bind"][1], architecture=ARM) == REFUSED
    assert run(program, NUMBERS["fork"][0], architecture=ARM) == ALLOW


def test_unknown_names_and_architectures_are_refused() -> None:
    with pytest.raises(ValueError, match="bindd"):
        compile_filter([Rule(["bindd"])], "x86_64")
    with pytest.raises(LookupError, match="riscv64"):
        compile_filter([], "riscv64")


def test_filter_that_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="4096"):
        compile_filter([Rule(NUMBERS)] * 40, "x86_64")


def test_other_value_of_64_bits_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bits"):
        compile_filter([Rule(["mmap"], [Condition(5, 0, differs=True)])], "x86_64")


@pytest.mark.parametrize("made", [rules([4], ()), rules_for_anybody((), opens=False)])
def test_rehearsal_may_ask_kvm_and_no_other_device(made: list[Rule]) -> None:
    assert call(made, "ioctl", 5, 0x4090_AE82) == ALLOW
    assert call(made, "ioctl", 5, 0x4008_AF00) == REFUSED  # vhost
    assert call(made, "ioctl", 5, 0x4004_54CA) == REFUSED  # a tap device
