"""The monitors themselves: negotiation, help, schema, HMP through QMP, descriptors from the client."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from instar.cpr.errors import CprError
from instar.errors import CommandError
from instar.monitor.command import HMP_COMMANDS, QMP_COMMANDS, Arg, Command, Hmp, command
from instar.monitor.hmp import execute, usage
from instar.monitor.schema import schema

if TYPE_CHECKING:
    from instar.monitor.context import ClientContext, Context


@dataclass
class CommandInfo:
    """One QMP command."""

    name: Annotated[str, Arg("Its name.")]


@command(name="qmp_capabilities")
def qmp_capabilities(
    ctx: Context,
    *,
    enable: Annotated[
        list[str] | None, Arg("Capabilities to use; this server offers none.")
    ] = None,
) -> None:
    """End the negotiation; from now on commands are executed and events sent.

    -> {"execute": "qmp_capabilities"}
    <- {"return": {}}
    """
    del ctx
    if enable:
        raise CommandError(f"Parameter 'enable' does not accept value '{enable[0][:64]}'")


@command()
def query_commands(ctx: Context) -> list[CommandInfo]:
    """List all QMP commands.

    -> {"execute": "query-commands"}
    <- {"return": ...}
    """
    del ctx
    return [CommandInfo(name) for name in sorted(QMP_COMMANDS)]


@command()
def query_qmp_schema(ctx: Context) -> list[dict[str, object]]:
    """Return the types of all commands and events, in QEMU's introspection format.

    -> {"execute": "query-qmp-schema"}
    <- {"return": ...}
    """
    del ctx
    return schema()


@command()
def human_monitor_command(
    ctx: Context,
    *,
    command_line: Annotated[str, Arg("One line, as typed at the prompt.")],
    cpu_index: Annotated[
        int | None, Arg("Not used: x and info registers name their hart.", ge=0)
    ] = None,
) -> str:
    r"""Execute one HMP line and return what it prints; errors are part of the text.

    -> {"execute": "human-monitor-command", "arguments": {"command-line": "info status"}}
    <- {"return": "VM status: running\r\n"}
    """
    if cpu_index is not None and cpu_index >= len(ctx.machine.cpus):
        raise CommandError("Parameter 'CPU number' expects a valid CPU number")
    text, waits = execute(ctx, command_line)
    if waits:
        text = "terminal does not allow synchronous migration, continuing detached\n"
    return text.replace("\n", "\r\n")


@command(name="help", qmp=False, hmp=Hmp("help", aliases=("?",)))
def help_(
    ctx: Context,
    *,
    name: Annotated[str, Arg("Command.", complete="command")] = "",
    topic: Annotated[str, Arg("For info: what about.")] = "",
) -> str:
    """Show the help.

    (instar) help migrate
    migrate [-d] [-r] uri -- migrate to URI (using -d to not wait for completion)

    (instar) help info status
    info status -- show the run state of the VM
    """
    del ctx
    wanted = f"{name} {topic}".strip()
    found: dict[str, Command] = {}
    for key, made in HMP_COMMANDS.items():
        is_info = key.startswith("info ")
        if key == wanted or (not wanted and not is_info) or (wanted == "info" and is_info):
            found[usage(made)] = made
    if not found:
        raise CommandError(f"there is no command '{wanted[:64]}'; 'help' lists all")
    lines = [f"{form} -- {found[form].help}" for form in sorted(found)]
    return "".join(f"{line}\n" for line in lines)


@command(name="info", qmp=False, hmp=Hmp("info"))
def info(ctx: Context) -> str:
    """Show various information about the system state.

    (instar) info
    ...
    """
    return help_(ctx, name="info")


@command()
def getfd(ctx: ClientContext, *, fdname: Annotated[str, Arg("Name to keep it under.")]) -> None:
    """Keep the descriptor that came with this request (SCM_RIGHTS) under a name; updates keep it too.

    -> {"execute": "getfd", "arguments": {"fdname": "fd1"}}
    <- {"return": {}}
    """
    if not fdname or fdname[0].isdigit():
        raise CommandError("Parameter 'fdname' expects a name not starting with a digit")
    fd = ctx.take_gift()
    if fd < 0:
        raise CommandError("No file descriptor supplied via SCM_RIGHTS")
    try:
        ctx.named_fds.add(fdname, fd)
    except CprError:  # a name that cannot be one
        os.close(fd)
        raise


@command()
def closefd(ctx: Context, *, fdname: Annotated[str, Arg("Its name.")]) -> None:
    """Close a descriptor of getfd.

    -> {"execute": "closefd", "arguments": {"fdname": "fd1"}}
    <- {"return": {}}
    """
    if not ctx.named_fds.remove(fdname):
        raise CommandError(f"File descriptor named '{fdname[:64]}' not found")
