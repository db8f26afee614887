"""The options that take something from the program itself."""

from __future__ import annotations

from instar.cli.options.table import Key, Option

_DENY = "only deny: this is always so with -sandbox on"

EXEC_ALLOW_OPTION = Option(
    "exec-allow", "text",
    "updates may execute nothing but these programs, or programs in these folders (,, is a comma); default: any",
    group="Process", metavar="PATH[,PATH...]", repeat="list",
)  # fmt: skip
SANDBOX_OPTION = Option(
    "sandbox", "keys",
    "confine this program and all that come after it: seccomp, Landlock, no new privileges",
    group="Process", metavar="on|off", repeat="list", implied="enable",
    keys=(
        Key("enable", "flag", "whether to", required=True),
        Key("read", "text", "a file or folder that may be read besides what options name", low=1, high=4095),
        Key("write", "text", "a folder (or file) that may be written besides what options name", low=1, high=4095),
        Key("obsolete", "choice", _DENY, choices=("deny",), default="deny"),
        Key("elevateprivileges", "choice", _DENY, choices=("deny",), default="deny"),
        Key("resourcecontrol", "choice", _DENY, choices=("deny",), default="deny"),
        Key("spawn", "choice", "only allow: an update starts children; what they may execute is -exec-allow",
            choices=("allow",), default="allow"),
    ),
)  # fmt: skip
