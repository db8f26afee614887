"""Guest memory that stays in a file while no program runs the guest (cpr-reboot with x-ignore-shared).

Beside each file lies a mark, ``PATH.instar-left``, with the nonce of the state that belongs to it. Whoever goes on
takes the marks away first, and of two programs only one can. So a state is refused once its memory went on without
it, and a program that left its memory does not go on after another one did.

Not on the resume path. Source: own; docs/decisions/0010.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from instar.cpr.errors import StateInvalidError, TakenOverError
from instar.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Final

    from instar.machine.parts import MemoryBackend

SUFFIX: Final = ".instar-left"
_MAX: Final = 256  # bytes of a mark


def can_stay(backend: MemoryBackend) -> bool:
    """Whether the memory is there when no program has it open: in a file with a name, and shared."""
    return bool(backend.path) and backend.share and os.path.isfile(backend.path)


def leave(backends: Iterable[MemoryBackend], nonce: str) -> None:
    """Bring the memories to their files and mark them.

    Raises:
        HostError: The host refused; some may be marked, which :func:`void` undoes.
    """
    for backend in backends:
        mark = backend.path + SUFFIX
        try:
            os.fsync(backend.block.fd)
            fd = os.open(
                f"{mark}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600
            )
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
    """Take away what marks there are: the memories go on as they are, and no state belongs to them."""
    for backend in backends:
        if can_stay(backend):
            _remove(backend.path + SUFFIX)


def check(backends: Sequence[MemoryBackend], left: object, nonce: object) -> None:
    """See whether the memories that a state left in place are here, as they were left.

    Args:
        backends: This program's that were not in the stream.
        left: Names of those that were left, from the state (untrusted).
        nonce: Of the state.

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


def take(backends: Iterable[MemoryBackend], nonce: object) -> None:
    """Become the one who goes on with the memories.

    Raises:
        TakenOverError: Another program was faster.
    """
    for backend in backends:
        if _mark(backend) != nonce or not _remove(backend.path + SUFFIX):
            raise TakenOverError(
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
