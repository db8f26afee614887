"""Sizes and numbers as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.errors import ConfigError
from instar.units import MAX_SIZE, exact_size, format_size, parse_int, parse_size, shorten


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4096", 4096),
        ("4096b", 4096),
        ("0x1000", 4096),
        ("4k", 4096),
        ("4K", 4096),
        ("512M", 512 << 20),
        ("1G", 1 << 30),
        ("1.5G", 3 << 29),
        ("0.1k", 102),
        ("2T", 2 << 40),
        ("1P", 1 << 50),
        ("7E", 7 << 60),
        ("0", 0),
    ],
)
def test_parse_size_with_suffix_gives_bytes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("text", "size"), [("128", 128 << 20), ("0x80", 128 << 20), ("64k", 65536)]
)
def test_parse_size_without_suffix_takes_the_default_unit(text: str, size: int) -> None:
    assert parse_size(text, "M") == size


@pytest.mark.parametrize(
    "text",
    ["", "G", ".5G", "1.G", "1.5", "1.5b", "-1", "1e3", "1_0", " 1", "\u0661", "1Gi", "0x", "0x1G", "9" * 41,
     "8E", "nan", "1,5G"],
)  # fmt: skip
def test_parse_size_of_nonsense_is_a_config_error(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_size(text)


@settings(max_examples=50)
@given(st.integers(0, MAX_SIZE))
def test_parse_size_of_written_bytes_gives_them_back(size: int) -> None:
    assert parse_size(f"{size}b") == parse_size(hex(size)) == size


def size_or_zero(text: str) -> int:
    try:
        return parse_size(text)
    except ConfigError:
        return 0


@settings(max_examples=100)
@given(st.text(max_size=50))
def test_parse_size_of_any_text_is_a_size_or_a_config_error(text: str) -> None:
    assert 0 <= size_or_zero(text) <= MAX_SIZE


@pytest.mark.parametrize(
    ("text", "value"), [("0", 0), ("-12", -12), ("0xfF", 255), ("-0x10", -16)]
)
def test_parse_int_of_decimal_and_hexadecimal_gives_the_number(text: str, value: int) -> None:
    assert parse_int(text) == value


@pytest.mark.parametrize("text", ["", "-", "0x", "1_000", "²", "1.0", "--1", "f", "1" * 41])
def test_parse_int_of_nonsense_is_a_config_error(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_int(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "0.977 KiB"), (4096, "4 KiB"), (110730, "108 KiB"),
     (3 << 29, "1.5 GiB"), (1 << 60, "1 EiB"), (MAX_SIZE, "8 EiB")],
)  # fmt: skip
def test_format_size_gives_three_digits_and_a_unit(size: int, text: str) -> None:
    assert format_size(size) == text


def test_exact_size_of_a_large_size_gives_bytes_and_a_rounded_size() -> None:
    assert [exact_size(12), exact_size(4097)] == ["12 bytes", "4097 bytes (4 KiB)"]


def test_shorten_of_a_long_text_keeps_its_beginning() -> None:
    assert shorten("a" * 100) == repr("a" * 57 + "...")
