"""Requests are a stream of JSON texts: any cut gives the same requests, and nothing grows without limit."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.errors import CommandError
from instar.monitor.jsonstream import MAX_DEPTH, MAX_REQUEST, JsonSplitter, parse

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(st.text(), VALUES, max_size=3)


def take(splitter):
    found = []
    while True:
        try:
            text = splitter.next()
        except CommandError as e:
            found.append(str(e))
            continue
        if text is None:
            return found
        found.append(text)


def split(pieces, **options):
    splitter, found = JsonSplitter(**options), []
    for piece in pieces:
        splitter.feed(piece)
        found += take(splitter)
    return found


def cut(data, places):
    edges = sorted({0, len(data), *(p % (len(data) + 1) for p in places)})
    return [data[a:b] for a, b in pairwise(edges)]


@settings(max_examples=60)
@given(
    st.lists(OBJECTS, max_size=4),
    st.sampled_from(["", "\n", " \r\n"]),
    st.booleans(),
    st.lists(st.integers(0, 400)),
)
def test_split_objects_at_any_cut_gives_the_objects(objects, between, ascii_only, places) -> None:
    data = between.join(json.dumps(o, ensure_ascii=ascii_only) for o in objects)
    raw = data.encode("utf-8", "surrogatepass")
    texts = split(cut(raw, places))
    assert [json.loads(t) for t in texts] == objects


@settings(max_examples=150)
@given(
    st.lists(
        st.sampled_from(
            [b"{", b"}", b"[", b"]", b'"', b"\\", b"\n", b"\xff", b"a", b" ", b'{"a":1}']
        )
    ),
    st.lists(st.integers(0, 100)),
)
def test_split_garbage_at_any_cut_gives_the_same(parts, places) -> None:
    data = b"".join(parts)
    assert split(cut(data, places), limit=12) == split([data], limit=12)


def test_split_after_garbage_line_goes_on() -> None:
    assert split([b'foo bar\n{"a": 1}']) == ["JSON parse error, stray 'f'", b'{"a": 1}']


def test_split_newline_in_string_is_an_error_and_resynchronizes() -> None:
    assert split([b'{"a\n{}']) == ["JSON parse error, control character in string", b"{}"]


@pytest.mark.parametrize("begun", [b'{"a": [', b'{"a', b'{"a\\'])
def test_split_ff_in_a_request_begins_anew(begun) -> None:
    error, *rest = split([begun + b"\xff{}"])
    assert error.startswith("JSON parse error")
    assert rest == [b"{}"]


def test_split_brackets_in_strings_do_not_count() -> None:
    assert split([rb'{"}\"]": "[{"}']) == [rb'{"}\"]": "[{"}']


def test_split_unbalanced_brackets_is_an_error() -> None:
    assert split([b'{"a": ]}\n{}']) == ["JSON parse error, unbalanced brackets", b"{}"]


def test_split_too_long_gives_one_error_and_keeps_nothing() -> None:
    splitter = JsonSplitter()
    found = []
    for _ in range(32):
        splitter.feed(b'{"' + b"x" * 65536)
        found += take(splitter)
    assert found == ["JSON token size limit exceeded"]
    assert len(splitter) <= MAX_REQUEST
    splitter.feed(b"\n{}")
    assert take(splitter) == [b"{}"]


def test_split_too_deep_gives_one_error() -> None:
    assert split([b"[" * (MAX_DEPTH * 3), b"\n{}"]) == ["JSON nesting depth limit exceeded", b"{}"]


def test_split_at_the_depth_limit_is_parsed() -> None:
    (text,) = split([b"[" * MAX_DEPTH + b"]" * MAX_DEPTH])
    parse(text)


@pytest.mark.parametrize(
    "text",
    [
        b'{"a": 1, "a": 2}', b'{"a": NaN}', b'{"a" 1}', b'{"\xff": 1}', b'{"a": ' + b"9" * 5000 + b"}", b"{'a': 1}",
        b"{1: 2}", b'{"a": Infinity}',
    ],
)  # fmt: skip
def test_parse_what_is_not_json_is_refused(text) -> None:
    with pytest.raises(CommandError, match="JSON parse error"):
        parse(text)


def test_pending_goes_on_in_another_splitter() -> None:
    first = JsonSplitter()
    first.feed(b'{}{"a": "\\')
    assert take(first) == [b"{}"]
    second = JsonSplitter(first.pending)
    second.feed(b'""}')
    assert take(second) == [b'{"a": "\\""}']
