# ruff: noqa: PYI021 - the implementation is compiled: this is where its interface is read
"""The compiled part of ``keeper``, from ``compiled/keeper.c``."""

from typing_extensions import Buffer

def start(stack: Buffer, hold: int, ready: int, /) -> int:
    """Start a task that shares this address space and has only two descriptors: copies of ``hold`` and ``ready``.

    It writes a byte to ``ready`` and closes that when it has closed all else, and ends at the end of file of ``hold``.

    Args:
        stack: Writable; must stay while the task lives. At least 8192 bytes.
        hold: Read end of a pipe.
        ready: Write end of another.

    Returns:
        Its process, a child that gives no signal when it ends: ``waitpid`` finds it with ``__WCLONE`` alone.

    Raises:
        OSError: It cannot be started: ENOSYS on an architecture for which this was not written.
        ValueError: The arguments cannot be.
    """
