"""A configuration as plain values and back, so that a program need not parse words that another has parsed."""

from __future__ import annotations

from instar.block.limits import Limits
from instar.cli.options import config as classes
from instar.cli.options.config import Config, Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

    Plain = Any

_CLASS: Final = None  # the key that tells a record's class from the fields of a dictionary
_BY_NAME: Final[dict[str, Plain]] = {
    "Limits": Limits,
    **{cls.__name__: cls for cls in Record.__subclasses__() if cls.__module__ == classes.__name__},
}


def to_plain(value: Plain) -> Plain:
    """Return a configuration, or a part of one, as numbers, texts, lists, tuples and dictionaries."""
    if isinstance(value, list):
        items: list[Plain] = value  # pyright: ignore[reportUnknownVariableType]
        return [to_plain(item) for item in items]
    if not isinstance(value, Record | Limits):
        return value
    fields = {name: to_plain(getattr(value, name)) for name in value.__slots__}
    return {_CLASS: type(value).__name__, **fields}


def from_plain(plain: object) -> Config:
    """Return the configuration that :func:`to_plain` was given.

    Raises:
        KeyError, TypeError, AttributeError: it was given none.
    """
    made = _made(plain)
    if not isinstance(made, Config):
        raise TypeError("not a configuration")
    return made


def _made(plain: Plain) -> Plain:
    if isinstance(plain, list):
        items: list[Plain] = plain  # pyright: ignore[reportUnknownVariableType]
        return [_made(item) for item in items]
    if not isinstance(plain, dict) or _CLASS not in plain:
        return plain  # pyright: ignore[reportUnknownVariableType]
    fields: dict[Plain, Plain] = plain  # pyright: ignore[reportUnknownVariableType]
    cls: Plain = _BY_NAME[fields[_CLASS]]
    made: Plain = cls.__new__(cls)
    names: tuple[str, ...] = cls.__slots__
    for name in names:
        setattr(made, name, _made(fields[name]))
    return made
