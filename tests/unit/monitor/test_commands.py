"""Every command's documented exchanges are true, and its declaration is complete."""

from __future__ import annotations

import json
from typing import Annotated

import pytest
from monitor_fakes import FakeContext

from instar.errors import BadArgumentError, WrongStateError
from instar.monitor import commands, hmp
from instar.monitor.command import (
    HMP_COMMANDS,
    QMP_COMMANDS,
    SETTLED,
    Arg,
    command,
    convert,
    invoke,
    members_of,
    wire,
)  # fmt: skip
from instar.monitor.commands.machine import StatusInfo
from instar.monitor.commands.migration import MigrationChannel
from instar.monitor.qmp import QmpSession

assert commands

QMP_EXAMPLES = [(n, *e) for n, c in QMP_COMMANDS.items() for e in c.examples]
HMP_EXAMPLES = [
    (c.hmp.name, *e)
    for c in {id(c): c for c in HMP_COMMANDS.values()}.values()
    for e in c.hmp_examples
]
REQUIRED_QMP = """query-status query-version query-name query-uuid query-cpus-fast query-memdev
    query-memory-size-summary query-chardev query-block query-kvm query-commands query-qmp-schema query-migrate
    query-migrate-parameters query-migrate-capabilities migrate migrate-set-parameters migrate-set-capabilities
    migrate_cancel migrate-continue migrate-incoming stop cont system_reset system_powerdown quit getfd closefd
    human-monitor-command qmp_capabilities replay-break replay-delete-break query-replay"""
REQUIRED_INFO = """status migrate migrate_parameters migrate_capabilities chardev memdev mtree cpus registers block
    version name uuid kvm"""
REQUIRED_HMP = """help migrate migrate_set_parameter migrate_set_capability migrate_cancel migrate_continue
    migrate_incoming stop cont quit system_reset system_powerdown x xp replay_break c s q"""


def negotiated(context):
    session = QmpSession(context)
    session.feed(b'{"execute": "qmp_capabilities"}')
    session.answer()
    return session


@pytest.mark.parametrize(("name", "request_", "reply"), QMP_EXAMPLES, ids=lambda v: v[:40])
def test_qmp_example_gives_the_documented_reply(name, request_, reply) -> None:
    session = {"qmp_capabilities": QmpSession}.get(name, negotiated)(FakeContext())
    session.feed(request_.encode())
    got = json.loads(session.answer())
    expected = json.loads(reply.replace("...", '"anything"'))
    assert expected in (got, dict.fromkeys(got, "anything"))
    assert "return" in got


@pytest.mark.parametrize(("name", "line", "printed"), HMP_EXAMPLES)
def test_hmp_example_prints_what_is_documented(name, line, printed) -> None:
    text, _ = hmp.execute(FakeContext(), line)
    assert printed.split() in (text.split(), ["..."])
    assert not text.startswith("Error")
    assert hmp.find(line)[0] is HMP_COMMANDS[name]


@pytest.mark.parametrize("name", REQUIRED_QMP.split())
def test_qmp_command_is_there(name) -> None:
    assert name in QMP_COMMANDS


@pytest.mark.parametrize(
    "name", [*REQUIRED_HMP.split(), *(f"info {n}" for n in REQUIRED_INFO.split())]
)
def test_hmp_command_is_there(name) -> None:
    assert name in HMP_COMMANDS


def test_command_without_example_is_refused() -> None:
    with pytest.raises(TypeError, match="shows no -> request"):

        @command()
        def nothing(ctx) -> None:
            """Do nothing."""


def test_command_with_undocumented_argument_is_refused() -> None:
    with pytest.raises(TypeError, match=r"no Arg\(\)"):

        @command()
        def nothing(ctx, *, value: int) -> None:
            """Do nothing."""


def test_command_declared_twice_is_refused() -> None:
    with pytest.raises(TypeError, match="declared twice"):

        @command(name="stop")
        def nothing(ctx, *, value: Annotated[int, Arg("Nothing.")]) -> None:
            """Do nothing.

            -> {"execute": "stop"}
            <- {"return": {}}
            """


def test_invoke_in_wrong_run_state_is_refused_and_not_called() -> None:
    context = FakeContext()
    context.machine.runstate = "inmigrate"
    with pytest.raises(WrongStateError, match="system_reset: machine is inmigrate; allowed when"):
        invoke(QMP_COMMANDS["system_reset"], context, {})
    assert context.machine.done == []
    assert "inmigrate" not in SETTLED


@pytest.mark.parametrize(
    ("name", "arguments", "text"),
    [
        ("closefd", {}, "Parameter 'fdname' is missing"),
        ("closefd", {"fdname": "a", "x": 1}, "Parameter 'x' is unexpected"),
        ("closefd", {"fdname": 1}, "Invalid parameter type for 'fdname', expected: string"),
        ("replay-break", {"icount": True}, "Invalid parameter type for 'icount', expected: integer"),
        ("replay-break", {"icount": -1}, "Parameter 'icount' expects a value of at least 0"),
        ("replay-break", {"icount": 1 << 70}, "Parameter 'icount' expects an integer of at most 64 bits"),
        ("migrate-set-parameters", {"cpr-exec-command": "ls"},
         "Invalid parameter type for 'cpr-exec-command', expected: array"),
        ("migrate-set-parameters", {"cpr-exec-command": ["ls", 1]},
         "Invalid parameter type for 'cpr-exec-command[1]', expected: string"),
        ("migrate-set-parameters", {"mode": "xyz"}, "Parameter 'mode' does not accept value 'xyz'"),
        ("migrate-set-capabilities", {"capabilities": [{"capability": "x", "state": True}]},
         "Parameter 'capabilities[0].capability' does not accept value 'x'"),
        ("migrate-set-capabilities", {"capabilities": [{"capability": "events"}]},
         "Parameter 'capabilities[0].state' is missing"),
        ("migrate", {"channels": [{"channel-type": "main", "addr": "x"}]},
         "Invalid parameter type for 'channels[0].addr', expected: object"),
        ("migrate-continue", {"state": "device"}, "Parameter 'state' does not accept value 'device'"),
    ],
)  # fmt: skip
def test_invoke_with_bad_argument_names_it(name, arguments, text) -> None:
    context = FakeContext()
    with pytest.raises(BadArgumentError) as e:
        invoke(QMP_COMMANDS[name], context, arguments)
    assert str(e.value) == text
    assert (context.machine.done, context.migration.done) == ([], [])


def test_migrate_channels_reach_the_migration_as_on_the_wire() -> None:
    context = FakeContext()
    channels = [
        {"channel-type": "main", "addr": {"transport": "file", "filename": "x", "offset": 0}}
    ]
    invoke(QMP_COMMANDS["migrate"], context, {"channels": channels})
    assert context.migration.done == [(None, channels, False)]


def test_convert_list_of_objects_gives_dataclasses() -> None:
    member = QMP_COMMANDS["migrate"].members[1]
    (made,) = convert(member, [{"channel-type": "main", "addr": {"transport": "memfd"}}])
    assert isinstance(made, MigrationChannel)
    assert made.channel_type == "main"


def test_wire_leaves_out_what_is_none() -> None:
    assert wire({"a": [StatusInfo("running", running=True)], "b": None}) == {
        "a": [{"status": "running", "running": True}], "b": {}
    }  # fmt: skip
    assert [m.name for m in members_of(StatusInfo)] == ["status", "running"]
