"""The filters of a rehearsal fit whatever descriptors a machine has."""

from itertools import count, islice

import pytest

from instar.sandbox.rehearsal import filters_for_anybody, protect, rules
from instar.sandbox.seccomp import compile_filter


def lengths(data: bytes) -> list[int]:
    first = int.from_bytes(data[:4], "little")
    second = int.from_bytes(data[4 + first : 8 + first], "little")
    assert len(data) == 8 + first + second
    return [first, second]


SCATTERED = list(islice(count(20, 2), 3000))


@pytest.mark.parametrize("shared", [(), range(20, 60000), list(islice(count(20, 2), 20))])
def test_filters_for_anybody_name_all_descriptors(shared) -> None:
    data, notes = filters_for_anybody(shared, "x86_64")
    first, second = lengths(data)
    assert 0 < second < first <= 4096 * 8
    assert notes == []


def test_descriptors_that_no_filter_is_long_enough_for_are_told() -> None:
    data, notes = filters_for_anybody(SCATTERED, "x86_64")
    assert lengths(data) == lengths(filters_for_anybody((), "x86_64")[0])
    assert len(notes) == 1
    assert notes[0].startswith("3000 descriptors that others use are scattered")


def test_program_that_rehearses_tells_what_its_filter_leaves_out(monkeypatch) -> None:
    installed = []
    monkeypatch.setattr(
        "instar.sandbox.rehearsal.install",
        lambda found: installed.append(compile_filter(found, "x86_64")),
    )
    assert protect([5, 6], writable=[4]) == []
    (note,) = protect(SCATTERED, writable=[4])
    assert note.startswith("3000 descriptors that others use are scattered")
    assert installed == [compile_filter(rules([4], shared), "x86_64") for shared in ([5, 6], ())]


def test_architecture_without_numbers_has_no_filter() -> None:
    data, notes = filters_for_anybody([5], "riscv64")
    assert (lengths(data), notes) == ([0, 0], [])


def test_filter_of_a_rehearsal_fits_a_thousand_sockets() -> None:
    assert compile_filter(rules([4], range(10, 1010)), "x86_64")
