"""A prepared start: what the rehearsal found out, for the program that then takes over. The first of the resume path.

The rehearsal (:mod:`instar.cli.preparing`) imports what this machine needs and parses these words; what it had imported
is handed over as byte code in one memfd, so that the start looks for no files, opens none and compiles nothing, and
beside it what the words mean. Our own modules are made at once, in the order in which the rehearsal had finished them,
so that each finds what it imports: the import system's own way costs nearly as much again as executing them.
All is used only if nothing has changed since: interpreter, package, words, and time and size of each file. Otherwise
the start is an ordinary one, and the report says so.

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
    from types import CodeType, ModuleType
    from typing import Any, Final

    # By module: path of its source (or of the library that it is) and of its cached byte code, whether it is a package,
    # time (ns) and size of the file, and the place of its byte code in the list; -1: it is a library.
    Row = tuple[str, str, bool, int, int, int]

VARIABLE: Final = (
    "INSTAR_CPR_PREPARED"  # number of the memfd, in the environment of the new program only
)
MAX_SIZE: Final = 3 << 20  # bytes; what is larger is not handed over
OURS: Final = "instar."
LENGTH: Final = 8  # bytes that tell how long the index is, which is first
_FORMAT: Final = 1


def stamp() -> tuple[object, ...]:
    """Return what has to be the same for byte code to be the same."""
    place = os.path.dirname(__file__)
    return _FORMAT, MAGIC_NUMBER, sys.version, sys.flags.optimize, sys.prefix, place


_Module: type[ModuleType] = type(sys)  # pyright: ignore[reportUnknownVariableType, reportAssignmentType]


class Prepared:
    """What was handed over, on ``sys.meta_path`` until :meth:`release`.

    Attributes:
        words: The command line that it was made for.
        config: What that means, plain; None: nobody knows.
    """

    def __init__(self, rows: dict[str, Row], words: list[str], config: object) -> None:
        self._codes: list[CodeType] = []
        self._rows = rows
        self._filled: list[tuple[ModuleType, str, str]] = []
        self.words = words
        self.config = config

    def read_codes(self, fd: int, start: int) -> None:
        """Take the byte code, which begins there in the memfd.

        Raises:
            OSError, ValueError, EOFError, TypeError: it is damaged.
        """
        from mmap import MAP_PRIVATE, PROT_READ, mmap  # noqa: PLC0415 - by now nobody looks for it

        # Mapped, since reading would make a copy first; never unmapped before the codes have gone.
        codes = loads(memoryview(mmap(fd, 0, MAP_PRIVATE, PROT_READ))[start:])  # noqa: S302 - see above
        kind = type(stamp.__code__)
        if any(type(code) is not kind for code in codes):
            raise ValueError("not byte code")
        if any(number >= len(codes) for *_, number in self._rows.values()):
            raise ValueError("byte code is missing")
        self._codes = codes

    def fill(self) -> None:
        """Make our own modules; what they need besides comes by :meth:`find_spec`.

        Raises:
            Exception: as one of them did; those that were made are there.
        """
        modules = sys.modules
        ours = [
            (name, row)
            for name, row in self._rows.items()
            if row[-1] >= 0 and name.startswith(OURS) and name not in modules
        ]
        # Packages are there while what they import of themselves is made, as always.
        for name, row in sorted(ours, key=lambda item: not item[1][2]):
            self._filled.append((_empty(name, *row[:3]), row[0], row[1]))
            if row[2]:
                modules[name] = self._filled[-1][0]
        made = {module.__name__: module for module, _, _ in self._filled}
        for name, row in ours:
            del self._rows[name]
            modules[name] = module = made[name]
            exec(self._codes[row[-1]], module.__dict__)  # noqa: S102 - it is what importing does
            parent, _, child = name.rpartition(".")
            if parent in modules:
                setattr(modules[parent], child, module)

    def forget(self) -> None:
        """Take back what :meth:`fill` made."""
        for module, _, _ in self._filled:
            sys.modules.pop(module.__name__, None)
        self._filled = []

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
        for module, path, cached in self._filled:  # from now on they are as importing makes them
            name = module.__name__
            loader = SourceFileLoader(name, path)
            places = list(module.__path__) if module.__package__ == name else None
            spec: ModuleSpec | None = spec_from_file_location(
                name, path, loader=loader, submodule_search_locations=places
            )
            if spec is not None:
                spec.cached = cached
            module.__spec__, module.__loader__ = spec, loader
        self._codes, self._rows, self._filled, self.config = [], {}, [], None


def _empty(name: str, path: str, cached: str, package: bool) -> ModuleType:  # noqa: FBT001 - as in a row
    """Return a module whose body is still to be executed."""
    module = _Module(name)
    module.__file__ = path
    module.__dict__["__cached__"] = cached
    module.__package__ = name if package else name.rpartition(".")[0]
    if package:
        module.__path__ = [os.path.dirname(path)]
    return module


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
    finders: list[Any] = sys.meta_path
    try:
        fd = int(value)
        made, start = _read_index(fd)
    except (OSError, ValueError, EOFError, TypeError, OverflowError, AttributeError):
        return False
    finders.insert(0, made)
    try:
        made.read_codes(fd, start)
        made.fill()
    except Exception:
        finders.remove(made)
        made.forget()
        return False
    _found.append(made)
    return True


def _read_index(fd: int) -> tuple[Prepared, int]:
    """Return what is in the memfd but for the byte code, and where that begins.

    Raises:
        OSError, ValueError, EOFError, TypeError, AttributeError: it is damaged or for another start, or a file is not
            what it was.
    """
    size = os.fstat(fd).st_size
    if not LENGTH < size <= MAX_SIZE:
        raise ValueError("its size is wrong")
    length = int.from_bytes(os.pread(fd, LENGTH, 0), "little")
    if length > size - LENGTH:
        raise ValueError("it is cut short")
    made_by, words, config, rows = loads(os.pread(fd, length, LENGTH))  # noqa: S302 - see above
    if made_by != stamp():
        raise ValueError("another program is to start")
    for path, _, _, time_ns, bytes_, _ in rows.values():
        found = os.stat(path)
        if found.st_mtime_ns != time_ns or found.st_size != bytes_:
            raise ValueError("a file has changed")
    return Prepared(rows, words, config), LENGTH + length


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
