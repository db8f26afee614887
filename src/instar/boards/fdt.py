"""Flattened device trees: nodes with properties, written as the blob a kernel is handed.

Source: Devicetree Specification v0.4, chapter 2 (names, property values) and chapter 5 (format, version 17).
"""

from __future__ import annotations

import struct

from instar.errors import InternalBugError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

MAGIC: Final = 0xD00DFEED
VERSION: Final = 17
LAST_COMPATIBLE: Final = 16
_HEADER: Final = struct.Struct(">10I")
_CELL: Final = struct.Struct(">I")
_PROPERTY: Final = struct.Struct(">II")  # length, offset of the name in the strings block
_RESERVATION: Final = struct.Struct(">QQ")
_BEGIN_NODE, _END_NODE, _PROP, _END = (_CELL.pack(token) for token in (1, 2, 3, 9))
_MAX_NAME: Final = 31  # characters, without the unit address
_NODE_CHARS: Final = frozenset(
    "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ,._+-"
)
_PROPERTY_CHARS: Final = _NODE_CHARS | frozenset("?#")


class Node:
    """One node: a name, properties in order, children in order.

    Args:
        name: ``serial@10000000``; empty for the root only.
    """

    __slots__ = ("children", "name", "properties")

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.properties: dict[str, bytes] = {}
        self.children: list[Node] = []

    def child(self, name: str) -> Node:
        """Add a node under this one and return it.

        Raises:
            InternalBugError: not a node name (spec 2.2.1), or there is one already; nothing was added.
        """
        base, at, unit = name.partition("@")
        good = 0 < len(base) <= _MAX_NAME and base[0].isalpha() and bool(at) == bool(unit)
        if not good or not _NODE_CHARS.issuperset(base + unit):
            raise InternalBugError(f"device tree: {name!r} is not a node name; it was not added")
        if any(node.name == name for node in self.children):
            raise InternalBugError(
                f"device tree: node {name!r} exists already under {self.name!r}"
            )
        node = Node(name)
        self.children.append(node)
        return node

    def blob(self, name: str, value: bytes) -> None:
        """Set a property to bytes as they are.

        Raises:
            InternalBugError: not a property name (spec 2.2.4.1), or it is set already.
        """
        if not 0 < len(name) <= _MAX_NAME or not _PROPERTY_CHARS.issuperset(name):
            raise InternalBugError(f"device tree: {name!r} is not a property name; it was not set")
        if name in self.properties:
            raise InternalBugError(f"device tree: {name!r} of {self.name!r} is set already")
        self.properties[name] = value

    def empty(self, name: str) -> None:
        """Set a property whose presence is its value (``ranges``, ``interrupt-controller``)."""
        self.blob(name, b"")

    def u32(self, name: str, *cells: int) -> None:
        """Set a property to 32-bit cells; a phandle is one of them.

        Raises:
            InternalBugError: a cell is not 0 to 2**32 - 1.
        """
        self._pack(name, "I", cells)

    def u64(self, name: str, *values: int) -> None:
        """Set a property to 64-bit numbers, two cells each (``reg`` under two address and size cells).

        Raises:
            InternalBugError: a number is not 0 to 2**64 - 1.
        """
        self._pack(name, "Q", values)

    def text(self, name: str, *texts: str) -> None:
        """Set a property to one string or a list of them.

        Raises:
            InternalBugError: a string contains a NUL.
        """
        if any("\0" in text for text in texts):
            raise InternalBugError(f"device tree: a string of {name!r} contains a NUL")
        self.blob(
            name, b"".join(text.encode("utf-8", "surrogateescape") + b"\0" for text in texts)
        )

    def _pack(self, name: str, code: str, values: tuple[int, ...]) -> None:
        try:
            packed = struct.pack(f">{len(values)}{code}", *values)
        except struct.error as e:
            raise InternalBugError(f"device tree: {name!r} of {self.name!r}: {e}") from e
        self.blob(name, packed)


class _Strings:
    """The strings block: each name once, one that ends another shares its bytes."""

    __slots__ = ("data",)

    def __init__(self) -> None:
        self.data = b""

    def offset(self, name: str) -> int:
        raw = name.encode("ascii") + b"\0"
        found = self.data.find(raw)
        if found < 0:
            found = len(self.data)
            self.data += raw
        return found


def flatten(
    root: Node, *, reservations: Sequence[tuple[int, int]] = (), boot_cpu: int = 0
) -> bytes:
    """Return the tree as a version 17 blob.

    Args:
        root: The node with the empty name.
        reservations: Memory that the kernel must leave alone: (address, size), bytes.
        boot_cpu: ``reg`` of the CPU that boots.

    Returns:
        The blob; put it at a multiple of 8.

    Source: Devicetree Specification v0.4, 5.2 to 5.6.
    """
    strings = _Strings()
    structure: list[bytes] = []
    _write_node(root, strings, structure)
    structure.append(_END)
    tree = b"".join(structure)
    reserved = b"".join(_RESERVATION.pack(*entry) for entry in (*reservations, (0, 0)))
    tree_at = _HEADER.size + len(reserved)
    strings_at = tree_at + len(tree)
    header = _HEADER.pack(
        MAGIC,
        strings_at + len(strings.data),
        tree_at,
        strings_at,
        _HEADER.size,  # 40, a multiple of 8 as the reservations need
        VERSION,
        LAST_COMPATIBLE,
        boot_cpu,
        len(strings.data),
        len(tree),
    )
    return header + reserved + tree + strings.data


def _write_node(node: Node, strings: _Strings, out: list[bytes]) -> None:
    """Append a node; properties come before child nodes (spec 5.4.2)."""
    out.append(_BEGIN_NODE + _padded(node.name.encode("ascii") + b"\0"))
    for name, value in node.properties.items():
        out.append(_PROP + _PROPERTY.pack(len(value), strings.offset(name)) + _padded(value))
    for child in node.children:
        _write_node(child, strings, out)
    out.append(_END_NODE)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
