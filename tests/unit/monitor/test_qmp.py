"""A QMP session: negotiation, replies, errors, events, and all of it across an update."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from monitor_fakes import FakeContext

from instar.monitor import commands
from instar.monitor.qmp import QmpSession, error
from instar.monitor.schema import schema
from instar.monitor.state import MAX_INPUT

assert commands


def ask(session, *requests):
    for request in requests:
        session.feed(request if isinstance(request, bytes) else json.dumps(request).encode())
    replies = []
    while (reply := session.answer()) is not None:
        assert reply.endswith(b"\r\n")
        replies.append(json.loads(reply))
    return replies


@pytest.fixture
def context():
    return FakeContext()


@pytest.fixture
def session(context):
    session = QmpSession(context)
    ask(session, {"execute": "qmp_capabilities"})
    return session


def test_greeting_has_qemus_shape(context) -> None:
    assert QmpSession(context).greeting() == (
        b'{"QMP": {"version": {"qemu": {"micro": 0, "minor": 1, "major": 0}, "package": "instar 0.1.0"}, '
        b'"capabilities": []}}\r\n'
    )


def test_command_before_negotiation_is_refused(context) -> None:
    assert ask(QmpSession(context), {"execute": "stop", "id": 1}) == [
        {"error": {"class": "CommandNotFound", "desc": "Expecting capabilities negotiation with 'qmp_capabilities'"},
         "id": 1}
    ]  # fmt: skip
    assert context.machine.runstate == "running"


def test_unknown_command_is_refused(session) -> None:
    assert ask(session, {"execute": "nosuch"}) == [
        {"error": {"class": "CommandNotFound", "desc": "The command nosuch has not been found"}}
    ]


def test_second_negotiation_is_refused(session) -> None:
    (reply,) = ask(session, {"execute": "qmp_capabilities"})
    assert reply["error"]["class"] == "CommandNotFound"


def test_negotiation_of_unknown_capability_is_refused(context) -> None:
    session = QmpSession(context)
    (reply,) = ask(session, {"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}})
    assert reply["error"]["desc"] == "Parameter 'enable' does not accept value 'oob'"
    assert not session.negotiated


@pytest.mark.parametrize(
    ("request_", "desc"),
    [
        ([], "QMP input must be a JSON object"),
        ({}, "QMP input lacks member 'execute'"),
        ({"execute": 1}, "QMP input member 'execute' must be a string"),
        ({"execute": "stop", "arguments": []}, "QMP input member 'arguments' must be an object"),
        ({"execute": "stop", "x": 1}, "QMP input member 'x' is unexpected"),
        ({"execute": "getfd", "arguments": {"fdname": "1"}},
         "Parameter 'fdname' expects a name not starting with a digit"),
        ({"execute": "closefd", "arguments": {"fdname": "no"}}, "File descriptor named 'no' not found"),
    ],
)  # fmt: skip
def test_wrong_request_gets_an_error_and_the_session_goes_on(session, request_, desc) -> None:
    wrong, right = ask(session, request_, {"execute": "query-status"})
    assert wrong == {"error": {"class": "GenericError", "desc": desc}}
    assert right == {"return": {"status": "running", "running": True}}


@settings(max_examples=30)
@given(st.recursive(st.none() | st.text() | st.integers(), st.lists, max_leaves=4))
def test_id_comes_back_as_it_is(ident) -> None:
    session = QmpSession(FakeContext())
    ok, wrong = ask(
        session, {"execute": "qmp_capabilities", "id": ident}, {"execute": "x", "id": ident}
    )
    assert (ok["id"], wrong["id"]) == (ident, ident)


def test_getfd_without_descriptor_is_refused(session, context) -> None:
    context.gifts.clear()
    (reply,) = ask(session, {"execute": "getfd", "arguments": {"fdname": "f"}})
    assert reply["error"]["desc"] == "No file descriptor supplied via SCM_RIGHTS"


def test_getfd_keeps_the_descriptor(session, context) -> None:
    ask(session, {"execute": "getfd", "arguments": {"fdname": "f"}})
    assert context.named_fds.kept["f"] == 7


def test_bug_in_a_command_is_an_error_reply(session, context, capfd) -> None:
    context.machine = None
    (reply,) = ask(session, {"execute": "query-status", "id": 3})
    assert reply["error"]["desc"].startswith("internal bug (AttributeError in ")
    assert reply["id"] == 3
    assert "internal bug" in capfd.readouterr().err


def test_module_of_ours_that_is_gone_from_the_disk_is_no_bug() -> None:
    gone = ModuleNotFoundError("No module named 'instar.x'", name="instar.x")
    assert error(gone)["desc"].startswith("this release is not on the disk any more: instar.x ")


def test_event_is_sent_only_after_negotiation(context, session) -> None:
    assert QmpSession(context).event("STOP", {}, 5_000_001) == b""
    assert session.event("STOP", {}, 5_000_001) == (
        b'{"timestamp": {"seconds": 5, "microseconds": 1}, "event": "STOP"}\r\n'
    )
    assert json.loads(session.event("MIGRATION", {"status": "setup"}, 0))["data"] == {
        "status": "setup"
    }


def test_pretty_replies_are_indented(context) -> None:
    assert QmpSession(context, pretty=True).greeting().startswith(b'{\r\n    "QMP": {\r\n')


def test_hmp_errors_come_back_as_text(session) -> None:
    request = {
        "execute": "human-monitor-command",
        "arguments": {"command-line": "migrate -d bogus:1"},
    }
    assert ask(session, request) == [{"return": "Error: unknown migration protocol: bogus:1\r\n"}]


def test_hmp_migrate_through_qmp_does_not_wait(session) -> None:
    request = {"execute": "human-monitor-command", "arguments": {"command-line": "migrate file:x"}}
    (reply,) = ask(session, request)
    assert (
        reply["return"] == "terminal does not allow synchronous migration, continuing detached\r\n"
    )


def test_saved_session_goes_on_in_the_middle_of_a_request(session, context) -> None:
    session.feed(b'{"execute": "query-na')
    assert session.answer() is None
    after = QmpSession(context, state=session.save())
    assert ask(after, b'me"}') == [{"return": {"name": "demo"}}]


def test_saved_session_still_skips_what_was_too_long(session, context) -> None:
    session.feed(b'{"' + b"x" * (1 << 20))
    assert b"size limit exceeded" in session.answer()
    after = QmpSession(context, state=session.save())
    assert ask(after, b'{"execute": "query-name"}\n{"execute": "query-name"}') == [
        {"return": {"name": "demo"}}
    ]


def test_room_never_reaches_zero_inside_a_request(session) -> None:
    session.feed(b'{"' + b"x" * (1 << 19))
    assert session.answer() is None
    assert 0 < session.room() < MAX_INPUT


def test_schema_names_are_unique_and_all_used_types_are_described() -> None:
    entries = schema()
    names = [e["name"] for e in entries]
    assert len(names) == len(set(names))
    used = {e[k] for e in entries for k in ("arg-type", "ret-type", "element-type") if k in e}
    used |= {m["type"] for e in entries if e["meta-type"] == "object" for m in e["members"]}
    assert used <= set(names)


def test_schema_shows_optional_members_and_enums() -> None:
    entries = {e["name"]: e for e in schema()}
    arguments = entries[entries["migrate-set-parameters"]["arg-type"]]
    (mode,) = [m for m in arguments["members"] if m["name"] == "mode"]
    assert mode["default"] is None
    assert entries[mode["type"]]["values"] == ["normal", "cpr-reboot", "cpr-transfer", "cpr-exec"]
    assert entries["STOP"]["meta-type"] == "event"


def test_session_that_skips_after_an_error_goes_on_in_the_same_place_in_another_program(context):
    session = QmpSession(context)
    (refused,) = ask(session, b'x {"execute":')
    assert "stray" in refused["error"]["desc"]
    session = QmpSession(context, state=session.save())
    (refused,) = ask(session, b"1 2 ]")
    again = QmpSession(context, state=session.save())
    assert ask(again, {"execute": "qmp_capabilities"}) == [{"return": {}}]
