"""All targets, their inputs, and mutations of these without any tool."""

from __future__ import annotations

import importlib
from pathlib import Path
from random import Random

HERE = Path(__file__).parent
FOUND = HERE / "found"  # inputs that showed a bug once
MAX_INPUT = 4096  # bytes
_SPECIAL = (
    b"\0",
    b"\xff",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\xff",
    b"\0\0\1\0",
    b"\x80",
    b",",
    b'"',
    b"{",
)


def names() -> list[str]:
    """The names of all targets."""
    return sorted(path.stem.removeprefix("target_") for path in HERE.glob("target_*.py"))


def load(name: str):
    """The module of a target: it has ``fuzz(data)`` and ``seeds()``."""
    return importlib.import_module(f"target_{name}")


def found(name: str) -> list[bytes]:
    """Inputs that showed a bug once."""
    folder = FOUND / name
    return [path.read_bytes() for path in sorted(folder.iterdir())] if folder.is_dir() else []


def mutated(inputs: list[bytes], seed: int, count: int):
    """Yield ``count`` variations of the inputs, always the same ones for a seed."""
    chance = Random(seed)
    for _ in range(count):
        data = bytearray(chance.choice(inputs))
        for _ in range(chance.randint(1, 4)):
            _change(data, inputs, chance)
        yield bytes(data[:MAX_INPUT])


def _change(data: bytearray, inputs: list[bytes], chance: Random) -> None:
    at = chance.randint(0, len(data))
    kind = chance.randrange(6)
    if kind == 0 and data:
        data[at % len(data)] ^= 1 << chance.randrange(8)
    elif kind == 1:
        data[at : at + chance.randint(1, 4)] = chance.randbytes(chance.randint(1, 4))
    elif kind == 2:
        del data[at : at + chance.randint(1, 16)]
    elif kind == 3:
        data[at:at] = chance.choice(_SPECIAL)
    elif kind == 4:
        data[at:at] = data[at : at + chance.randint(1, 32)] * chance.randint(1, 4)
    else:
        other = chance.choice(inputs)
        start = chance.randint(0, len(other))
        data[at:] = other[start:]
