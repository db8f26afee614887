# ruff: noqa: PYI021 - the implementation is compiled: this is where its interface is read
"""The compiled part of ``group``, from ``compiled/descriptors.c``."""

from typing_extensions import Buffer

def identities(numbers: Buffer, /) -> bytes:
    """Return 32 bytes for each of the descriptors: device, inode, special device and type, or all ones if it is closed.

    Args:
        numbers: int32 of this machine's byte order each.

    Raises:
        ValueError: Not a whole number of them.
    """

def set_cloexec(numbers: Buffer, on: bool, /) -> None:
    """Set or clear close-on-exec of each; every one is tried.

    Raises:
        OSError: What the kernel said of the first that failed.
        ValueError: As :func:`identities`.
    """
