"""Migration of one machine: parameters, status, and the way out and in.

The outgoing half is imported when it is first used; the rest is on the resume path.
"""

from __future__ import annotations

import os
from time import monotonic_ns

from instar import log
from instar.cpr.adopted import LEASE
from instar.cpr.blockers import Blockers
from instar.cpr.errors import CprError, TakenOverError, TargetError
from instar.cpr.lease import WORK, Lease
from instar.cpr.notifiers import Notifiers
from instar.errors import CommandError, InstarError
from instar.migration.channels import BRIDGE, MAIN_FD, Address, SocketAddress, resolve
from instar.migration.identity import Identity
from instar.migration.incoming import Incoming
from instar.migration.parameters import MODES, Settings, check_command
from instar.migration.report import ram_info
from instar.migration.sections import RamBox, load_host
from instar.migration.status import StatusMachine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Protocol

    from instar.cpr.adopted import Adopted
    from instar.cpr.fds import Fds
    from instar.cpr.own import OwnProgram
    from instar.machine.machine import Machine
    from instar.migration.again import Tried
    from instar.migration.arrival import Arrival
    from instar.migration.outgoing import Outgoing
    from instar.migration.report import Report
    from instar.migration.sections import Loaded
    from instar.migration.status import Status
    from instar.stateful import Stateful

    class Host(Protocol):
        """The program around the machine: what of it an update carries."""

        def things(self) -> Sequence[Stateful]:
            """Return character devices, monitors and the like."""
            ...

        def things_on_the_way(self) -> Sequence[Stateful]:
            """Return those of them whose state goes with the guest in a transfer."""
            ...

        def save_fds(self, fds: Fds, /) -> None:
            """Name the descriptors that they keep."""
            ...

        def command_words(self, incoming: str, /) -> list[str]:
            """Return the words after the program's name that make this machine again, with this ``-incoming``."""
            ...

        @property
        def exec_allow(self) -> Sequence[str]:
            """What updates may execute: absolute paths of programs or folders; none: anything."""
            ...

        @property
        def wants_bridge(self) -> bool:
            """Whether the vCPUs are to run on in a helper while an update replaces this program."""
            ...

        def began_words(self, incoming: str, /) -> list[str]:
            """Return those that this program was started with, with this ``-incoming``."""
            ...

        def problem_of(self, words: list[str], /) -> str:
            """Return why this program would not take over with these arguments; "" if it would."""
            ...


RAM_REASON = (
    "Memory region {} is not compatible with CPR. share=on is required for memory-backend objects, "
    "and aux-ram-share=on is required."
)
_IN_PLACE = ("cpr-transfer", "cpr-exec")  # modes that leave RAM where it is


