"""What of the network back ends must cross an update beside their descriptors."""

from __future__ import annotations

from instar.cpr.state import State, blob, flag, state, subs, text, u

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

MAX_INPUT: Final = 8 << 20  # bytes; a batch of 64 frames of the largest size and a half one
MAX_OUTPUT: Final = 1 << 17  # bytes; the rest of one frame
MAX_NETDEVS: Final = 64
MAX_OPTIONS: Final = 32


@state("netdev-option", version=1)
class OptionState(State):
    """One option of a back end that was added at run time."""

    name: str = text("Key.", max=64)
    value: str = text("Value.", max=4096)


@state("netdev", version=1)
class NetdevState(State):
    """One back end."""

    id: str = text("Its name.", max=256)
    kind: str = text("tap, stream or dgram.", max=16)
    added: bool = flag("By netdev_add: the command line does not have it.")
    options: list[OptionState] = subs(
        OptionState, "What it was added with; empty otherwise.", max=MAX_OPTIONS
    )
    received: bytes = blob(
        "Frames that the guest has not taken, and the half of one: each after its length (32 bits, big-endian).",
        max=MAX_INPUT,
    )
    unsent: bytes = blob("Rest of a frame that went out by half.", max=MAX_OUTPUT)
    path_device: int = u(64, "st_dev of the socket file we made, so that only that is removed.")
    path_inode: int = u(64, "st_ino of the socket file we made; 0 if we made none.")


@state("netdev-removed", version=1)
class RemovedState(State):
    """A back end of the command line that is gone."""

    id: str = text("Its name.", max=256)


@state("netdevs", version=1)
class NetdevsState(State):
    """All back ends."""

    netdevs: list[NetdevState] = subs(NetdevState, "Those there are.", max=MAX_NETDEVS)
    removed: list[RemovedState] = subs(
        RemovedState, "Deleted by netdev_del, though on the command line.", max=MAX_NETDEVS
    )
