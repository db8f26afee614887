"""The old program's half of cpr-transfer: another program, started beside this one, takes the guest over.

The guest runs until the other one has built its whole machine. From then until it says that it runs the guest, this one
can take the guest back, and does if anything goes wrong; the lease decides who has it, whatever is said on the sockets.

Not on the resume path. Source: own; names and order of events as QEMU's; docs/decisions/0010.
"""

from __future__ import annotations

import os
from contextlib import suppress
from time import monotonic_ns
from typing import TYPE_CHECKING

from instar import log, signals
from instar._version import VERSION
from instar.cpr.adopted import LEASE
from instar.cpr.errors import PeerError, UpdateAbortedError, UpdateRefusedError
from instar.cpr.fds import Fds
from instar.cpr.lease import WORK, Lease
from instar.cpr.lifecycle import WAIT, Row, Table
from instar.cpr.rival import Rival, take_back
from instar.cpr.transfer import TransferCarrier, reason_in
from instar.cpr.versions import not_current, versions_for
from instar.cpr.writer import Writer
from instar.errors import CommandError, ConfigError, HostError, InstarError
from instar.migration.channels import Address
from instar.migration.copies import find_losses, guest_things, sentences, written_otherwise
from instar.migration.exchange import BytesSender, Exchange, FileSender, connect
from instar.migration.identity import KEY
from instar.migration.outgoing import Outgoing
from instar.migration.preview import ANSWER, Preview
from instar.migration.saving import write_sections

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from typing import Final

    from instar.cpr.lifecycle import PhaseEvent
    from instar.cpr.rival import Owner
    from instar.cpr.state import Record
    from instar.migration.channels import SocketAddress
    from instar.migration.migration import Migration
    from instar.migration.report import Outcome

TRANSFER: Final = Table(
    Row("prepare", "blockers", "check_blockers"),
    Row("prepare", "notify", "notify_setup", "notify_failed"),
    Row("prepare", "setup", "begin_setup"),
    Row("prepare", "cpr-channel", "connect_cpr", "hang_up"),
    Row("prepare", "accepted", "leave_to_loop"),
    Row("rehearse", "descriptors", "send_descriptors"),
    Row("rehearse", "target-built", "judge_target"),
    Row("rehearse", "main-channel", "connect_main"),
    Row("rehearse", "preview", "send_preview"),
    Row("rehearse", "previewed", "judge_preview"),
    Row("stop", "stop-vm", "stop_vm", "resume_vm"),
    Row("save", "active", "begin_active"),
    Row("save", "pre-switchover", "wait_if_asked"),
    Row("save", "device", "save_devices"),
    Row("save", "give-up", "give_up"),
    Row("save", "write", "send_state"),
    Row("load", "target-answered", "judge_answer"),
    Row("settle", "complete", "complete", commit=True),
)
_CARRIED: Final = (
    "memory/",
    "netdev/",
)  # names of descriptors that the target uses, beside the lease
_LAST_STEPS_MS: Final = 500  # a target that refuses is about to end
_HANDED_OVER: Final = "the guest was handed over to another program (process {}), which owns it"


