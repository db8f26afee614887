"""The old program's half of an update, as tables: what is done in which order, and what brings back what was before.

The actor is :class:`instar.migration.outgoing.Outgoing`. Not on the resume path. Source: own.
"""

from __future__ import annotations

from instar.cpr.lifecycle import Row, Table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_ASK: Final = (
    Row("prepare", "blockers", "check_blockers"),
    Row("prepare", "target", "open_target", "close_target"),
    Row("prepare", "notify", "notify_setup", "notify_failed"),
)
_OPEN: Final = (
    Row("prepare", "channel", "open_channel", "close_channel"),
    Row("prepare", "accepted", "leave_to_loop"),
)
_TRY: Final = (
    Row("rehearse", "permission", "ask_permission", "end_asking"),
    Row("rehearse", "permitted", "check_permission"),
    Row("rehearse", "guardian", "start_guardian", "dismiss_guardian"),
    Row("rehearse", "guardian-ready", "check_guardian"),
    Row("rehearse", "new-program", "rehearse_new", "end_rehearsal"),
    Row("rehearse", "new-program-older", "rehearse_older", "end_rehearsal"),
    Row("rehearse", "new-program-answered", "judge_new"),
    Row("rehearse", "old-program", "rehearse_old", "end_rehearsal"),
    Row("rehearse", "old-program-answered", "judge_old"),
    Row("rehearse", "digest", "begin_digest", "end_digest"),
    Row("rehearse", "digest-known", "check_digest"),
    Row("rehearse", "bridge", "start_bridge", "end_bridge"),
    Row("rehearse", "bridge-ready", "check_bridge"),
    Row("rehearse", "guardian-there", "find_guardian"),
)
_BEGIN: Final = (*_ASK, Row("prepare", "setup", "begin_setup"), *_OPEN)
_SAVE: Final = (
    Row("stop", "stop-vm", "stop_vm", "resume_vm"),
    Row("stop", "bridge-over", "go_over", "come_back"),
    Row("save", "active", "begin_active"),
    Row("save", "pre-switchover", "wait_if_asked"),
    Row("save", "device", "save_devices"),
    Row("save", "write", "write_some"),
)
EXEC: Final = Table(
    *_BEGIN,
    *_TRY,
    Row("rehearse", "keeper", "start_keeper", "end_keeper"),
    *_SAVE,
    Row("exec", "arm", "arm", "drop_carrier"),
    Row("exec", "exec", "execute"),
)
CHECK: Final = Table(*_ASK, *_OPEN, *_TRY, Row("rehearse", "checked", "end_check"))
NORMAL: Final = Table(*_BEGIN, *_SAVE, Row("settle", "complete", "complete"))
