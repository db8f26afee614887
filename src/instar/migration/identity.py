"""Whose state it is: each VM has an identity that it keeps through all updates and moves. On the resume path.

With ``-uuid`` it is that, without it is made up once, when the guest is first started. Monitors show ``-uuid`` alone.
Source: own; the form of a random UUID is RFC 9562, 5.4.
"""

from __future__ import annotations

import os

from instar.cpr.errors import StateCorruptError, StateInvalidError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from instar.cpr.state import Record

KEY: Final = "vm"  # in the manifest, and in what goes along with the descriptors
NONE_GIVEN: Final = "00000000-0000-0000-0000-000000000000"
_LENGTH: Final = len(NONE_GIVEN)
_MAX_NAME: Final = 255


class Identity:
    """Who a VM is.

    Args:
        uuid: ``-uuid``, all zeros without.
        name: ``-name``, for people.

    Attributes:
        ident: What tells it from all others; "" while it is not known: its state has not come yet.
        given: It is ``-uuid``.
        name: As given.
    """

    __slots__ = ("given", "ident", "name")

    def __init__(self, uuid: str, name: str) -> None:
        self.given = uuid != NONE_GIVEN
        self.ident = uuid if self.given else ""
        self.name = name

    def begin(self) -> None:
        """Become somebody, if that is not decided."""
        if not self.ident:
            digits = bytearray(os.urandom(16))
            digits[6] = digits[6] & 0x0F | 0x40
            digits[8] = digits[8] & 0x3F | 0x80
            text = digits.hex()
            cuts = (text[:8], text[8:12], text[12:16], text[16:20], text[20:])
            self.ident = "-".join(cuts)

    def to_record(self) -> Record:
        """Return plain values."""
        name = self.name if self.name.isprintable() else repr(self.name)
        return {"id": self.ident, "given": self.given, "name": name[:_MAX_NAME]}

    def check(self, state: object, handed: object) -> Identity | None:
        """Refuse what is another VM's; nothing is changed.

        Args:
            state: What a manifest says whose state it is; None: it does not (untrusted, as ``handed``).
            handed: What came with the descriptors; None: nothing did.

        Returns:
            Whose state it is; None if nobody says.

        Raises:
            StateCorruptError: What is said is no identity.
            StateInvalidError: It is of another VM.
        """
        owner = _read(state, "manifest")
        sender = _read(handed, "the program before")
        if sender is not None and (owner is None or owner.ident != sender.ident):
            theirs = "nobody" if owner is None else owner.shown
            raise StateInvalidError(
                f"manifest: the state is of {theirs}, the descriptors are of {sender.shown}; nothing was loaded"
            )
        if owner is not None and (owner.given or self.given) and not self._is_named_as(owner):
            raise StateInvalidError(
                f"manifest: the state is of {owner.shown}, this command line of {self.shown}; nothing was loaded"
            )
        return owner

    def become(self, owner: Identity | None) -> None:
        """Be the one that was loaded."""
        if owner is not None:
            self.ident = owner.ident

    def _is_named_as(self, other: Identity) -> bool:
        return (self.given, self.ident) == (other.given, other.ident)

    @property
    def shown(self) -> str:
        """What people see."""
        option = f"-uuid {self.ident}" if self.given else f"no -uuid, id {self.ident or 'unknown'}"
        return f"VM {self.name or 'without a name'} ({option})"


def _read(value: object, whose: str) -> Identity | None:
    if value is None:
        return None
    record: Record = value if isinstance(value, dict) else {}  # pyright: ignore[reportUnknownVariableType]
    ident, given, name = (record.get(key) for key in ("id", "given", "name"))
    if not (isinstance(ident, str) and isinstance(given, bool) and isinstance(name, str)):
        raise StateCorruptError(f"{whose}: what it says about the VM is no identity")
    usable = len(ident) == _LENGTH and ident.isascii() and ident.isprintable()
    if not usable or len(name) > _MAX_NAME or not name.isprintable():
        raise StateCorruptError(f"{whose}: the VM's identity or name is none")
    made = Identity(NONE_GIVEN, name)
    made.ident, made.given = ident, given
    return made