class Migration:
    """Migration and update of ``machine``.

    Args:
        machine: What migrates.
        fds: Named descriptors that cross an update.
        host: The rest of the program.
        on_fatal: Called with a sentence when an incoming migration failed and the process should end.
    """

    def __init__(
        self, machine: Machine, fds: Fds, host: Host, on_fatal: Callable[[str], object]
    ) -> None:
        self.machine = machine
        self.fds = fds
        self.host = host
        self.settings = Settings()
        self.status_machine = StatusMachine()
        self.blockers = Blockers(MODES)
        self.notifiers = Notifiers(MODES, log.warning)
        self.ram_box = RamBox(machine.memory_backends)
        self.identity = Identity(machine.uuid, machine.name)
        self._on_fatal = on_fatal
        self._outgoing: Outgoing | None = None
        self.report: Report | None = None  # of the migration that the status tells about
        self.side_report: Report | None = None  # later, of a check, or of what was refused at once
        self.own_program: OwnProgram | None = None  # what a way back executes
        self.release = ""  # what tells this build from others
        self.keepers: list[int] = []  # tasks that tear down the memory of a program before
        self._adopted: Adopted | None = None  # until something came in
        self._after_incoming: list[Callable[[], object]] = []
        self._waiting = False  # an incoming migration may be started
        self._exit_on_error = True
        self._arrival: Arrival | None = None  # cpr-transfer: who waits for the state
        self._previewed: Loaded | None = None  # cpr-transfer: what was sent while the guest ran
        self._warm = False
        self._when_warm: Callable[[], object] | None = (
            None  # ... and begins to when this program has settled
        )
        # When this program became the owner; -1: it has not, or not yet looked.
        self._lease_count = -1
        self.handed_over = ""  # a sentence, once another program has the guest
        self.contest: Callable[[], object] | None = None  # finds out whose the guest is
        machine.may_run = self.check_owner
        machine.events.subscribe(self._on_machine_event)
        for backend in machine.memory_backends:
            if not backend.share:
                self.blockers.add(RAM_REASON.format(backend.id), *_IN_PLACE)

    def block_private_aux_ram(self, block_id: str) -> None:
        """Note that the RAM block that holds boot images would not cross (``aux-ram-share=off``)."""
        self.blockers.add(RAM_REASON.format(block_id), *_IN_PLACE)

    # What monitors see

    @property
    def status(self) -> Status:
        """QEMU's MigrationStatus."""
        return self.status_machine.current

    @property
    def parameters(self) -> Mapping[str, object]:
        """All parameters by QMP name."""
        return self.settings.parameters

    @property
    def capabilities(self) -> Mapping[str, bool]:
        """All capabilities by name."""
        return self.settings.capabilities

    def set_parameters(self, values: Mapping[str, object]) -> None:
        """Set these, all or none (CommandError)."""
        if self.busy:
            raise CommandError("There's a migration process in progress")
        self.settings.set_parameters(values)

    def set_capabilities(self, values: Mapping[str, bool]) -> None:
        """Switch these, all or none (CommandError)."""
        if self.busy:
            raise CommandError("There's a migration process in progress")
        self.settings.set_capabilities(values)

    def info(self) -> Mapping[str, object]:
        """Return what ``query-migrate`` replies."""
        shown: dict[str, object] = {}
        if self.status != "none":
            shown["status"] = self.status
        if self.status_machine.error:
            shown["error-desc"] = self.status_machine.error
        report = self.report
        if report is not None and self.status != "none":
            shown.update(report.info())
            if report.transferred:
                shown["ram"] = ram_info(report)
        if self.side_report is not None:
            shown["x-update"] = self.side_report.update_info()
        if reasons := self.blockers.reasons(self.settings.mode):
            shown["blocked-reasons"] = reasons
        return shown

    def emit(self, name: str, data: Mapping[str, object]) -> None:
        """Send a migration event to clients that want them (capability ``events``)."""
        if self.settings.capabilities["events"]:
            self.machine.events.emit(name, data)

    def set_status(self, new: Status) -> None:
        """Go on to ``new`` and say so."""
        self.status_machine.set(new)
        self.emit("MIGRATION", {"status": new})

    # Out

    def get_ready(self) -> None:
        """Do what every later update needs and none should wait for: find this program, make the guest's lease."""
        from instar.cpr.own import OwnProgram, release  # noqa: PLC0415 - not on the resume path

        self.identity.begin()
        try:
            if self.own_program is None:
                self.own_program = OwnProgram.find()
            self.release = release()
        except TargetError as e:
            log.warning(f"{e}; an update of this program has no way back")
        if self.fds.find(LEASE, 0) < 0:
            lease = Lease.create()
            lease.lock(WORK)
            self.fds.save(LEASE, 0, lease.fd, kind="memfd", owner="cpr")
        if self._arrival is None:
            self.note_lease()

    def note_lease(self) -> None:
        """Remember that this program is the owner of the guest from now on."""
        fd = self.fds.find(LEASE, 0)
        self._lease_count = Lease(fd).count if fd >= 0 else -1

    def check_owner(self) -> None:
        """Refuse to touch the guest when another program owns it.

        Raises:
            CommandError: It does, or nobody knows.
        """
        if self.contest is not None:
            self.contest()
        fd = self.fds.find(LEASE, 0)
        if fd >= 0 and 0 <= self._lease_count != Lease(fd).count:
            raise CommandError(
                f"{self.handed_over or 'another program has taken the guest over'}; it never runs here again"
            )

    def migrate(
        self,
        *,
        uri: str | None = None,
        channels: Sequence[Mapping[str, object]] | None = None,
        resume: bool = False,
    ) -> None:
        """Start; what follows is told by events and :meth:`info`.

        Raises:
            InstarError, CprError: refused; the guest was not stopped and nothing is left behind.
        """
        self._check_idle()
        if resume:
            raise CommandError("Cannot resume if there is no paused migration")
        self._outgoing = self._make_outgoing(*resolve(uri, channels))
        self._outgoing.start()

    def _make_outgoing(self, main: Address | SocketAddress, cpr: SocketAddress | None) -> Outgoing:
        mode = self.settings.mode
        if mode == "cpr-transfer":
            if cpr is None:
                raise CommandError("missing 'cpr' migration channel")
            if isinstance(main, Address):
                raise CommandError("Migration requires streamable transport (eg unix)")
            from instar.migration.transfer import Transfer  # noqa: PLC0415 - not on the resume path

            return Transfer(self, main, cpr)
        if cpr is not None:
            raise CommandError(f"a 'cpr' migration channel is for mode cpr-transfer, not {mode}")
        if isinstance(main, SocketAddress):
            raise CommandError(
                f"{main.uri}: a socket is for mode cpr-transfer; mode {mode} takes file:"
            )
        if mode != "cpr-exec" and not main.path:
            raise CommandError("memfd: is for mode cpr-exec: nobody else could read it")
        if mode == "normal" and self.settings.capabilities["x-ignore-shared"]:
            raise CommandError("capability x-ignore-shared is for mode cpr-reboot, not normal")
        if mode == "cpr-reboot":
            from instar.migration.reboot import Reboot  # noqa: PLC0415 - not on the resume path

            return Reboot(self, main)
        return load_outgoing()(self, main)

    @property
    def busy(self) -> bool:
        """Whether a migration is under way, or a check, which changes no status."""
        checking = self._outgoing is not None and self._outgoing.under_way
        return self.status_machine.in_progress or checking

    def update(self, program: str = "", *, check: bool = False, budget_ms: int = -1) -> None:
        """Go on as another program, or the same again, with a command line made from what runs now.

        Mode and other parameters of migrations are neither used nor changed, apart from ``x-update-...``.

        Args:
            program: A path, or a name to look up; "": where this program came from, whatever lies there by now.
            check: Do all that can be done while the guest runs, undo it, and tell.
            budget_ms: Refuse if a longer pause is predicted; 0: any; -1: as ``x-update-budget`` says.

        Raises:
            InstarError, CprError: refused; the guest was not stopped and nothing is left behind.
        """
        self._check_idle()
        check_command([program])
        words = [program] if program else self._own_words()
        command = [*words, *self.host.command_words("memfd:")]
        self._outgoing = load_outgoing()(
            self, Address(""), command=command, check=check, budget_ms=budget_ms
        )
        self._outgoing.start()

    def _own_words(self) -> list[str]:
        if self.own_program is None:
            raise CommandError(
                "it is not known how this program could be executed again; name a program"
            )
        return self.own_program.words

    def _check_idle(self) -> None:
        if self.busy:
            raise CommandError("There's a migration process in progress")
        if self.machine.runstate == "inmigrate":
            raise CommandError("Guest is waiting for an incoming migration")
        if self.machine.runstate == "postmigrate":
            raise CommandError("Can't migrate the vm that was paused due to previous migration")

    def cancel(self) -> None:
        """Cancel what is under way; nothing under way is fine."""
        if self.busy and self._outgoing is not None:
            self._outgoing.cancel()

    def _on_machine_event(self, name: str, _data: Mapping[str, object]) -> None:
        if name == "SHUTDOWN" and self.machine.ending:  # nothing half done is left on the host
            self.cancel()

    def continue_(self, state: str) -> None:
        """Go on from ``state`` (only ``pre-switchover`` waits).

        Raises:
            CommandError: the migration does not wait there.
        """
        if self._outgoing is None or self.status != "pre-switchover" or state != self.status:
            raise CommandError(f"Migration not in expected state: {self.status}")
        self._outgoing.go_on_from_pre_switchover()

    # In

    def begin_anew(self) -> None:
        """Take memory that lies in files for a new guest: a state that was left for it is worth nothing now.

        Raises:
            HostError: Another program has it; nothing was written to it.
        """
        if any(backend.path for backend in self.machine.memory_backends):
            from instar.migration import left_memory  # noqa: PLC0415 - nobody resumes into this

            left_memory.begin_anew(self.machine.memory_backends)

    def restore_host(self, adopted: Adopted, lost: Callable[[str], object] | None = None) -> None:
        """Let connections, monitors and settings go on where they were left; ``lost`` hears what cannot."""
        load_host(
            adopted.info.get("host"),
            lambda: [self.settings, *self.host.things()],
            adopted.fds,
            lost,
        )

    def expect_incoming(self, adopted: Adopted | None, arrival: Arrival | None = None) -> None:
        """Wait for :meth:`incoming`; the machine is in run state inmigrate."""
        self._adopted = adopted
        self._waiting = True
        self.machine.set_runstate("inmigrate")
        if arrival is not None:
            self._arrival = arrival
            self._adopted = arrival.transferred
            arrival.watch(self.machine.loop, self._on_fatal)

    def incoming(
        self,
        *,
        uri: str | None = None,
        channels: Sequence[Mapping[str, object]] | None = None,
        exit_on_error: bool = True,
    ) -> None:
        """Load the machine from where ``uri`` or ``channels`` say.

        Raises:
            InstarError, CprError: refused before anything was loaded; another try is possible.
        """
        if self.machine.runstate != "inmigrate":
            raise CommandError("'-incoming' was not specified on the command line")
        if not self._waiting:
            raise CommandError("The incoming migration has already been started")
        main, _ = resolve(uri, channels)
        self._exit_on_error = exit_on_error
        if self._arrival is not None:
            self._await_state(self._arrival, main)
            return
        if isinstance(main, SocketAddress):
            raise CommandError(
                f"{main.uri}: a socket is for mode cpr-transfer; this program was started without a cpr channel"
            )
        self._load(main)

    def _load(self, address: Address) -> None:
        incoming = Incoming(self, address, self._adopted)
        incoming.check()
        self._waiting = False
        self.status_machine.set("active")
        incoming.load()

    def _await_state(self, arrival: Arrival, main: Address | SocketAddress) -> None:
        """Let the source of a cpr-transfer send the state."""
        if isinstance(main, Address):
            raise CommandError("Migration requires streamable transport (eg unix)")

        def arrived() -> None:
            try:
                self._load(Address(""))
            except TakenOverError:
                raise
            except (InstarError, CprError) as e:
                self.status_machine.set("active")
                self.incoming_failed(e)

        self._waiting = False

        def looks_ahead(fd: int) -> bool:
            from instar.migration import preview  # noqa: PLC0415 - nobody resumes into this

            self._previewed = preview.take(self, fd, arrival.transferred.fds)
            return self._previewed is not None

        self._when_warm = lambda: arrival.listen(main, arrived, looks_ahead)
        if self._warm:
            self._begin_to_listen()

    def with_preview(self, loaded: Loaded, info: Mapping[str, object]) -> Loaded:
        """Return all state: what was ``loaded`` now, and what of it came while the guest still ran (cpr-transfer).

        Args:
            loaded: Read and checked.
            info: Of the manifest that it came with.

        Raises:
            StateInvalidError: something should have come that did not; nothing was loaded.
        """
        if "same" not in info:
            return loaded
        from instar.migration import preview  # noqa: PLC0415 - nobody resumes into this

        things = [self.ram_box, *self.machine.stateful]
        return preview.completed(self._previewed, loaded, info["same"], things)

    @property
    def arrives(self) -> bool:
        """Whether a guest comes here from a program that runs beside this one."""
        return self._arrival is not None

    def warmed_up(self) -> None:
        """Nothing is left to do that the guest would wait for: a source may send its state now. Again is fine."""
        self._warm = True
        if self._when_warm is not None:
            try:
                self._begin_to_listen()
            except (InstarError, CprError) as e:
                self.status_machine.set("active")
                self.incoming_failed(e)

    def _begin_to_listen(self) -> None:
        assert self._when_warm is not None
        listen, self._when_warm = self._when_warm, None
        try:
            self.machine.vcpus.get_ready()
            listen()
        except BaseException:
            self._waiting = True
            raise

    def rehearse_incoming(self) -> Tried:
        """Load the machine from what was handed over and save it again; nothing runs, and nobody is told.

        Raises:
            InstarError, CprError: it cannot be loaded, or what was loaded cannot be saved.
        """
        incoming = Incoming(self, Address(""), self._adopted)
        began = monotonic_ns()
        incoming.check()
        checked_ns = monotonic_ns() - began
        tried = incoming.rehearse()
        tried.load_ns += checked_ns
        return tried

    def incoming_failed(self, error: Exception) -> None:
        """End with the machine half loaded: it never ran here and must not."""
        self.status_machine.set("failed", str(error))
        self.emit("MIGRATION", {"status": "failed"})
        if self._arrival is not None:  # there is nothing to try again: the source goes on
            self._arrival.refuse(error)
            self._exit_on_error = True
        if self._exit_on_error:
            self._on_fatal(f"incoming migration: {error}")
        self._waiting = True

    def incoming_done(self, report: Report) -> None:
        """Keep what is known about the update; what came with it and was for the incoming half alone is dropped.

        If the host refuses something it raises and can be called again.
        """
        self.report = report
        adopted = self._adopted
        if adopted is not None:
            if (fd := adopted.fds.take(*MAIN_FD)) >= 0:
                os.close(fd)
            from instar.cpr.own import OwnProgram  # noqa: PLC0415 - the guest runs by now

            if self.own_program is None:
                self.own_program = OwnProgram.executed(adopted)
            self._end_leftovers(adopted)
            self._adopted = None  # here, so that what the host refused can be tried again
        arrival, self._arrival = self._arrival, None
        if arrival is not None:
            arrival.done(report)
            self._tell(report)
        for callback in self._after_incoming:
            callback()

    def settled(self, unclaimed: list[str]) -> None:
        """Tell how the update went: nothing of it is left to do.

        Args:
            unclaimed: Descriptors that were handed over and nobody asked for.
        """
        report = self.report
        if report is None or report.mode != "cpr-exec":
            return
        report.unclaimed = unclaimed
        from instar.migration.imported import count_byte_code  # noqa: PLC0415 - the guest runs

        report.modules, report.module_bytes = count_byte_code(report.imported)
        report.add_phase("settle", report.ended_ns, monotonic_ns())
        self._tell(report)

    def _tell(self, report: Report) -> None:
        """Send the events of what this program did before it had monitors, and of the end."""
        failed = report.outcome == "failed"
        for name, _, took_ns in report.after_handover():
            if name != "exec":
                self.emit("UPDATE_PHASE", {"phase": name, "status": "begun"})
            status = "failed" if failed and name == "exec" else "done"
            data = {"phase": name, "status": status, "us": took_ns // 1000}
            self.emit("UPDATE_PHASE", data)
        self.emit("UPDATE_FAILED" if failed else "UPDATE_COMPLETED", report.update_info())

    def _end_leftovers(self, adopted: Adopted) -> None:
        """See to the ends of those that stood by during the update."""
        from instar.cpr.keeper import KEEPERS, pids_of  # noqa: PLC0415 - the guest runs by now
        from instar.migration.leftovers import (  # noqa: PLC0415
            end_child,
            see_to_keepers,
        )

        if (fd := adopted.fds.take(*BRIDGE)) >= 0:
            os.close(fd)
        end_child(adopted.info.get("bridge"))
        end_child(adopted.settle())
        self.keepers = pids_of(adopted.info.get(KEEPERS))
        see_to_keepers(self.machine.loop, self.keepers)

    def after_incoming(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` when nothing that the program before left is needed any more; now if that is so."""
        if self._adopted is None:
            callback()
        else:
            self._after_incoming.append(callback)


def load_outgoing() -> type[Outgoing]:
    """Import the outgoing half; called once the guest runs, so that ``migrate`` need not wait for it."""
    from instar.migration.outgoing import Outgoing  # noqa: PLC0415 - not on the resume path

    return Outgoing
