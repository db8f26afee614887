"""Options about other programs that serve devices: rows of the table in :mod:`instar.cli.options.entries`."""

from __future__ import annotations

from instar.cli.options.table import Key, Option

_CHARDEV = Key(
    "chardev",
    "id",
    "id of the -chardev socket,path= where the other program listens",
    required=True,
)
DRAIN_KEY = Key(
    "drain-ms", "int", "how many ms a stop of the machine waits for requests in flight; an update is off then",
    low=1, high=600_000, default="10000",
)  # fmt: skip
VHOST_BLK_KEYS = (
    _CHARDEV,
    Key(
        "num-queues",
        "int",
        "queues, as the other program serves them",
        low=1,
        high=16,
        default="1",
    ),
    DRAIN_KEY,
)
VHOST_FS_KEYS = (
    _CHARDEV,
    DRAIN_KEY,
    Key("tag", "text", "name by which the guest mounts it", low=1, high=36, required=True),
)
CHILD_OPTION = Option(
    "child", "keys", "a program to start before the machine; it ends with the machine and stays through updates",
    group="Process", metavar="name=NAME,command=COMMAND", repeat="list",
    keys=(
        Key("name", "id", "name of this process", high=64, required=True),
        Key("command", "text", "program and arguments, quoted as in a shell (a comma is written twice)",
            low=1, high=4095, required=True),
        Key("restart", "choice", "on-failure: start it again, at most 5 times in a minute",
            choices=("never", "on-failure"), default="never"),
    ),
)  # fmt: skip
