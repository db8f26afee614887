"""``instar-system``: one virtual machine. Started by a person, or by the program that it replaces.

Exit statuses: 0 the machine was shut down; 1 an incoming migration failed; 2 the command line is wrong; 3 the host
refused something; 70 a bug of ours; anything else is what the guest said when it powered off.
"""

from __future__ import annotations

import gc
import os
import sys
from time import monotonic_ns

from instar import log, prepared, signals
from instar._version import VERSION
from instar.cli.assembly import assemble
from instar.cli.confine import keep_confinement
from instar.cli.options import Config, Request, parse
from instar.cli.vm import CHILD_PATIENCE_S, Vm
from instar.cpr.adopted import BRIDGE, REHEARSAL, adopt
from instar.cpr.errors import CprError, LoadTimeoutError, TakenOverError
from instar.cpr.fds import Fds
from instar.errors import ConfigError, InstarError
from instar.loop import Loop

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar, Final

    from instar.cpr.adopted import Adopted
    from instar.errors import Fault
    from instar.migration.arrival import Arrival

PROGRAM: Final = "instar-system"
INCOMING_FAILED: Final = 1
_MAX_PID: Final = 32  # bytes that are looked at
GIL_TURN_S: Final = (
    0.0001  # a guest at a device waits no longer than this for what the main thread is doing
)


class IncomingError(InstarError):
    """What should come in did not; nothing runs here."""

    code = "incoming-failed"
    fault: ClassVar[Fault] = "user"
    exit_status = INCOMING_FAILED


def main(argv: list[str] | None = None) -> int:
    """Run the program; returns the exit status."""
    sys.setswitchinterval(GIL_TURN_S)
    gc.disable()  # a collection inside the pause would be paid by the guest; on again once settled
    _open_standard_fds()
    words = sys.argv[1:] if argv is None else argv
    if REHEARSAL in os.environ:
        began = monotonic_ns()
        from instar.cli.rehearsal import rehearse  # noqa: PLC0415 - nobody resumes into this

        return rehearse(words, monotonic_ns() - began)
    if BRIDGE in os.environ:
        from instar.cli.bridge import serve  # noqa: PLC0415 - nobody resumes into this

        return serve(words)
    adopted: Adopted | None = None
    arrival: Arrival | None = None
    try:
        adopted = adopt()
        if adopted is not None:
            _limit(adopted)
        config = _understood(words)
        if not isinstance(config, Config):
            return _print_text(config.topic)
        arrival = _await_descriptors(config, adopted)
        return _run(config, adopted, arrival)
    except TakenOverError as e:
        _complain(e)
        os._exit(INCOMING_FAILED)
    except (InstarError, CprError) as e:
        _go_back(adopted, e)
        _refuse(arrival, e)
        _complain(e)
        return e.exit_status if isinstance(e, InstarError) else INCOMING_FAILED
    except BaseException as e:
        _go_back(adopted, e)
        _refuse(arrival, e)
        raise


def _understood(words: list[str]) -> Config | Request:
    """Return what the command line means; nothing is parsed if the rehearsal has parsed these very words."""
    known = prepared.config_of(words)
    if known is not None:
        from instar.cli.options.plain import from_plain  # noqa: PLC0415 - only a prepared start

        try:
            return from_plain(known)
        except (AttributeError, KeyError, TypeError):  # damaged: the words have it
            pass
    return parse(words)


def _await_descriptors(config: Config, adopted: Adopted | None) -> Arrival | None:
    """Wait for the descriptors of a guest that runs beside this program, if the command line says so (cpr-transfer)."""
    if not config.incoming_cpr:
        return None
    if adopted is not None:
        log.warning("ignoring cpr channel for migration mode cpr-exec")
        return None
    from instar.cli.arriving import await_descriptors  # noqa: PLC0415 - nobody resumes into this

    return await_descriptors(config)


def _refuse(arrival: Arrival | None, error: BaseException) -> None:
    """Tell the program that has the guest that it keeps it."""
    if arrival is not None and not arrival.transferred.committed:
        arrival.refuse(error)


def _limit(adopted: Adopted) -> None:
    """Give this program the time that the one before has set, until it commits."""
    limit_ms = adopted.info.get("limit-ms")
    if isinstance(limit_ms, int) and not adopted.failed:

        def too_long() -> None:
            if adopted.committed:  # somebody else's alarm, long after
                return
            raise LoadTimeoutError(f"the new program did not go on within {limit_ms} ms")

        signals.set_alarm(limit_ms, too_long)


def _go_back(adopted: Adopted | None, error: BaseException) -> None:
    """Let the program before this one go on; returns if there is none, or this one has committed."""
    if adopted is None or adopted.committed:
        return
    signals.set_alarm(0)
    mask = signals.hold_ending()
    adopted.go_back(f"{VERSION}: {_text(error)}")
    signals.restore(mask)


def _text(error: BaseException) -> str:
    return str(error) if isinstance(error, (InstarError, CprError)) else repr(error)


