"""Mode cpr-reboot: the state goes to a file, this program ends, and another one goes on later, even after a reboot.

Memory in a shared file stays where it is (capability x-ignore-shared), all other memory goes into the state.

Not on the resume path. Source: own; behaviour as QEMU's; docs/decisions/0010.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from instar.cpr.errors import TakenOverError
from instar.errors import CommandError
from instar.migration import left_memory
from instar.migration.outgoing import Outgoing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from instar.cpr.state import Record
    from instar.machine.parts import MemoryBackend


class Reboot(Outgoing):
    """One way to a file, with or without the memory."""

    def _left(self) -> list[MemoryBackend]:
        """Return the memories that stay in their files."""
        if not self._migration.settings.capabilities["x-ignore-shared"]:
            return []
        return [b for b in self._machine.memory_backends if left_memory.can_stay(b)]

    def _copied(self) -> Sequence[MemoryBackend]:
        """Return the memories that go into the stream."""
        left = self._left()
        return [b for b in self._machine.memory_backends if b not in left]

    def _manifest_info(self) -> Record:
        """Return what binds state, memory and VM together."""
        return {
            **super()._manifest_info(),
            "left": [backend.id for backend in self._left()],
            "left-sums": left_memory.sums(self._left()),
            "left-nonce": self._handover.nonce,
        }

    def resume_vm(self) -> None:
        """Let the guest go on as before."""
        left_memory.void(self._left())
        super().resume_vm()

    def complete(self) -> None:
        """Leave the memory; the machine stays stopped unless somebody lets it go on before another program does."""
        left, nonce = self._left(), self._handover.nonce
        self._main.sync()
        left_memory.leave(left, nonce)
        super().complete()

        def take() -> None:
            try:
                left_memory.take(left, nonce)
            except TakenOverError:
                self._migration.contest = refuse
                refuse()
            self._migration.contest = None

        def refuse() -> None:
            raise CommandError(
                "another program went on with this guest's memory; it never runs here again"
            )

        if left:
            self._migration.contest = take
            left_memory.give_up(left)
