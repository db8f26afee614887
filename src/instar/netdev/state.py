"""What of the network back ends must cross an update beside their descriptors."""

from __future__ import annotations

from instar.cpr.state import State, blob, flag, state, step, subs, text, u

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from instar.cpr.state import Record

MAX_INPUT: Final = 8 << 20  # bytes; a batch of 64 frames of the largest size and a half one
MAX_OUTPUT: Final = 1 << 17  # bytes; the rest of one frame
MAX_NETDEVS: Final = 64
MAX_QUEUES: Final = 4  # of one back end, as many as a card has pairs
MAX_OPTIONS: Final = 32


@state("netdev-option", version=1)
class OptionState(State):
    """One option of a back end that was added at run time."""

    name: str = text("Key.", max=64)
    value: str = text("Value.", max=4096)


@state("netdev-queue", version=1)
class QueueState(State):
    """A further queue of a back end."""

    received: bytes = blob(
        "Frames that the guest has not taken, each after its length.", max=MAX_INPUT
    )


@state("netdev", version=2)
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
    more: list[QueueState] = subs(
        QueueState, "Its queues after the first.", max=MAX_QUEUES - 1, since=2
    )

    @step(1, 2)
    @staticmethod
    def _add_queues(old: Record) -> Record:
        return {**old, "more": []}

    @step(2, 1)  # lossy: frames that waited in further queues are dropped, as a network may
    @staticmethod
    def _drop_queues(new: Record) -> Record:
        return {name: value for name, value in new.items() if name != "more"}


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