def _run(config: Config, adopted: Adopted | None, arrival: Arrival | None) -> int:
    if adopted is None:
        _set_up_process(config, beside=arrival is not None)
    else:
        _check_goes_on(config)
    loop = Loop()
    fatal: list[str] = []

    def on_fatal(text: str) -> None:
        fatal.append(text)
        loop.quit()

    given = arrival.transferred if arrival is not None else adopted
    fds = Fds() if given is None else given.fds
    vm = Vm(loop, fds, config, before=adopted)
    ended = False
    try:
        if adopted is None:  # later, the sets are there, and those numbers are something else
            vm.fd_sets.add_inherited([(wish.fd, wish.set, wish.opaque) for wish in config.add_fds])
        assemble(vm, announce=_announce, on_fatal=on_fatal)
        vm.machine.events.hold()  # until there are monitors
        signals.on_ending(
            lambda _number: loop.call_threadsafe(lambda: vm.machine.quit("host-signal"))
        )
        _begin(vm, config, adopted, arrival)
        loop.call_soon(lambda: vm.settle(adopted))
        if adopted is not None and adopted.info.get("pid") != os.getpid():
            loop.call_soon(lambda: _tell_new_pid(config))
        if not fatal:
            loop.run()
        if fatal:
            raise IncomingError(fatal[0])
        ended = True
    finally:
        if arrival is not None:
            arrival.stop_listening()
        # What was handed over stays as it is while somebody else may have to go on with it.
        if ended or adopted is None or adopted.committed:
            _close(vm)
    if adopted is not None and not adopted.committed:
        adopted.end()
    return vm.machine.exit_status


def _check_goes_on(config: Config) -> None:
    """Refuse to start a guest anew before the machine is made, for that writes to the memory that was handed over."""
    if not config.incoming:
        raise ConfigError(
            "this command line would start the guest anew: it has no -incoming, but a running guest was handed over"
        )


def _begin(vm: Vm, config: Config, adopted: Adopted | None, arrival: Arrival | None) -> None:
    """Let the machine do what the command line says: run, stay stopped, or load."""
    if adopted is not None:
        keep_confinement(config, adopted)
        vm.migration.restore_host(adopted)
    vm.netdevs.open(CHILD_PATIENCE_S if config.children and adopted is None else 0.0)
    if config.sandbox.enabled and adopted is None:
        from instar.cli.sandbox import confine  # noqa: PLC0415 - nobody resumes into this

        confine(config)
    if config.incoming:
        vm.migration.expect_incoming(adopted, arrival)
        if arrival is not None:  # until then the file names the program that has the guest
            vm.migration.after_incoming(lambda: _tell_new_pid(config))
        if config.incoming != "defer":
            _load(vm, config.incoming)
        elif adopted is not None:  # a person decides when it goes on
            signals.set_alarm(0)
            adopted.wait()
        elif arrival is not None:
            arrival.wait_for_person()
        return
    if not config.start_paused:
        vm.machine.resume()


def _load(vm: Vm, uri: str) -> None:
    try:
        vm.migration.incoming(uri=uri)
    except InstarError as e:
        raise IncomingError(f"-incoming {uri}: {e}") from e


def _close(vm: Vm) -> None:
    """Leave the host as it was found: terminal modes, socket files, pid file."""
    for slot in vm.monitor_slots:
        if slot.monitor is not None:
            slot.monitor.close()
    for device in vm.chardevs.values():
        device.close()
    vm.netdevs.close()
    for part in vm.host_parts:
        part.close()
    if vm.config.pidfile:
        _remove_pidfile(vm.config.pidfile)


def _remove_pidfile(path: str) -> None:
    """Remove the file, unless it names a program that has taken the guest over."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            if file.read(_MAX_PID).strip() == str(os.getpid()):
                os.unlink(path)
    except OSError as e:
        log.warning(f"-pidfile {path}: {os.strerror(e.errno or 0)}; it was not removed")


def _open_standard_fds() -> None:
    """Give descriptors 0 to 2 a meaning if they are closed, lest a disk become standard output."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            opened = os.open("/dev/null", os.O_RDWR)
            os.set_inheritable(opened, True)  # noqa: FBT003 - positional only; the lowest free number is the one that was missing


def _set_up_process(config: Config, *, beside: bool) -> None:
    for text in config.warnings:
        log.warning(text)
    if config.process_name:
        with open("/proc/self/comm", "w", encoding="utf-8") as comm:
            comm.write(config.process_name)
    if config.pidfile and not beside:
        try:
            _write_pidfile(config.pidfile)
        except OSError as e:
            raise ConfigError(
                f"-pidfile {config.pidfile}: {os.strerror(e.errno or 0)}; nothing was started"
            ) from e


def _write_pidfile(path: str) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NONBLOCK
    fd = os.open(path, flags, 0o644)
    try:
        os.write(fd, f"{os.getpid()}\n".encode())
    finally:
        os.close(fd)


def _tell_new_pid(config: Config) -> None:
    """Write the pid file anew: this program has the guest now, under its own number."""
    if config.pidfile:
        try:
            _write_pidfile(config.pidfile)
        except OSError as e:
            log.warning(
                f"-pidfile {config.pidfile}: {os.strerror(e.errno or 0)}; it names a process that has ended"
            )


def _print_text(topic: str) -> int:
    from instar.cli.options.help import help_text  # noqa: PLC0415 - nobody resumes into this

    text = f"{PROGRAM} {VERSION}" if topic == "version" else help_text(topic)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
    return 0


def _announce(text: str) -> None:
    log.warning(text)


def _complain(error: Exception) -> None:
    log.release()
    log.error(str(error))
    for note in getattr(error, "__notes__", ()):
        log.hint(note.removeprefix("hint: "))
