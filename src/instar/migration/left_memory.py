"""Guest memory in a file that has a name: one program at a time has it, and it may wait there while none runs.

The file is locked by who runs the guest (by open file description, so the lock crosses an update or a transfer with the
descriptor). Beside a file that was left lies a mark, ``PATH.instar-left``, with the nonce of the state that was saved
with it. Whoever goes on, or starts another guest there, takes the marks away first, and of two programs only one can.
So a state is refused once its memory went on without it, and a program that left its memory does not go on after
another one used it.

Not on the resume path. Source: own; Linux's fcntl(2), "Open file description locks"; docs/decisions/0010.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from zlib import crc32

from instar.block import file_io
from instar.cpr.errors import StateInvalidError, TakenOverError
from instar.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Final

    from instar.machine.parts import MemoryBackend

SUFFIX: Final = ".instar-left"
_PAGE: Final = 4096
_SAMPLES: Final = 4096  # pages of a memory that are looked at
_MASK: Final = (1 << 32) - 1
_MAX: Final = 256  # bytes of a mark
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC  # follows no link


def can_stay(backend: MemoryBackend) -> bool:
    """Whether the memory is there when no program has it open: shared, in a file that has its name still."""
    if not backend.path or not backend.share or not os.path.isfile(backend.path):
        return False
    return os.path.samestat(os.stat(backend.path), os.fstat(backend.block.fd))


def claim(backends: Iterable[MemoryBackend]) -> None:
    """Take the files of these memories for this program alone; having them is fine.

    A private mapping only reads its file: several programs may have that, and none that writes.

    Raises:
        HostError: Another program has one; nothing was written.
    """
    for backend in backends:
        if backend.path and not file_io.try_lock(backend.block.fd, exclusive=backend.share):
            raise HostError(
                f"memory backend {backend.id}: another program has {backend.path}; nothing was written to it"
            ).hint("is another virtual machine using it?")


def give_up(backends: Iterable[MemoryBackend]) -> None:
    """Let another program take the files."""
    for backend in backends:
        if backend.path:
            file_io.unlock(backend.block.fd)


def begin_anew(backends: Sequence[MemoryBackend]) -> None:
    """Take the files to write something else there than what they hold.

    Raises:
        HostError: As :func:`claim`.
    """
    claim(backends)
    void(backends)


def leave(backends: Iterable[MemoryBackend], nonce: str) -> None:
    """Bring the memories to their files and mark them.

    Raises:
        HostError: The host refused; some may be marked, which :func:`void` undoes.
    """
    for backend in backends:
        mark = backend.path + SUFFIX
        try:
            os.fsync(backend.block.fd)
            _remove(f"{mark}.new")  # of a program that was ended while it made one
            fd = os.open(f"{mark}.new", _NEW_FILE, 0o600)
            try:
                os.write(fd, f"{nonce}\n".encode())
                os.fsync(fd)
            finally:
                os.close(fd)
            os.rename(f"{mark}.new", mark)
            _sync_folder(mark)
        except OSError as e:
            raise HostError(
                f"memory backend {backend.id}: cannot leave {backend.path}: {os.strerror(e.errno or 0)}"
            ) from e


def void(backends: Iterable[MemoryBackend]) -> None:
    """Take away what marks there are: no state belongs to these memories, and who left them does not go on."""
    for backend in backends:
        if can_stay(backend):
            _remove(backend.path + SUFFIX)


def sums(backends: Iterable[MemoryBackend]) -> dict[str, int]:
    """Return what tells these memories from others, by id: checksums of up to :data:`_SAMPLES` pages of each."""
    return {backend.id: _sum(backend) for backend in backends}


def _sum(backend: MemoryBackend) -> int:
    """Return a checksum of pages from all over a memory: all of it would take as long as copying it."""
    step = max(_PAGE, backend.size // _SAMPLES // _PAGE * _PAGE)
    view, found = backend.block.view, backend.size & _MASK
    for at in range(0, backend.size, step):
        found = crc32(view[at : at + _PAGE], found)
    return found


def check(
    backends: Sequence[MemoryBackend], left: object, nonce: object, expected: object
) -> None:
    """See whether the memories that a state left in place are here, as they were left.

    Args:
        backends: This program's that were not in the stream.
        left: Names of those that were left, from the state (untrusted).
        nonce: Of the state.
        expected: What :func:`sums` returned, from the state; None: it does not say.

    Raises:
        StateInvalidError: One is not, or is not as it was.
    """
    names: list[object] = left if isinstance(left, list) else []  # pyright: ignore[reportUnknownVariableType]
    for backend in backends:
        if backend.id not in names or not can_stay(backend):
            raise StateInvalidError(
                f"{backend.id}: its bytes are neither in the state nor in a shared file of this program; "
                "nothing was loaded"
            )
        if _mark(backend) != nonce:
            raise StateInvalidError(
                f"{backend.id}: {backend.path} is not as this state left it (it went on, or is another file); "
                "nothing was loaded"
            )
        if isinstance(expected, dict) and expected.get(backend.id) != _sum(backend):  # pyright: ignore[reportUnknownMemberType]
            raise StateInvalidError(
                f"{backend.id}: {backend.path} does not hold what this state left there: it was changed or exchanged; "
                "nothing was loaded"
            )


def take(backends: Sequence[MemoryBackend], nonce: object) -> None:
    """Become the one who goes on with the memories.

    Raises:
        HostError: Another program has one of them at this moment; nothing changed.
        TakenOverError: Another program was faster.
    """
    _check_marks(backends, nonce)
    claim(backends)
    _check_marks(backends, nonce)
    for backend in backends:
        if not _remove(backend.path + SUFFIX):
            raise _gone(backend)


def _check_marks(backends: Sequence[MemoryBackend], nonce: object) -> None:
    for backend in backends:
        if _mark(backend) != nonce:
            give_up(backends)
            raise _gone(backend)


def _gone(backend: MemoryBackend) -> TakenOverError:
    return TakenOverError(
        f"another program went on with {backend.path}: this one ends without touching it"
    )


def _mark(backend: MemoryBackend) -> str:
    try:
        fd = os.open(backend.path + SUFFIX, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        return os.read(fd, _MAX).decode(errors="replace").strip()
    except OSError:
        return ""
    finally:
        os.close(fd)


def _remove(path: str) -> bool:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    _sync_folder(path)
    return True


def _sync_folder(path: str) -> None:
    fd = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
