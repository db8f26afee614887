"""The encoding: round trips, RFC 8949's own examples, and everything that must be refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.cpr import encoding
from instar.cpr.encoding import decode, encode
from instar.cpr.errors import StateCorruptError

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.binary(max_size=40)
    | st.text(max_size=40)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5)
    ),
    max_leaves=20,
)


@settings(max_examples=100)
@given(values)
def test_decode_what_was_encoded_gives_the_value(value):
    assert decode(encode(value), "x") == value


@settings(max_examples=200)
@given(st.binary(max_size=60))
def test_decode_any_bytes_gives_a_value_or_corrupt(data):
    try:
        decode(data, "x")
    except StateCorruptError as exc:
        assert str(exc).startswith("x: ")


@settings(max_examples=100)
@given(values, st.data())
def test_decode_torn_encoding_is_refused(value, data):
    whole = encode(value)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(StateCorruptError):
        decode(whole[:cut], "x")


@pytest.mark.parametrize(
    ("value", "hexadecimal"),
    [
        (0, "00"),
        (23, "17"),
        (24, "1818"),
        (1000, "1903e8"),
        (1000000, "1a000f4240"),
        (1000000000000, "1b000000e8d4a51000"),
        (18446744073709551615, "1bffffffffffffffff"),
        (-1, "20"),
        (-1000, "3903e7"),
        (False, "f4"),
        (True, "f5"),
        (None, "f6"),
        (b"\1\2\3\4", "4401020304"),
        ("\u00fc", "62c3bc"),
        ([1, [2, 3], [4, 5]], "8301820203820405"),
        ({"a": 1, "b": [2, 3]}, "a26161016162820203"),
    ],
)
def test_encode_rfc8949_appendix_a_examples(value, hexadecimal):
    assert encode(value).hex() == hexadecimal


@pytest.mark.parametrize(
    ("hexadecimal", "why"),
    [
        ("", "torn"),
        ("00 00", "1 bytes too many"),
        ("f9 3c00", "not one of ours"),  # a float
        ("9f ff", "not one of ours"),  # an indefinite list
        ("c0 00", "type 6"),  # a tag
        ("f7", "type 7"),  # undefined
        ("f8 20", "not one of ours"),
        ("1c", "not one of ours"),
        ("3b ffffffffffffffff", "below"),
        ("5b ffffffffffffffff", "torn"),
        ("9b ffffffffffffffff", "announced"),
        ("bb 0fffffffffffffff", "announced"),
        ("61 ff", "not UTF-8"),
        ("a1 01 02", "not a text"),
        ("a2 61 61 01 61 61 02", "doubled"),
        ("81" * 30 + "00", "nested deeper"),
    ],
)
def test_decode_malformed_says_why(hexadecimal, why):
    with pytest.raises(StateCorruptError, match=why):
        decode(bytes.fromhex(hexadecimal), "x")


def test_decode_too_many_values_is_refused(monkeypatch):
    monkeypatch.setattr(encoding, "MAX_VALUES", 5)
    with pytest.raises(StateCorruptError, match="more than 5 values"):
        decode(encode([0] * 5), "x")


@pytest.mark.parametrize("value", [1 << 64, -(1 << 63) - 1])
def test_encode_integer_too_wide_is_a_value_error(value):
    with pytest.raises(ValueError, match="limit 64"):
        encode(value)


@pytest.mark.parametrize("value", [1.5, {1: 2}, object()])
def test_encode_other_kinds_is_a_type_error(value):
    with pytest.raises(TypeError):
        encode(value)


def test_encode_too_deep_is_a_value_error():
    deep = []
    for _ in range(30):
        deep = [deep]
    with pytest.raises(ValueError, match="nested deeper"):
        encode(deep)
