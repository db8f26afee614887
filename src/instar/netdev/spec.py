"""What a network back end is to be, as the user said it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

ABSENT: Final = "none"  # the kind of a back end that is not there (any more): its card waits for one of its name


class NetSpec:
    """A kind and its options, checked already; values are texts (``on``, ``off``, numbers in decimal).

    Attributes:
        kind: ``tap``, ``stream``, ``dgram`` or ``none``.
        id: Unique name.
        options: Key to value, as on the command line, without ``id``.
    """

    __slots__ = ("id", "kind", "options")

    def __init__(self, kind: str, ident: str, options: Mapping[str, str]) -> None:
        self.kind = kind
        self.id = ident
        self.options = dict(options)

    def text(self, key: str) -> str:
        """Return a value, "" if it was not given."""
        return self.options.get(key, "")

    def on(self, key: str, *, default: bool) -> bool:
        """Return a flag."""
        return self.options.get(key, "on" if default else "off") == "on"

    @property
    def queues(self) -> int:
        """Queues that frames can come and go by at the same time."""
        given = self.text("fds")
        return given.count(":") + 1 if given else int(self.text("queues") or 1)

    @property
    def vnet_hdr(self) -> bool:
        """Whether frames carry an offload header: checksums and segmentation may be left to the other side."""
        if self.kind == ABSENT:
            return self.on("vnet_hdr", default=False)
        return self.kind == "tap" and self.on("vnet_hdr", default=True)
