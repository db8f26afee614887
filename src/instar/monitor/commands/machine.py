"""The machine as a whole: identity, run state, reset, power."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from instar.monitor.command import SETTLED, Arg, Hmp, command
from instar.monitor.version import PACKAGE, VERSION

if TYPE_CHECKING:
    from instar.monitor.context import Context


@dataclass
class StatusInfo:
    """Run state."""

    status: Annotated[str, Arg("Run state, named as in QEMU's RunState.")]
    running: Annotated[bool, Arg("Whether the harts run.")]


@dataclass
class NameInfo:
    """Name of the VM."""

    name: Annotated[str | None, Arg("The name given with -name; absent without one.")] = None


@dataclass
class UuidInfo:
    """UUID of the VM."""

    UUID: Annotated[str, Arg("Canonical text; all zeros without -uuid.")]


@dataclass
class KvmInfo:
    """KVM."""

    enabled: Annotated[bool, Arg("Whether KVM runs the guest's instructions.")]
    present: Annotated[bool, Arg("Whether this machine can use KVM.")]


@dataclass
class VersionTriple:
    """A version."""

    micro: Annotated[int, Arg("Third number.")]
    minor: Annotated[int, Arg("Second number.")]
    major: Annotated[int, Arg("First number.")]


@dataclass
class VersionInfo:
    """Version of this program."""

    qemu: Annotated[VersionTriple, Arg("Its numbers, under the name that QMP gives them.")]
    package: Annotated[str, Arg("Program and version as text.")]


def _status(info: StatusInfo) -> str:
    if info.running:
        return "VM status: running\n"
    state = "" if info.status == "paused" else f" ({info.status})"
    return f"VM status: paused{state}\n"


def _name(info: NameInfo) -> str:
    return f"{info.name}\n" if info.name else ""


def _uuid(info: UuidInfo) -> str:
    return f"{info.UUID}\n"


def _kvm(info: KvmInfo) -> str:
    if not info.present:
        return "kvm support: not compiled\n"
    return f"kvm support: {'enabled' if info.enabled else 'disabled'}\n"


def _version(info: VersionInfo) -> str:
    numbers = info.qemu
    return f"{numbers.major}.{numbers.minor}.{numbers.micro} ({info.package})\n"


@command(hmp=Hmp("info status", _status))
def query_status(ctx: Context) -> StatusInfo:
    """Show the run state of the VM.

    -> {"execute": "query-status"}
    <- {"return": {"status": "running", "running": true}}

    (instar) info status
    VM status: running
    """
    state = ctx.machine.runstate
    return StatusInfo(status=state, running=state == "running")


@command(hmp=Hmp("info version", _version))
def query_version(ctx: Context) -> VersionInfo:
    """Show the version of Instar.

    -> {"execute": "query-version"}
    <- {"return": {"qemu": {"micro": 0, "minor": 1, "major": 0}, "package": "instar 0.1.0"}}

    (instar) info version
    0.1.0 (instar 0.1.0)
    """
    del ctx
    return VersionInfo(qemu=VersionTriple(*VERSION[::-1]), package=PACKAGE)


@command(hmp=Hmp("info name", _name))
def query_name(ctx: Context) -> NameInfo:
    """Show the name of the VM.

    -> {"execute": "query-name"}
    <- {"return": {"name": "demo"}}

    (instar) info name
    demo
    """
    return NameInfo(name=ctx.machine.name or None)


@command(hmp=Hmp("info uuid", _uuid))
def query_uuid(ctx: Context) -> UuidInfo:
    """Show the UUID of the VM.

    -> {"execute": "query-uuid"}
    <- {"return": {"UUID": "00000000-0000-0000-0000-000000000000"}}

    (instar) info uuid
    00000000-0000-0000-0000-000000000000
    """
    return UuidInfo(UUID=ctx.machine.uuid)


@command(hmp=Hmp("info kvm", _kvm))
def query_kvm(ctx: Context) -> KvmInfo:
    """Show whether KVM runs the guest's instructions.

    -> {"execute": "query-kvm"}
    <- {"return": {"enabled": false, "present": false}}

    (instar) info kvm
    kvm support: not compiled
    """
    return KvmInfo(enabled=ctx.machine.hardware, present=ctx.machine.hardware)


@command(hmp=Hmp("stop", aliases=("s",)))
def stop(ctx: Context) -> None:
    """Stop the VM.

    -> {"execute": "stop"}
    <- {"return": {}}

    (instar) stop
    """
    ctx.machine.stop()


@command(hmp=Hmp("cont", aliases=("c",)))
def cont(ctx: Context) -> None:
    """Let the VM run (while a migration comes in: after it).

    -> {"execute": "cont"}
    <- {"return": {}}

    (instar) cont
    """
    ctx.machine.start()


@command(name="system_reset", allowed_in=SETTLED, hmp=Hmp("system_reset"))
def system_reset(ctx: Context) -> None:
    """Reset the VM.

    -> {"execute": "system_reset"}
    <- {"return": {}}

    (instar) system_reset
    """
    ctx.machine.reset("host-qmp-system-reset")


@command(name="system_powerdown", allowed_in=SETTLED, hmp=Hmp("system_powerdown"))
def system_powerdown(ctx: Context) -> None:
    """Ask the guest to power off.

    -> {"execute": "system_powerdown"}
    <- {"return": {}}

    (instar) system_powerdown
    """
    ctx.machine.powerdown()


@command(name="quit", hmp=Hmp("quit", aliases=("q",)))
def quit_(ctx: Context) -> None:
    """Quit Instar.

    -> {"execute": "quit"}
    <- {"return": {}}

    (instar) quit
    """
    ctx.machine.quit("host-qmp-quit")
