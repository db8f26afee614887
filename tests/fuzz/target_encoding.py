"""The encoding and the states in it: anything is refused in one way, and what is read is written again the same."""

import fuzz_paths  # noqa: F401
from hostile_worlds import MAKERS

from instar.cpr import state as states
from instar.cpr.encoding import decode, encode
from instar.cpr.errors import StateError

LIVE = [make() for make in MAKERS.values()]  # their states are known from here on
THINGS = [thing for world in LIVE for thing in (world.mmio, world.device)]
NAMES = sorted(states.registry())


def fuzz(data: bytes) -> None:
    """The first byte chooses a state, the rest is its record."""
    try:
        value = decode(data[1:], "fuzz")
    except StateError:
        return
    assert decode(encode(value), "again") == value
    cls = states.registry()[NAMES[(data[0] if data else 0) % len(NAMES)]]
    if not isinstance(value, dict):
        return
    try:
        loaded = states.load(cls, cls.state_version, value)
    except StateError:
        return
    record = states.save(loaded)
    assert states.save(states.load(cls, cls.state_version, record)) == record


def seeds() -> list[bytes]:
    """The states of devices as they are after a start."""
    return [
        bytes([NAMES.index(thing.state_class.state_name)])
        + encode(states.save(thing.save_state()))
        for thing in THINGS
    ]
