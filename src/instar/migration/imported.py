"""What a new program imported before the guest ran again: the start path has a budget (docs/reference/pause.md).

Not on the resume path. Source: own.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable


def count_byte_code(names: Iterable[str]) -> tuple[int, int]:
    """Return how many modules these are, and how many bytes of byte code they have on disk.

    Args:
        names: Of modules that are imported. One that is compiled to machine code, or not cached, has no bytes.
    """
    listed = list(names)
    return len(listed), sum(_size(name) for name in listed)


def _size(name: str) -> int:
    path = getattr(sys.modules.get(name), "__cached__", None)
    try:
        return os.stat(path).st_size if isinstance(path, str) else 0
    except OSError:
        return 0