class Transfer(Outgoing):
    """One hand-over to a program beside this one.

    Public methods without arguments are the actions and undos of :data:`TRANSFER`.
    """

    def __init__(self, migration: Migration, main: SocketAddress, cpr: SocketAddress) -> None:
        super().__init__(migration, Address(""), TRANSFER)
        self._place = main
        self._cpr_place = cpr
        self._cpr: socket.socket | None = None
        self._line: socket.socket | None = None
        self._rival: Rival | None = None
        self._carrier: TransferCarrier | None = None
        self._exchange: Exchange | None = None
        self._lease = Lease(migration.fds.find(LEASE, 0))
        self._expected = self._lease.count
        self._offered = False  # the target may take over from now on
        self._refused = False
        self._waits = False  # for the end of a target
        self._versions: dict[str, int] = {}
        self._previews = False  # the target reads such a thing
        self._preview: Preview | None = None
        self._nonce = os.urandom(16).hex()

    def _phase(self, event: PhaseEvent) -> None:
        super()._phase(event)
        if self.report.outcome == "completed":  # this was the last one
            self._migration.emit("UPDATE_COMPLETED", self.report.update_info())

    def _end(self, outcome: Outcome, reason: str = "") -> None:
        if (
            self.report.outcome != "completed"
        ):  # the target was faster than what failed, and that is told
            super()._end(outcome, reason)

    # prepare: the guest runs

    def connect_cpr(self) -> None:
        """Connect to the target, which waits for its descriptors."""
        if not self._lease.lock(WORK):
            raise CommandError("another program holds the lease of this guest")
        with suppress(RuntimeError):  # without a thread for it the last flush takes longer
            signals.start_thread(self._machine.flush_ahead)
        self._cpr = _connect(self._cpr_place)
        try:
            self._rival = Rival(self._cpr)
        except OSError as e:
            why = os.strerror(e.errno or 0)
            raise HostError(
                f"the process that listens on {self._cpr_place.path} cannot be seen from here: {why}"
            ) from e

    def hang_up(self) -> None:
        """Close the channels; a target that waits ends."""
        if self._exchange is not None:
            self._exchange.stop()
        if self._carrier is not None:
            self._carrier.drop()
        for sock in (self._cpr, self._line):
            if sock is not None:
                sock.close()
        self._cpr = self._line = None
        self._main.close()
        if self._migration.contest is None and not self._waits:
            self._let_go()

    def _let_go(self) -> None:
        self._stop_waiting()
        rival, self._rival = self._rival, None
        if rival is not None:
            rival.close()

    # rehearse: the target builds its machine, the guest runs

    def send_descriptors(self) -> str:
        """Hand the descriptors over and wait until the target has built its machine."""
        sock = _open(self._cpr)
        migration = self._migration
        table = Fds()
        everything = migration.fds.copy()
        migration.host.save_fds(everything)
        for entry in everything.walk():
            if entry.name.startswith(_CARRIED) or entry.name == LEASE:
                table.save(entry.name, entry.ident, entry.fd, kind=entry.kind, owner=entry.owner)
        carrier = self._carrier = TransferCarrier(sock)
        info: Record = {
            "nonce": self._nonce,
            KEY: migration.identity.to_record(),
            "program": VERSION,
            "config": list(migration.host.command_words("memfd:")),
        }
        carrier.save(table, info)
        return self._wait_for(sock, carrier.send)

    def judge_target(self) -> None:
        """Refuse if the target cannot take over; write what it reads."""
        answer = self._result()
        reader = self.report.new_version = str(answer.get("program", ""))[:100]
        self._versions = versions_for(answer.get("reads"))
        self._previews = answer.get("previews") is True
        other = written_otherwise(guest_things(self._migration), self._versions)
        self._versions = not_current(self._versions)
        if other:
            began = monotonic_ns()
            lost = find_losses(self._migration, self._versions)
            if self._machine.running:
                self.report.held_ns += monotonic_ns() - began
            self.report.notes = sentences(reader, other, lost)

    def connect_main(self) -> None:
        """Connect to where the target waits for the state."""
        self._line = _connect(self._place)

    def send_preview(self) -> str | None:
        """Send the state as it is now, and wait until the target has checked it."""
        if not self._previews:
            return None
        line = _open(self._line)
        self._preview = Preview(self._migration, self._versions)
        data = self._nonce.encode() + self._preview.message
        return self._wait_for(line, BytesSender(line, data).send)

    def judge_preview(self) -> None:
        """See whether the target has taken it; if not, everything is sent again."""
        if self._preview is None:
            return
        if self._result().get(ANSWER) is not True:
            self._preview.forget()
        self._preview.practise()

    # stop: from here on undoing means to find out whose the guest is

    def stop_vm(self) -> None:
        """Stop the guest; clients hear of it when the state is on its way."""
        self._machine.events.hold()
        try:
            super().stop_vm()
        except BaseException:
            self._machine.events.release()
            raise

    def wait_if_asked(self) -> str | None:
        """As always; a client that decides when it goes on has to hear how far it is."""
        result = super().wait_if_asked()
        if result == WAIT:
            self._machine.events.release()
        return result

    def resume_vm(self) -> None:
        """Let the guest go on as before, unless the target has taken over."""
        self._machine.events.release()
        owner: Owner = "ours"
        if self._offered:
            if self._refused and self._rival is not None:
                self._rival.wait_end(_LAST_STEPS_MS)
            owner = take_back(self._lease, self._expected, self._rival)
        if owner == "ours":
            self._migration.note_lease()
            self._go_on_or_wait()
        elif owner == "theirs":
            log.warning("cpr-transfer: the target has taken over without an answer")
            self._hand_over()
        else:
            self._machine.set_runstate("postmigrate")
            self._migration.contest = self._ask_again
            self._wait_for_end("nobody runs the guest")

    def _go_on_or_wait(self) -> None:
        """Let the guest go on now, or when a target that cannot be ended from here has given up its disks."""
        try:
            super().resume_vm()
        except HostError as e:
            if self._rival is None or self._rival.wait_end(0):
                raise
            self._wait_for_end(str(e))

    def _wait_for_end(self, why: str) -> None:
        if self._rival is None or self._machine.state.runstate != "running":
            return
        log.error(
            f"cpr-transfer: {why}: the target (process {self._pid}) does not answer and cannot be ended from here; "
            "the guest goes on here when it has ended"
        )
        self._waits = True
        self._machine.loop.watch(self._rival.fd, readable=self._ended)

    def _ended(self) -> None:
        """The target has ended: let the guest go on, unless somebody did."""
        self._stop_waiting()
        try:
            if not self._migration.busy:
                self._machine.start()
        except InstarError as e:
            log.warning(f"cpr-transfer: {e}")
        if self._migration.contest is None:
            self._let_go()

    def _stop_waiting(self) -> None:
        if self._waits and self._rival is not None:
            self._waits = False
            self._machine.loop.unwatch(self._rival.fd)

    def _ask_again(self) -> None:
        """See who owns the guest, for somebody who wants it to run here.

        Raises:
            CommandError: Not this program, or that is still not decided.
        """
        owner = take_back(self._lease, self._expected, self._rival)
        if owner == "unknown":
            raise CommandError(
                f"the target (process {self._pid}) does not answer and cannot be ended from here; nobody runs the guest"
            )
        if owner == "theirs":
            self._note_new_owner()
            self._migration.notifiers.done(self._mode)
        self._migration.contest = None
        self._let_go()
        if owner == "ours":
            self._migration.note_lease()

    @property
    def _pid(self) -> int:
        return 0 if self._rival is None else self._rival.pid

    # save: the guest stands still

    def save_devices(self) -> None:
        """Collect all state."""
        log.hold()
        self._migration.set_status("device")
        self._main.make_memfd()
        info: Record = {
            "nonce": self._nonce,
            KEY: self._migration.identity.to_record(),
            "report": self.report.to_record(),
        }
        writer = Writer(self._main.memfd, program=VERSION, mode=self._mode, info=info)
        things = [*guest_things(self._migration), *self._migration.host.things_on_the_way()]
        if self._preview is None:
            write_sections(writer, things, Fds(), self._versions)
        else:
            self._preview.rest(writer, info, things)
        self._machine.handed_out = True
        writer.finish()
        self.report.transferred = writer.written

    def give_up(self) -> None:
        """Give the disks and the work up: whoever has the state now may take them."""
        self._machine.release_disks()
        self._offered = True
        self._lease.unlock(WORK)

    def send_state(self) -> str:
        """Send the state, and wait until the target says that it has taken over."""
        line = _open(self._line)
        first = self._nonce.encode() if self._preview is None else b""  # it was said before that
        sender = FileSender(line, first, self._main.memfd)
        with suppress(PeerError):  # whoever waits for the answer says it better
            sender.send()  # now, not in the next turn: the guest waits for it
        self._machine.events.release()
        return self._wait_for(line, sender.send)

    def judge_answer(self) -> None:
        """Believe the lease, not the answer."""
        try:
            answer = self._result()
        except UpdateRefusedError as e:
            raise UpdateAbortedError(str(e)) from e
        if self._lease.count == self._expected:
            raise PeerError("the target says that it has taken over, but it has not")
        resumed_ns = answer.get("resumed-ns")
        if type(resumed_ns) is int and resumed_ns > 0:
            self.report.resumed_ns = resumed_ns

    def complete(self) -> None:
        """Stay stopped for ever."""
        self._hand_over()
        self.hang_up()

    def _hand_over(self) -> None:
        migration = self._migration
        self._machine.set_runstate("postmigrate")
        self.report.ended_ns = monotonic_ns()
        self._note_new_owner()
        self.report.end("completed")
        migration.notifiers.done(self._mode)
        migration.set_status("completed")
        log.release()

    def _note_new_owner(self) -> None:
        self.report.owner, self.report.new_pid = "new", self._pid
        self._migration.handed_over = _HANDED_OVER.format(self._pid)

    # waiting for the target

    def _wait_for(self, sock: socket.socket, send: Callable[[], bool]) -> str:
        limit_ms = self._migration.settings.timeout_ms
        self._exchange = Exchange(self._machine.loop, sock, send, limit_ms, self._go_on)
        return WAIT

    def _result(self) -> Record:
        """Return what the target said.

        Raises:
            CprError: It refused, or said nothing.
        """
        if self._exchange is None:
            raise PeerError("the target was not asked")
        answer = self._exchange.result()
        if reason := reason_in(answer):
            self._refused = True
            raise UpdateRefusedError(f"the target refused: {reason}")
        return answer


def _connect(address: SocketAddress) -> socket.socket:
    error: OSError | None = None
    try:
        for family, where in address.place.targets():
            try:
                return connect(family, where)
            except OSError as e:
                error = e
    except ConfigError as e:
        raise CommandError(str(e)) from e
    except OSError as e:
        error = e
    why = "no address" if error is None else (error.strerror or str(error))
    raise HostError(f"Failed to connect to '{address.uri}': {why}")


def _open(sock: socket.socket | None) -> socket.socket:
    if sock is None:
        raise PeerError("the channel is closed")
    return sock
