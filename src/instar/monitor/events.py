"""The events and their data, for schema and reference; ``machine.events`` sends them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from instar.monitor.command import Arg
from instar.monitor.commands.migration import UpdateInfo


@dataclass
class ResetData:
    """Why the machine was reset."""

    guest: Annotated[bool, Arg("The guest asked for it.")]
    reason: Annotated[str, Arg("ShutdownCause, as host-qmp-system-reset.")]


@dataclass
class ShutdownData:
    """Why the machine shuts down."""

    guest: Annotated[bool, Arg("The guest asked for it.")]
    reason: Annotated[str, Arg("ShutdownCause, as host-qmp-quit.")]


@dataclass
class BlockIoErrorData:
    """Which disk request failed, and what follows."""

    device: Annotated[str, Arg("The drive.")]
    node_name: Annotated[str, Arg("Its node.")]
    operation: Annotated[str, Arg("read; write for everything else.", values=("read", "write"))]
    action: Annotated[
        str,
        Arg(
            "What follows: the guest sees the error, nothing, or the VM stops and tries again on cont.",
            values=("report", "ignore", "stop"),
        ),
    ]
    nospace: Annotated[bool, Arg("The host has no space left.")]
    reason: Annotated[str, Arg("The host's words.")]


@dataclass
class BalloonData:
    """What the balloon left the guest."""

    actual: Annotated[int, Arg("RAM that the guest has kept.", unit="bytes")]


@dataclass
class ActionData:
    """What is done about it."""

    action: Annotated[str, Arg("Such as run, pause, poweroff or reset.")]


@dataclass
class MigrationData:
    """How far a migration is."""

    status: Annotated[str, Arg("MigrationStatus.")]


@dataclass
class PassData:
    """Which pass over RAM a migration begins."""

    pass_: Annotated[int, Arg("Number of the pass.")]


@dataclass
class PhaseData:
    """How far an update is."""

    phase: Annotated[
        str, Arg("Such as prepare, rehearse, stop, save, exec, build, load, resume, settle.")
    ]
    status: Annotated[str, Arg("How far.", values=("begun", "done", "failed"))]
    us: Annotated[int | None, Arg("How long it took; absent when it begins.", unit="us")] = None


EVENTS: Final[dict[str, tuple[str, type | None]]] = {
    "STOP": ("The VM was stopped.", None),
    "RESUME": ("The VM runs again.", None),
    "RESET": ("The VM was reset.", ResetData),
    "SHUTDOWN": ("The VM shuts down.", ShutdownData),
    "POWERDOWN": ("The guest was asked to power off.", None),
    "BLOCK_IO_ERROR": ("A disk request failed.", BlockIoErrorData),
    "BALLOON_CHANGE": (
        "The guest gave RAM back or took some (at most one a second).",
        BalloonData,
    ),
    "GUEST_PANICKED": ("The guest has panicked.", ActionData),
    "GUEST_CRASHLOADED": ("The guest has panicked and starts its crash kernel.", ActionData),
    "WATCHDOG": ("The watchdog has run out.", ActionData),
    "MIGRATION": ("A migration changed its status (with capability events).", MigrationData),
    "UPDATE_PHASE": (
        "A phase of an update begins or ends (with capability events). Those after exec are told when the guest runs.",
        PhaseData,
    ),
    "UPDATE_COMPLETED": ("The new program has the guest (with capability events).", UpdateInfo),
    "UPDATE_FAILED": (
        "The update was refused, failed or was cancelled; the old program has the guest (with capability events).",
        UpdateInfo,
    ),
    "UPDATE_CHECKED": ("A check of an update has ended (with capability events).", UpdateInfo),
    "MIGRATION_PASS": ("A migration begins a pass (with capability events).", PassData),
}
