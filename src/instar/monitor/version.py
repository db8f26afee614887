"""This program's version, as the monitors show it."""

from __future__ import annotations

from typing import Final

from instar._version import VERSION as _TEXT

VERSION: Final = tuple(int(part) for part in _TEXT.split(".")[:3])  # major, minor, micro
PACKAGE: Final = f"instar {_TEXT}"
