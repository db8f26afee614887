"""What the program may not do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from instar.monitor.command import Arg, Hmp, command

if TYPE_CHECKING:
    from collections.abc import Mapping

    from instar.monitor.context import Context


@dataclass
class SandboxInfo:
    """How the program is confined; no command changes any of it."""

    enabled: Annotated[bool, Arg("Whether -sandbox on was given when the VM was started.")]
    seccomp_filters: Annotated[int, Arg("Filters of system calls, the host's own among them.")]
    no_new_privileges: Annotated[bool, Arg("Whether executing a file gives no privileges.")]
    landlock_abi: Annotated[int, Arg("What the kernel knows of Landlock; 0: nothing.")]
    exec_allow: Annotated[
        list[str], Arg("What updates may execute; empty: anything that the sandbox lets.")
    ]
    read: Annotated[list[str], Arg("What may be read besides what options name.")]
    write: Annotated[list[str], Arg("What may be written besides what options name.")]


def _text(info: Mapping[str, object]) -> str:
    lists = "".join(
        f"{name}: {' '.join(map(str, rows)) if isinstance(rows, list) and rows else '-'}\n"  # pyright: ignore[reportUnknownArgumentType]
        for name in ("exec-allow", "read", "write")
        for rows in (info[name],)
    )
    return (
        f"sandbox: {'on' if info['enabled'] else 'off'}\n"
        f"seccomp filters: {info['seccomp-filters']}\n"
        f"no new privileges: {'on' if info['no-new-privileges'] else 'off'}\n"
        f"landlock ABI: {info['landlock-abi']}\n{lists}"
    )


@command(returns=SandboxInfo, hmp=Hmp("info sandbox", _text))
def query_sandbox(ctx: Context) -> Mapping[str, object]:
    """Show how the program is confined.

    -> {"execute": "query-sandbox"}
    <- {"return": {"enabled": false, "seccomp-filters": 0, "no-new-privileges": false, "landlock-abi": 7,
        "exec-allow": [], "read": [], "write": []}}

    (instar) info sandbox
    sandbox: off
    seccomp filters: 0
    no new privileges: off
    landlock ABI: 7
    exec-allow: -
    read: -
    write: -
    """
    return ctx.confinement()
