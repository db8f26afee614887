"""A prepared start: what the rehearsal found out, for the program that then takes over. The first of the resume path.

The rehearsal (:mod:`instar.cli.preparing`) imports what this machine needs and parses these words; what it had imported
is handed over as byte code in one memfd, so that the start looks for no files, opens none and compiles nothing, and
beside it what the words mean. It is used only if nothing has changed since: interpreter, package, words, and time and
size of each file. Otherwise the start is an ordinary one, and the report says so.

It is code, and it is not checked for being harmless: it comes from the program before this one, which chose what to
execute with which environment. Source: own; docs/decisions/0011-the-pause.md.
"""

from __future__ import annotations

import os
import sys
from _frozen_importlib_external import (
    MAGIC_NUMBER,
    ExtensionFileLoader,
    SourceFileLoader,
    spec_from_file_location,
)
from marshal import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import MutableMapping, Sequence
    from importlib.machinery import ModuleSpec
    from types import CodeType
    from typing import Any, Final

    # By module: path of its source (or of the library that it is) and of its cached byte code, whether it is a package,
    # time (ns) and size of the file, and the place of its byte code in the list; -1: it is a library.
    Row = tuple[str, str, bool, int, int, int]

VARIABLE: Final = (
    "INSTAR_CPR_PREPARED"  # number of the memfd, in the environment of the new program only
)
MAX_SIZE: Final = 3 << 20  # bytes; what is larger is not handed over
LENGTH: Final = 8  # bytes that tell how long the index is, which is first
_FORMAT: Final = 1


def stamp() -> tuple[object, ...]:
    """Return what has to be the same for byte code to be the same."""
    place = os.path.dirname(__file__)
    return _FORMAT, MAGIC_NUMBER, sys.version, sys.flags.optimize, sys.prefix, place


class Prepared:
    """What was handed over, on ``sys.meta_path`` until :meth:`release`.

    Attributes:
        words: The command line that it was made for.
        config: What that means, plain; None: nobody knows.
    """

    def __init__(
        self, codes: list[CodeType], rows: dict[str, Row], words: list[str], config: object
    ) -> None:
        self._codes = codes
        self._rows = rows
        self.words = words
        self.config = config

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> Any:  # noqa: ANN401 - the frozen module's own type
        """Return where a module is, without a look; None if it is none of those that were prepared."""
        row = self._rows.pop(name, None)  # an import again is an ordinary one
        if row is None:
            return None
        path, cached, package, _, _, number = row
        if number < 0:
            return spec_from_file_location(name, path, loader=ExtensionFileLoader(name, path))
        loader = _Loader(name, path, self._codes[number])
        places = [os.path.dirname(path)] if package else None
        spec: ModuleSpec | None = spec_from_file_location(
            name, path, loader=loader, submodule_search_locations=places
        )
        if spec is not None:
            spec.cached = cached
        return spec

    def release(self) -> None:
        """Forget it all, at the end of the start: later imports are ordinary ones."""
        finders: list[Any] = sys.meta_path
        if self in finders:
            finders.remove(self)
        self._codes, self._rows, self.config = [], {}, None


class _Loader(SourceFileLoader):
    """Loads one module of what was handed over; in all else from its file."""

    def __init__(self, name: str, path: str, code: CodeType) -> None:
        super().__init__(name, path)
        self._code: CodeType | None = code

    def get_code(self, fullname: str) -> CodeType | None:
        """Return the byte code."""
        code, self._code = self._code, None
        return super().get_code(fullname) if code is None else code


_found: list[Prepared] = []


def take_over(environ: MutableMapping[str, str]) -> bool:
    """Use what was handed over, if there is something and it fits; nothing stands against an ordinary start otherwise.

    Args:
        environ: Where the variable is, which is taken out.

    Returns:
        Whether it is used.
    """
    value = environ.pop(VARIABLE, "")
    if not value:
        return False
    try:
        made = _read(int(value))
    except (OSError, ValueError, EOFError, TypeError, OverflowError, AttributeError):
        return False
    if made is None:
        return False
    finders: list[Any] = sys.meta_path
    finders.insert(0, made)
    _found.append(made)
    return True


def _read(fd: int) -> Prepared | None:
    """Return what is in the memfd, None if it is for another start.

    Raises:
        OSError, ValueError, EOFError, TypeError, AttributeError: it is damaged, or a file is not there any more.
    """
    size = os.fstat(fd).st_size
    if not LENGTH < size <= MAX_SIZE:
        return None
    data = os.pread(fd, size, 0)
    start = LENGTH + int.from_bytes(data[:LENGTH], "little")
    view = memoryview(data)
    made_by, words, config, rows = loads(view[LENGTH:start])  # noqa: S302 - see above
    if made_by != stamp():
        return None
    for path, _, _, time_ns, length, _ in rows.values():
        found = os.stat(path)
        if found.st_mtime_ns != time_ns or found.st_size != length:
            return None
    codes = loads(view[start:])  # noqa: S302 - see above
    kind = type(stamp.__code__)
    if any(type(code) is not kind for code in codes):
        return None
    if any(number >= len(codes) for *_, number in rows.values()):
        return None
    return Prepared(codes, rows, words, config)


def config_of(words: Sequence[str]) -> object:
    """Return what these words mean, plain (:mod:`instar.cli.options.plain`); None if nobody knows."""
    for made in _found:
        if made.words == list(words):
            return made.config
    return None


def was_used() -> bool:
    """Return whether this program began with what was handed over."""
    return bool(_found)


def release() -> None:
    """Give the memory of it back; the guest runs."""
    for made in _found:
        made.release()
