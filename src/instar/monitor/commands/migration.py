"""Migration and update, QEMU's vocabulary."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final, Literal, cast

from instar.errors import BadArgumentError, CommandError
from instar.migration.parameters import CAPABILITIES, MODES, PARAMETERS
from instar.monitor.command import Arg, Hmp, Member, ObjectType, Wait, command, wire
from instar.monitor.format import migration_text, update_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from instar.monitor.context import Context

# While a migration is in one of these, the prompt of a "migrate" without -d does not come back.
GOING_ON: Final = frozenset({"setup", "active", "device", "cancelling", "wait-unplug"})
_DOCS: Final = {
    "mode": Arg("What kind of migration or update.", values=MODES),
    "cpr-exec-command": Arg("Program and arguments that an update by cpr-exec executes."),
}
_UNUSED: Final = "Not obeyed by this version: only the default is accepted."
_SUFFIXES: Final = {"b": 0, "k": 10, "m": 20, "g": 30, "t": 40}


def _parameter_members() -> tuple[Member, ...]:
    made: list[Member] = []
    for row in PARAMETERS:
        kind = list[str] if isinstance(row.default, list) else type(row.default)
        arg = _DOCS.get(row.name, Arg(row.doc or _UNUSED, unit=row.unit.strip()))
        made.append(Member(row.name, row.name, kind, arg, None))
    return tuple(made)


PARAMETER_TYPE: Final = ObjectType("MigrationParameters", _parameter_members())
_UNITS: Final = {row.name: row.unit for row in PARAMETERS}


@dataclass
class CapabilityStatus:
    """One switch."""

    state: Annotated[bool, Arg("Whether it is on.")]
    capability: Annotated[str, Arg("Its name.", values=tuple(CAPABILITIES))]


@dataclass
class MigrationAddress:
    """One end of a channel."""

    transport: Annotated[
        str, Arg("How it is reached.", values=("socket", "exec", "rdma", "file", "memfd"))
    ]
    filename: Annotated[str | None, Arg("Transport file: path of the file.")] = None
    offset: Annotated[int | None, Arg("Transport file: where it begins.", unit="bytes", ge=0)] = (
        None
    )
    type: Annotated[
        str | None, Arg("Transport socket: family.", values=("inet", "unix", "vsock", "fd"))
    ] = None
    path: Annotated[str | None, Arg("Transport socket, family unix: path of the socket.")] = None
    host: Annotated[str | None, Arg("Transport socket, family inet: name or address.")] = None
    port: Annotated[str | None, Arg("Transport socket, family inet: TCP port.")] = None


@dataclass
class MigrationChannel:
    """One channel of a migration."""

    channel_type: Annotated[str, Arg("What it carries.", values=("main", "cpr"))]
    addr: Annotated[MigrationAddress, Arg("Where it goes to or comes from.")]


@dataclass
class RamInfo:
    """How much RAM went through the stream."""

    remaining: Annotated[int, Arg("Still to be written.", unit="bytes")]
    postcopy_requests: Annotated[int, Arg("Always 0.")]
    multifd_bytes: Annotated[int, Arg("Always 0.", unit="bytes")]
    pages_per_second: Annotated[int, Arg("Always 0.")]
    downtime_bytes: Annotated[int, Arg("Always 0.", unit="bytes")]
    postcopy_bytes: Annotated[int, Arg("Always 0.", unit="bytes")]
    dirty_sync_missed_zero_copy: Annotated[int, Arg("Always 0.")]
    precopy_bytes: Annotated[int, Arg("Always 0.", unit="bytes")]
    duplicate: Annotated[int, Arg("Always 0.")]
    dirty_pages_rate: Annotated[int, Arg("Always 0.")]
    normal_bytes: Annotated[int, Arg("Always 0.", unit="bytes")]
    normal: Annotated[int, Arg("Always 0.")]
    total: Annotated[int, Arg("RAM that goes through the stream.", unit="bytes")]
    transferred: Annotated[int, Arg("Written to the channel.", unit="bytes")]
    dirty_sync_count: Annotated[int, Arg("Passes over RAM.")]
    page_size: Annotated[int, Arg("Page size.", unit="bytes")]
    mbps: Annotated[float, Arg("Throughput.", unit="Mbit/s")]


@dataclass
class PhaseInfo:
    """One phase of an update."""

    name: Annotated[str, Arg("Which.")]
    us: Annotated[int, Arg("How long it took.", unit="us")]


@dataclass
class UpdateInfo:
    """The last update of this program, or the last check of one."""

    status: Annotated[
        str,
        Arg(
            "refused while the guest ran, failed after it was stopped; a check that found nothing is ready.",
            values=("running", "ready", "completed", "refused", "failed", "cancelled"),
        ),
    ]
    mode: Annotated[str, Arg("Migration mode.")]
    check: Annotated[bool, Arg("It was only tried.")]
    owner: Annotated[
        str,
        Arg(
            "Which program has the guest now; the guardian starts the old one in another process.",
            values=("new", "old", "old-by-guardian"),
        ),
    ]
    old_version: Annotated[str, Arg("Version before.")]
    old_pid: Annotated[int, Arg("Process before.")]
    new_pid: Annotated[int, Arg("Process that goes on.")]
    phases: Annotated[list[PhaseInfo], Arg("Where the time went.")]
    new_version: Annotated[str | None, Arg("Version that took over, or that was tried.")] = None
    program: Annotated[str | None, Arg("The file that was executed, or would have been.")] = None
    digest: Annotated[
        str | None,
        Arg("Its digest, as sha256:HEX; docs/reference/security.md says of what."),
    ] = None
    reason: Annotated[str | None, Arg("Why it was not completed.")] = None
    pause_us: Annotated[int | None, Arg("How long the guest was stopped.", unit="us")] = None
    predicted_pause_us: Annotated[int | None, Arg("What the rehearsal predicted.", unit="us")] = (
        None
    )
    rehearsal_pause_us: Annotated[
        int | None,
        Arg("How long the guest stood still before that, for copies of its state.", unit="us"),
    ] = None
    modules: Annotated[
        int | None, Arg("Modules that the new program had imported when the guest ran again.")
    ] = None
    module_bytes: Annotated[int | None, Arg("Their byte code.", unit="bytes")] = None
    prepared: Annotated[
        bool | None, Arg("It began with byte code and configuration from the rehearsal.")
    ] = None
    notes: Annotated[list[str] | None, Arg("What the rehearsal said.")] = None
    complaints: Annotated[list[str] | None, Arg("What the rehearsal held against it.")] = None
    unclaimed: Annotated[
        list[str] | None, Arg("Descriptors of the old program that nobody asked for; closed.")
    ] = None


@dataclass
class MigrationInfo:
    """State of the last or current migration."""

    status: Annotated[str | None, Arg("MigrationStatus; absent before the first.")] = None
    error_desc: Annotated[str | None, Arg("Why it failed.")] = None
    setup_time: Annotated[int | None, Arg("Setting up.", unit="ms")] = None
    downtime: Annotated[int | None, Arg("How long the guest was stopped.", unit="ms")] = None
    total_time: Annotated[int | None, Arg("From begin to end.", unit="ms")] = None
    ram: Annotated[RamInfo | None, Arg("RAM.")] = None
    blocked_reasons: Annotated[list[str] | None, Arg("Why the current mode cannot start.")] = None
    x_update: Annotated[
        UpdateInfo | None, Arg("The last update or check of one; not in QEMU.")
    ] = None


@command(returns=MigrationInfo, hmp=Hmp("info migrate", migration_text))
def query_migrate(ctx: Context) -> Mapping[str, object]:
    """Show migration status.

    -> {"execute": "query-migrate"}
    <- {"return": {"status": "completed"}}

    (instar) info migrate
    Status: 		completed
    """
    return ctx.migration.info()


@command(returns=PARAMETER_TYPE)
def query_migrate_parameters(ctx: Context) -> Mapping[str, object]:
    """Return all migration parameters.

    -> {"execute": "query-migrate-parameters"}
    <- {"return": {"downtime-limit": 300, "mode": "normal", "cpr-exec-command": []}}
    """
    return ctx.migration.parameters


@command(qmp=False, hmp=Hmp("info migrate_parameters"))
def info_migrate_parameters(ctx: Context) -> str:
    """Show migration parameters.

    (instar) info migrate_parameters
    downtime-limit: 300 ms
    mode: normal
    cpr-exec-command:
    """
    rows = ctx.migration.parameters.items()
    return "".join(f"{name}: {_shown(name, value)}".rstrip() + "\n" for name, value in rows)


def _shown(name: str, value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return " ".join(cast("list[str]", value))
    if value == "" or name.startswith("tls-"):
        return f"'{value}'"
    return f"{value}{_UNITS.get(name, '')}"


def _capabilities(rows: list[CapabilityStatus]) -> str:
    return "".join(f"{row.capability}: {'on' if row.state else 'off'}\n" for row in rows)


@command(hmp=Hmp("info migrate_capabilities", _capabilities))
def query_migrate_capabilities(ctx: Context) -> list[CapabilityStatus]:
    """Show migration capabilities.

    -> {"execute": "query-migrate-capabilities"}
    <- {"return": [{"state": false, "capability": "events"},
        {"state": false, "capability": "pause-before-switchover"}]}

    (instar) info migrate_capabilities
    events: off
    pause-before-switchover: off
    """
    return [CapabilityStatus(on, name) for name, on in ctx.migration.capabilities.items()]


@command(takes=PARAMETER_TYPE)
def migrate_set_parameters(ctx: Context, values: Mapping[str, object]) -> None:
    """Set migration parameters: all of them or, if one is not possible, none.

    -> {"execute": "migrate-set-parameters",
        "arguments": {"mode": "cpr-exec", "cpr-exec-command": ["instar-system", "-incoming", "file:vm.state"]}}
    <- {"return": {}}
    """
    ctx.migration.set_parameters(values)


@command(name="hmp-migrate-set-parameter", qmp=False, hmp=Hmp("migrate_set_parameter"))
def hmp_migrate_set_parameter(
    ctx: Context,
    *,
    parameter: Annotated[str, Arg("Name.", complete="parameter")],
    value: Annotated[str, Arg("Value; a list is words in shell quotes.", form="rest")],
) -> None:
    """Set the parameter for migration.

    (instar) migrate_set_parameter mode cpr-exec

    (instar) migrate_set_parameter cpr-exec-command instar-system -name 'my vm' -incoming file:vm.state
    """
    default = ctx.migration.parameters.get(parameter)
    if default is None:
        raise BadArgumentError(f"Parameter 'parameter' does not accept value '{parameter[:64]}'")
    ctx.migration.set_parameters({parameter: _from_text(parameter, default, value)})


def _from_text(name: str, default: object, text: str) -> object:
    if isinstance(default, list):
        try:
            return shlex.split(text)
        except ValueError as e:
            raise CommandError(f"Parameter '{name}': {str(e).lower()}; it was not changed") from e
    words = shlex.split(text) if text[:1] in {"'", '"'} and text[-1:] == text[:1] else [text]
    value = words[0] if words else ""
    if isinstance(default, bool):
        if value not in {"on", "off", "true", "false"}:
            raise CommandError(f"Parameter '{name}' expects 'on' or 'off'")
        return value in {"on", "true"}
    return _number(name, value) if isinstance(default, int) else value


def _number(name: str, text: str) -> int:
    """Read a number; of bandwidths the default unit is MiB, as in QEMU."""
    megabytes = name in {"max-bandwidth", "avail-switchover-bandwidth", "max-postcopy-bandwidth"}
    digits, suffix = (text[:-1], text[-1].lower()) if text[-1:].isalpha() else (text, "")
    shift = _SUFFIXES.get(suffix) if suffix else (20 if megabytes else 0)
    if shift is None or not digits.isascii() or not digits.isdigit() or len(digits) > 19:
        raise CommandError(f"Parameter '{name}' expects a number")
    return int(digits) << shift


@command()
def migrate_set_capabilities(
    ctx: Context,
    *,
    capabilities: Annotated[list[CapabilityStatus], Arg("What to switch.")],
) -> None:
    """Switch migration capabilities on or off: all of them or none.

    -> {"execute": "migrate-set-capabilities",
        "arguments": {"capabilities": [{"capability": "events", "state": true}]}}
    <- {"return": {}}
    """
    ctx.migration.set_capabilities({c.capability: c.state for c in capabilities})


@command(name="hmp-migrate-set-capability", qmp=False, hmp=Hmp("migrate_set_capability"))
def hmp_migrate_set_capability(
    ctx: Context,
    *,
    capability: Annotated[str, Arg("Name.", complete="capability")],
    state: Annotated[bool, Arg("Whether it shall be on.")],
) -> None:
    """Enable or disable the usage of a capability for migration.

    (instar) migrate_set_capability events on
    """
    ctx.migration.set_capabilities({capability: state})


@command()
def migrate(
    ctx: Context,
    *,
    uri: Annotated[str | None, Arg("Where to, as file:PATH; or give channels.")] = None,
    channels: Annotated[list[MigrationChannel] | None, Arg("Where to; or give uri.")] = None,
    resume: Annotated[bool, Arg("Go on with a migration that was interrupted.")] = False,
) -> None:
    """Start a migration or update; events and query-migrate tell how it goes.

    -> {"execute": "migrate", "arguments": {"uri": "file:vm.state"}}
    <- {"return": {}}

    -> {"execute": "migrate", "arguments": {"channels": [{"channel-type": "main",
        "addr": {"transport": "file", "filename": "vm.state", "offset": 0}}]}}
    <- {"return": {}}

    -> {"execute": "migrate", "arguments": {"channels": [
        {"channel-type": "main", "addr": {"transport": "socket", "type": "unix", "path": "main.sock"}},
        {"channel-type": "cpr", "addr": {"transport": "socket", "type": "unix", "path": "cpr.sock"}}]}}
    <- {"return": {}}
    """
    ctx.migration.migrate(uri=uri, channels=_channels(channels), resume=resume)


def _channels(channels: list[MigrationChannel] | None) -> list[Mapping[str, object]] | None:
    return None if channels is None else cast("list[Mapping[str, object]]", wire(channels))


@command(name="hmp-migrate", qmp=False, hmp=Hmp("migrate"))
def hmp_migrate(
    ctx: Context,
    *,
    detach: Annotated[bool, Arg("Do not wait.", flag="d")] = False,
    resume: Annotated[bool, Arg("Go on after an interruption.", flag="r")] = False,
    uri: Annotated[str, Arg("Where to.")],
) -> Wait | None:
    """Migrate to URI (using -d to not wait for completion).

    (instar) migrate -d file:vm.state
    """
    ctx.migration.migrate(uri=uri, channels=None, resume=resume)
    return None if detach else Wait("migrate")


@command(name="x-update")
def x_update(
    ctx: Context,
    *,
    program: Annotated[
        str | None, Arg("What to execute; absent: the file that this program came from.")
    ] = None,
    check: Annotated[
        bool, Arg("Do only what can be done while the guest runs, and undo it.")
    ] = False,
    budget: Annotated[
        int | None,
        Arg(
            "Refuse if a longer pause is predicted; 0: any. Default: x-update-budget.",
            unit="ms",
            ge=0,
            le=600_000,
        ),
    ] = None,
) -> None:
    """Start an update whose command line is made from what runs now; not in QEMU.

    query-migrate (x-update) and events tell how it goes. Mode and cpr-exec-command are neither used nor changed.

    -> {"execute": "x-update", "arguments": {"program": "/opt/instar/bin/instar-system", "budget": 200}}
    <- {"return": {}}

    -> {"execute": "x-update", "arguments": {"check": true}}
    <- {"return": {}}
    """
    ctx.migration.update(program or "", check=check, budget_ms=-1 if budget is None else budget)


@command(name="hmp-update", qmp=False, hmp=Hmp("update"))
def hmp_update(
    ctx: Context,
    *,
    detach: Annotated[bool, Arg("Do not wait.", flag="d")] = False,
    check: Annotated[bool, Arg("Only try it, while the guest runs.", flag="c")] = False,
    program: Annotated[str, Arg("What to execute; default: this program.", form="rest")] = "",
) -> Wait | None:
    """Replace this program under the guest, as what runs now.

    (instar) update -d

    (instar) update --check -d /opt/instar/bin/instar-system
    """
    ctx.migration.update(program, check=check)
    return None if detach else Wait("update")


def update_outcome(ctx: Context) -> str | None:
    """Return what to print when an update that somebody waits for has ended; None until then."""
    update = cast("Mapping[str, object]", ctx.migration.info().get("x-update", {}))
    if update.get("status") == "running":
        return None
    reason = f"Error: {update['reason']}\n" if "reason" in update else ""
    return reason + (update_text(update) if update else "")


def outcome(ctx: Context) -> str | None:
    """Return what to print when a migration that somebody waits for has ended; None until then."""
    info = ctx.migration.info()
    if info.get("status") in GOING_ON:
        return None
    return f"Error: {info['error-desc']}\n" if info.get("error-desc") else ""


@command(name="migrate_cancel", hmp=Hmp("migrate_cancel"))
def migrate_cancel(ctx: Context) -> None:
    """Cancel the current VM migration.

    -> {"execute": "migrate_cancel"}
    <- {"return": {}}

    (instar) migrate_cancel
    """
    ctx.migration.cancel()


@command(hmp=Hmp("migrate_continue"))
def migrate_continue(
    ctx: Context,
    *,
    state: Annotated[Literal["pre-switchover"], Arg("The state that the migration is paused in.")],
) -> None:
    """Continue migration from the given paused state.

    -> {"execute": "migrate-continue", "arguments": {"state": "pre-switchover"}}
    <- {"return": {}}

    (instar) migrate_continue pre-switchover
    """
    ctx.migration.continue_(state)


@command()
def migrate_incoming(
    ctx: Context,
    *,
    uri: Annotated[str | None, Arg("Where from, as file:PATH; or give channels.")] = None,
    channels: Annotated[list[MigrationChannel] | None, Arg("Where from; or give uri.")] = None,
    exit_on_error: Annotated[bool, Arg("End the program if it fails.")] = True,
) -> None:
    """Start the incoming migration that -incoming defer announced.

    -> {"execute": "migrate-incoming", "arguments": {"uri": "file:vm.state"}}
    <- {"return": {}}
    """
    ctx.migration.incoming(uri=uri, channels=_channels(channels), exit_on_error=exit_on_error)


@command(name="hmp-migrate-incoming", qmp=False, hmp=Hmp("migrate_incoming"))
def hmp_migrate_incoming(ctx: Context, *, uri: Annotated[str, Arg("Where from.")]) -> None:
    """Continue an incoming migration from an -incoming defer.

    (instar) migrate_incoming file:vm.state
    """
    ctx.migration.incoming(uri=uri, channels=None, exit_on_error=True)
