"""Find kernel modules and what they need, in the order in which they load.

Debian's package has no ``modules.dep`` (depmod makes it on installation), so dependencies come from where depmod's
own ``depends`` do: the ``.modinfo`` section inside each module.

Source: ELF-64 (System V gABI, "Sections"); Linux include/linux/moduleinfo (keys ``depends``, ``softdep``, ``alias``).
"""

from __future__ import annotations

import lzma
import os
import struct
from typing import NamedTuple

from instar.errors import ConfigError

MODULE_LIMIT = 64 << 20  # bytes unpacked; the largest of Debian's is about 10 MiB
HEADER = 64  # bytes of an ELF-64 header
SECTION = struct.Struct("<IIQQQQIIQQ")
ALIAS_FOLDER = "kernel/crypto"  # where soft dependencies by alias ("crypto-crc32c") lead to


class Module(NamedTuple):
    """A module as the kernel takes it.

    Attributes:
        name: Canonical name, underscores for dashes.
        data: The unpacked ELF file.
    """

    name: str
    data: bytes


class ModuleTree:
    """The modules of one unpacked kernel package.

    Args:
        root: The folder ``.../modules/<release>``.

    Source: own.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._files = _module_files(root)
        self._builtin = _builtin_names(root)
        self._aliases: dict[str, str] | None = None

    def load_order(self, wanted: tuple[str, ...]) -> list[Module]:
        """Return ``wanted`` and what they need, each once, dependencies first.

        Names that the kernel has built in are left out.

        Raises:
            ConfigError: a module is neither there nor built in, or is damaged; nothing was changed.
        """
        order: dict[str, Module] = {}
        for name in wanted:
            self._visit(canonical(name), order, ())
        return list(order.values())

    def _visit(self, name: str, order: dict[str, Module], above: tuple[str, ...]) -> None:
        if name in order or name in self._builtin:
            return
        if name in above:
            raise ConfigError(
                f"kernel modules need each other in a circle: {' '.join((*above, name))}"
            )
        module = Module(name, self._read(name))
        info = modinfo(module.data)
        for needed in needs(info):
            self._visit(self._resolve(needed), order, (*above, name))
        order[name] = module

    def _resolve(self, needed: str) -> str:
        name = canonical(needed)
        if name in self._files or name in self._builtin:
            return name
        if self._aliases is None:
            self._aliases = self._read_aliases()
        return self._aliases.get(needed, name)

    def _read_aliases(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for name, path in sorted(self._files.items()):
            if os.path.relpath(path, self._root).startswith(ALIAS_FOLDER):
                for alias in modinfo(self._read(name)).get("alias", []):
                    found.setdefault(alias, name)
        return found

    def _read(self, name: str) -> bytes:
        path = self._files.get(name)
        if path is None:
            raise ConfigError(f"the kernel package has no module '{name}', loadable or built in")
        return read_module(path)


def canonical(name: str) -> str:
    """Return a module's name as the kernel compares it."""
    return name.replace("-", "_")


def read_module(path: str) -> bytes:
    """Return a module's ELF file, unpacked where it is ``.ko.xz``.

    Raises:
        ConfigError: it cannot be unpacked, or is longer than 64 MiB.
    """
    with open(path, "rb") as stream:
        raw = stream.read(MODULE_LIMIT + 1)
    if path.endswith(".xz"):
        try:
            raw = lzma.LZMADecompressor().decompress(raw, MODULE_LIMIT + 1)
        except lzma.LZMAError as exc:
            raise ConfigError(f"{os.path.basename(path)} cannot be unpacked") from exc
    if len(raw) > MODULE_LIMIT:
        raise ConfigError(f"{os.path.basename(path)} is longer than {MODULE_LIMIT} bytes")
    return raw


def modinfo(elf: bytes) -> dict[str, list[str]]:
    """Return the ``key=value`` strings of a module's ``.modinfo`` section, values in their order.

    Raises:
        ConfigError: ``elf`` is no 64-bit little-endian ELF file with that section.
    """
    section = _section(elf, b".modinfo")
    found: dict[str, list[str]] = {}
    for item in section.split(b"\0"):
        key, equals, value = item.decode("utf-8", "replace").partition("=")
        if equals:
            found.setdefault(key, []).append(value)
    return found


def needs(info: dict[str, list[str]]) -> list[str]:
    """Return the names that must be loaded before: hard ones, and "pre:" of soft ones."""
    names = [name for text in info.get("depends", []) for name in text.split(",") if name]
    for text in info.get("softdep", []):
        before, _, _ = text.partition("post:")
        names += before.removeprefix("pre:").split()
    return names


def _section(elf: bytes, name: bytes) -> bytes:
    if len(elf) < HEADER or elf[:6] != b"\x7fELF\x02\x01":
        raise ConfigError("a kernel module is no 64-bit little-endian ELF file")
    try:
        (table,) = struct.unpack_from("<Q", elf, 0x28)
        count, names_index = struct.unpack_from("<HH", elf, 0x3C)
        rows = [SECTION.unpack_from(elf, table + SECTION.size * row) for row in range(count)]
        names = _slice(elf, rows[names_index])
        for row in rows:
            if names[row[0] : names.index(b"\0", row[0])] == name:
                return _slice(elf, row)
    except (struct.error, IndexError, ValueError, OverflowError) as exc:
        raise ConfigError("a kernel module's section table is damaged") from exc
    raise ConfigError(f"a kernel module has no section {name.decode()}")


def _slice(elf: bytes, row: tuple[int, ...]) -> bytes:
    return elf[row[4] : row[4] + row[5]]


def _module_files(root: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for folder, _, names in os.walk(os.path.join(root, "kernel")):
        for name in names:
            stem, dot, _ = name.partition(".ko")
            if dot:
                found[canonical(stem)] = os.path.join(folder, name)
    return found


def _builtin_names(root: str) -> frozenset[str]:
    path = os.path.join(root, "modules.builtin")
    if not os.path.exists(path):
        return frozenset()
    with open(path, encoding="utf-8") as stream:
        return frozenset(
            canonical(os.path.basename(line.strip()).removesuffix(".ko")) for line in stream
        )
