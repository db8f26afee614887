"""What a release is, in one number.

Of a program that the kernel loads, the SHA-256 of its file, as ``sha256sum`` prints it. Of a script that number
would say next to nothing, as what it imports is what runs: so it is the SHA-256 of the text that ``sha256sum`` would
print for the script, under the name ``program``, and then for each ``*.py`` and ``*.so`` of the package's folder,
sorted by name.

Not covered: the interpreter, its library, and files that are changed between this look and the start of the program.
The script itself is executed by the descriptor that was read here; nobody can swap it.

Source: own.
"""

from __future__ import annotations

import hashlib
import os

from instar.cpr.errors import TargetError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Final

PREFIX: Final = "sha256:"
CHUNK: Final = 1 << 20  # bytes
MAX_FILES: Final = 20_000
_HEX: Final = frozenset("0123456789abcdef")
_LENGTH: Final = 64


def normal(text: str) -> str:
    """Return a digest as ``sha256:hex``; "" stays "".

    Raises:
        ValueError: It is not one.
    """
    digits = text.lower().removeprefix(PREFIX)
    if digits and (len(digits) != _LENGTH or not _HEX.issuperset(digits)):
        raise ValueError(f"{text[:80]!r} is not 64 hexadecimal digits, with or without {PREFIX}")
    return PREFIX + digits if digits else ""


def digest_of(fd: int, package: str, stopped: Callable[[], bool]) -> str:
    """Return the digest of a program.

    Args:
        fd: Its open file.
        package: Of a script, the folder of what it imports; "" for other programs.
        stopped: Asked often; true: nobody waits any more.

    Raises:
        TargetError: The package has more than 20000 files, or nobody waits.
        OSError: Something cannot be read.
    """
    own = _of_file(fd, stopped)
    if not package:
        return PREFIX + own
    text = hashlib.sha256(f"{own}  program\n".encode())
    for name in sorted(_files(package)):
        part = os.open(os.path.join(package, name), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            text.update(os.fsencode(f"{_of_file(part, stopped)}  {name}\n"))
        finally:
            os.close(part)
    return PREFIX + text.hexdigest()


def _of_file(fd: int, stopped: Callable[[], bool]) -> str:
    found = hashlib.sha256()
    at = 0
    while chunk := os.pread(fd, CHUNK, at):
        if stopped():
            raise TargetError("nobody waits for the digest any more")
        found.update(chunk)
        at += len(chunk)
    return found.hexdigest()


def _files(package: str) -> Iterator[str]:
    count = 0
    for place, _, names in os.walk(package):
        for name in names:
            if name.endswith((".py", ".so")):
                count += 1
                if count > MAX_FILES:
                    raise TargetError(f"{package}: more than {MAX_FILES} files, no digest is made")
                yield os.path.relpath(os.path.join(place, name), package)
