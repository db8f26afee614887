"""The monitor's end of a bridge: the vCPUs run on in a helper while one monitor becomes another.

The helper is a short-lived process of the new program with nothing but the harts and the guest's memory. Where the
guest reaches for a device, it stands still there until the new monitor has the harts back. Whoever holds the socket
may ask for them (the new program; the old one, executed again; the one that the guardian started): the answer is the
same until the helper is told to end.

On the resume path. Source: own; docs/decisions/0011.
"""

from __future__ import annotations

import os
import select
from time import monotonic_ns

from instar.cpr.encoding import decode, encode
from instar.cpr.errors import CprError, PeerError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

    from instar.cpr.state import Record


MAX_MESSAGE: Final = 1 << 17  # bytes; eight harts are about 20 KB
PATIENCE_NS: Final = 5_000_000_000  # what stands still answers in well under a millisecond


class Bridge:
    """One helper.

    Attributes:
        fd: Our end of the socket (SOCK_SEQPACKET); its owner closes it.
        pid: The helper, a child of the program that started it.
    """

    __slots__ = ("fd", "pid")

    def __init__(self, fd: int, pid: int) -> None:
        self.fd = fd
        self.pid = pid

    def ask(self, do: str, **more: object) -> Record:
        """Ask for something and return the answer.

        Raises:
            PeerError: The helper is gone, silent, or answers what is none; it may have done it or not.
        """
        ident = monotonic_ns()
        self.tell(do, id=ident, **more)
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        until = ident + PATIENCE_NS
        while poll.poll(max(0, until - monotonic_ns()) // 1_000_000 + 1):
            answer = self._answer(do)
            if answer.get("id") == ident:  # else it is for a program that is no more
                return answer
            if monotonic_ns() > until:
                break
        raise PeerError(f"the bridge did not answer '{do}' within {PATIENCE_NS // 10**9} s")

    def greet(self) -> None:
        """Take the first word, if it is there (PeerError if it is none, or the wrong one)."""
        poll = select.poll()
        poll.register(self.fd, select.POLLIN)
        if not poll.poll(0):
            raise PeerError(f"the bridge said nothing within {PATIENCE_NS // 10**9} s")
        answer = self._answer("greet")
        if answer.get("ready") != 1:
            raise PeerError(f"the bridge: {answer.get('error', 'another protocol')}")

    def tell(self, do: str, **more: object) -> None:
        """Say something that nobody answers (PeerError if the helper is gone: it did not hear it)."""
        try:
            os.write(self.fd, encode({"do": do, **more}))
        except OSError as e:
            raise PeerError(f"the bridge is gone: {os.strerror(e.errno or 0)}") from e

    def take_back(self, reads: Mapping[str, object]) -> Record:
        """Stop the harts and return their state, in versions out of ``reads``; again gives the same.

        Returns:
            ``states`` (as of ``host_records``), ``why`` they had stopped before ("" if they ran), ``stopped-ns``.

        Raises:
            PeerError: The helper is gone, and what the harts were with it.
        """
        answer = self.ask("stop", reads=dict(reads))
        if "error" in answer:
            raise PeerError(f"the bridge: {answer['error']}")
        return answer

    def end(self) -> None:
        """Let the helper go; it may be gone already."""
        try:
            self.tell("end")
        except PeerError:
            return

    def _answer(self, do: str) -> Record:
        try:
            data = os.read(self.fd, MAX_MESSAGE)
        except OSError as e:
            raise PeerError(f"the bridge is gone: {os.strerror(e.errno or 0)}") from e
        if not data:
            raise PeerError(f"the bridge ended before it answered '{do}'")
        try:
            answer = decode(data, "bridge")
        except CprError as e:
            raise PeerError(f"the bridge's answer to '{do}' makes no sense: {e}") from e
        if not isinstance(answer, dict):
            raise PeerError(f"the bridge's answer to '{do}' is no record")
        return answer  # pyright: ignore[reportUnknownVariableType]
