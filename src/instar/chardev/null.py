"""``null``: gives nothing, takes everything."""

from __future__ import annotations

from instar.chardev.base import Chardev


class NullChardev(Chardev):
    """The device of whoever does not want one; the base class does it all."""

    __slots__ = ()
