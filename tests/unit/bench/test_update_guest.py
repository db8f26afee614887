"""The guest's program, its memory and its pings, as bytes."""

import struct
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))
from bench_guests import PROGRAM_SIZE, program
from update_guest import SOURCE, area, counter, kernel_words, page_offset
from update_ping import answers, checksum, request
from update_stats import Case


def case(memory=1024, state="touched", mode="cpr-exec"):
    return Case(memory, state, mode)


def test_program_is_an_executable_for_riscv_that_leaves_room_for_its_data():
    made = program(SOURCE, {"AREA": 1 << 33})
    assert made[:5] == b"\x7fELF\x02"
    assert struct.unpack_from("<HH", made, 16) == (2, 243)
    assert len(made) < PROGRAM_SIZE


@pytest.mark.parametrize(
    ("memory", "state", "expected"),
    [(256, "touched", 132), (8192, "touched", 7671), (64, "touched", 0), (8192, "untouched", 0)],
)
def test_area_leaves_the_kernel_its_share(memory, state, expected):
    assert area(case(memory, state)) == expected << 20


def test_page_is_found_by_its_number_from_the_begin_of_ram():
    assert page_offset(0x80000) == 0
    assert page_offset(0x80003) == 3 * 4096


@pytest.mark.parametrize(
    ("page", "expected"), [(b"INSTARBT" + bytes([7]).ljust(8, b"\0"), 7), (bytes(16), -1)]
)
def test_counter_is_minus_one_before_the_guest_counts(page, expected):
    assert counter(page) == expected


@pytest.mark.parametrize(("mode", "expected"), [("cpr-exec", True), ("cpr-transfer", False)])
def test_card_is_configured_where_there_is_one(mode, expected):
    assert ("eth0" in kernel_words(case(mode=mode))) is expected


def test_ping_has_right_checksums_and_is_no_answer():
    frame = request(513)
    assert len(frame) == 60
    assert checksum(frame[14:34]) == 0
    assert checksum(frame[34:42]) == 0
    assert frame[40:42] == b"\x02\x01"
    assert not answers(frame)
    assert answers(frame[:34] + b"\0" + frame[35:])
    assert not answers(frame[:34])
