"""JSON objects as option arguments. Imported only when an argument starts with ``{``."""

from __future__ import annotations

import json

from instar.errors import ConfigError

_MAX_DEPTH = 8


def read_object(what: str, text: str) -> dict[str, str | int | bool]:
    """Return a JSON object with nested objects as dotted keys.

    Args:
        what: The option, for errors.
        text: The argument.

    Raises:
        ConfigError: not a JSON object, nested too deeply, or a value that is no text, whole number or boolean.
    """
    try:
        data: object = json.loads(text, object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as e:  # ValueError: syntax, a number of many digits
        raise ConfigError(f"{what}: not a JSON object: {e}") from e
    if not isinstance(data, _Object):
        raise ConfigError(f"{what}: not a JSON object")
    flat: dict[str, str | int | bool] = {}
    _flatten(what, data, "", flat)
    return flat


class _Object(dict[str, object]):
    """A JSON object, as told apart from other dictionaries for the type checkers."""


def _no_duplicates(pairs: list[tuple[str, object]]) -> _Object:
    found = _Object(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _flatten(what: str, data: _Object, prefix: str, flat: dict[str, str | int | bool]) -> None:
    if prefix.count(".") > _MAX_DEPTH:
        raise ConfigError(f"{what}: JSON nested more than {_MAX_DEPTH} deep")
    for key, value in data.items():
        name = prefix + key
        if isinstance(value, _Object):
            _flatten(what, value, f"{name}.", flat)
        elif isinstance(value, str | int):
            flat[name] = value
        else:
            raise ConfigError(
                f"{what}: {name!r} is {json.dumps(value)[:40]}; expected a text, a whole number, "
                "true or false"
            )
