# ruff: noqa: PYI021 - the implementation is compiled: this is where its interface is read
"""The compiled part of the KVM back end, from ``compiled/run.c``."""

from typing_extensions import Buffer

def accept_kicks() -> None:
    """Let kicks end what the calling thread waits for; each vCPU thread calls it first (OSError)."""

def address_of(buffer: Buffer, /) -> int:
    """Return the host address of a writable buffer; it must not be resized while the kernel knows it (BufferError)."""

def call(fd: int, request: int, value: int, /) -> int:
    """Return what ``ioctl(fd, request, value)`` returned, without the GIL; ``value`` is 0 to 2**64 - 1 (OSError)."""

def kick(thread: int, /) -> None:
    """Kick a thread of this process, by its id of the host; one that has ended is fine (OSError)."""

def run(fd: int, /) -> int:
    """Let a vCPU run, without the GIL, until it exits or a kick comes; return 0 or errno."""
