"""The filters of a rehearsal fit whatever descriptors a machine has."""

from itertools import count, islice

import pytest

from instar.sandbox.rehearsal import filters_for_anybody, rules
from instar.sandbox.seccomp import compile_filter


def lengths(data: bytes) -> list[int]:
    first = int.from_bytes(data[:4], "little")
    second = int.from_bytes(data[4 + first : 8 + first], "little")
    assert len(data) == 8 + first + second
    return [first, second]


@pytest.mark.parametrize("shared", [(), range(20, 60000), list(islice(count(20, 2), 3000))])
def test_filters_for_anybody_fit(shared) -> None:
    first, second = lengths(filters_for_anybody(shared, "x86_64"))
    assert 0 < second < first <= 4096 * 8


def test_architecture_without_numbers_has_no_filter() -> None:
    assert lengths(filters_for_anybody([5], "riscv64")) == [0, 0]


def test_filter_of_a_rehearsal_fits_a_thousand_sockets() -> None:
    assert compile_filter(rules([4], range(10, 1010)), "x86_64")
