"""Flattened device trees, read back by hand from the specification's format."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.boards.fdt import Node, flatten
from instar.errors import InternalBugError

_NAME = st.from_regex(r"[a-z][a-z0-9,._+-]{0,30}", fullmatch=True)
_PROPERTY = st.from_regex(r"[a-z0-9,._+?#-]{1,31}", fullmatch=True)
_TREES = st.recursive(
    st.tuples(st.dictionaries(_PROPERTY, st.binary(max_size=9), max_size=3), st.just({})),
    lambda children: st.tuples(
        st.dictionaries(_PROPERTY, st.binary(max_size=9), max_size=3),
        st.dictionaries(_NAME, children, max_size=3),
    ),
    max_leaves=8,
)


def build(node: Node, tree: tuple[dict, dict]) -> Node:
    for name, value in tree[0].items():
        node.blob(name, value)
    for name, below in tree[1].items():
        build(node.child(name), below)
    return node


def words(blob: bytes, at: int, count: int = 1) -> tuple[int, ...]:
    return struct.unpack_from(f">{count}I", blob, at)


def text(blob: bytes, at: int) -> str:
    return blob[at : blob.index(b"\0", at)].decode()


def read_node(blob: bytes, at: int, strings: int) -> tuple[str, tuple[dict, dict], int]:
    """A strict reader of one node: 5.4 of the specification."""
    assert words(blob, at) == (1,)
    name = text(blob, at + 4)
    at += 4 + (len(name) + 4) // 4 * 4
    properties: dict[str, bytes] = {}
    children: dict[str, tuple[dict, dict]] = {}
    while words(blob, at) == (3,):
        length, name_at = words(blob, at + 4, 2)
        properties[text(blob, strings + name_at)] = blob[at + 12 : at + 12 + length]
        at += 12 + (length + 3) // 4 * 4
    while words(blob, at) == (1,):
        child, below, at = read_node(blob, at, strings)
        children[child] = below
    assert words(blob, at) == (2,)
    return name, (properties, children), at + 4


@settings(max_examples=100)
@given(_TREES)
def test_flatten_of_any_tree_reads_back_as_it(tree: tuple[dict, dict]) -> None:
    blob = flatten(build(Node(), tree))
    _, size, tree_at, strings_at, _, _, _, _, strings_size, tree_size = words(blob, 0, 10)
    name, found, end = read_node(blob, tree_at, strings_at)
    assert (name, found) == ("", tree)
    assert words(blob, end) == (9,)
    assert end + 4 == tree_at + tree_size == strings_at
    assert strings_at + strings_size == size == len(blob)


def test_flatten_header_is_version_17_with_aligned_blocks() -> None:
    blob = flatten(Node(), reservations=[(0x8000_0000, 0x2_0000)], boot_cpu=3)
    magic, _, tree_at, _, reserved_at, version, compatible, boot_cpu, _, _ = words(blob, 0, 10)
    assert (magic, version, compatible, boot_cpu) == (0xD00DFEED, 17, 16, 3)
    assert (reserved_at % 8, tree_at % 4) == (0, 0)
    assert struct.unpack_from(">4Q", blob, reserved_at) == (0x8000_0000, 0x2_0000, 0, 0)


def test_properties_of_each_kind_have_the_specified_bytes() -> None:
    node = Node()
    node.u32("cells", 1, 0xFFFFFFFF)
    node.u64("reg", 0x80000000)
    node.text("compatible", "a", "bc")
    node.text("path", "\udcff")  # a byte that is no UTF-8, from the command line
    node.empty("ranges")
    assert node.properties == {
        "cells": b"\0\0\0\1\xff\xff\xff\xff",
        "reg": b"\0\0\0\0\x80\0\0\0",
        "compatible": b"a\0bc\0",
        "path": b"\xff\0",
        "ranges": b"",
    }


def test_flatten_of_a_name_twice_keeps_it_once() -> None:
    root = Node()
    root.empty("phandle")
    root.child("a").empty("phandle")
    assert flatten(root).count(b"phandle\0") == 1


@pytest.mark.parametrize(
    "name", ["", "a" * 32, "1a", "a b", "a@", "@1", "a@1@2", "ä", "a/b", "a\0"]
)
def test_child_with_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(InternalBugError, match="is not a node name"):
        Node().child(name)


def test_child_of_a_name_that_exists_is_refused() -> None:
    root = Node()
    root.child("cpu@0")
    with pytest.raises(InternalBugError, match="exists already"):
        root.child("cpu@0")


@pytest.mark.parametrize("name", ["", "a" * 32, "a b", "a@1", "ä"])
def test_property_with_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(InternalBugError, match="is not a property name"):
        Node().empty(name)


def test_property_set_twice_is_refused() -> None:
    node = Node()
    node.empty("ranges")
    with pytest.raises(InternalBugError, match="set already"):
        node.empty("ranges")


@pytest.mark.parametrize("value", [-1, 1 << 32])
def test_cell_out_of_range_is_refused(value: int) -> None:
    with pytest.raises(InternalBugError, match="'reg'"):
        Node().u32("reg", value)


def test_text_with_a_nul_is_refused() -> None:
    with pytest.raises(InternalBugError, match="contains a NUL"):
        Node().text("bootargs", "a\0b")
