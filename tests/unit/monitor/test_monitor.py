"""A monitor on its character device: greeting, limits, events, updates."""

from __future__ import annotations

import json

import pytest
from monitor_fakes import FakeChardev, FakeContext

from instar.chardev.mux import MuxChardev
from instar.monitor.monitor import DEAD_CLIENT, SLOW_CLIENT, Monitor
from instar.monitor.state import MonitorState

HELLO = b'{"execute": "qmp_capabilities"}'
BANNER = b"Instar 0.1.0 monitor - type 'help' for more information\r\n(instar) "


@pytest.fixture
def context():
    return FakeContext()


@pytest.fixture
def client():
    return FakeChardev()


def test_client_that_connects_later_is_greeted_then(context) -> None:
    client = FakeChardev(connected=False)
    Monitor("qmp", client, context)
    assert client.take() == b""
    client.connect()
    assert client.take().startswith(b'{"QMP"')


def test_next_client_starts_anew(context, client) -> None:
    Monitor("qmp", client, context)
    client.type(HELLO + b'{"execute": "qu')
    client.disconnect()
    client.take()
    client.connect()
    client.type(b'{"execute": "query-status"}')
    assert b"Expecting capabilities negotiation" in client.take()


def test_events_reach_negotiated_clients_only(context) -> None:
    told, untold, person = FakeChardev("a"), FakeChardev("b"), FakeChardev("c")
    monitors = [
        Monitor("qmp", told, context),
        Monitor("qmp", untold, context),
        Monitor("hmp", person, context),
    ]
    told.type(HELLO)
    for client in (told, untold, person):
        client.take()
    context.machine.stop()
    assert json.loads(told.take())["event"] == "STOP"
    assert (untold.take(), person.take()) == (b"", b"")
    monitors[0].close()
    context.machine.stop()
    assert told.take() == b""


def test_event_that_was_held_back_has_the_time_at_which_it_happened(
    context, client, monkeypatch
) -> None:
    monkeypatch.setattr("instar.events.time_ns", lambda: 7_000_005_000)
    Monitor("qmp", client, context)
    client.type(HELLO)
    client.take()
    context.machine.events.hold()
    context.machine.stop()
    monkeypatch.setattr("instar.events.time_ns", lambda: 9_000_000_000)
    context.machine.events.release()
    assert json.loads(client.take())["timestamp"] == {"seconds": 7, "microseconds": 5}


def test_event_of_a_command_comes_before_its_reply(context, client) -> None:
    Monitor("qmp", client, context)
    client.type(HELLO)
    client.take()
    client.type(b'{"execute": "stop"}')
    event, reply = client.take().splitlines()
    assert json.loads(event)["event"] == "STOP"
    assert json.loads(reply) == {"return": {}}


def test_client_that_does_not_read_is_not_read_either(context, client) -> None:
    Monitor("qmp", client, context)
    client.type(HELLO)
    client.take()
    client.stuck = True
    client.type(b'{"execute": "query-qmp-schema"}' * 20)
    stuck = client.pending()
    assert SLOW_CLIENT <= stuck < 2 * SLOW_CLIENT
    client.unstick()
    assert client.take().count(b'{"return": [') == 20


def test_client_that_never_reads_is_dropped_and_counted(context, client, capfd) -> None:
    monitor = Monitor("qmp", client, context)
    client.type(HELLO)
    client.stuck = True
    for _ in range(DEAD_CLIENT // 60):
        context.machine.stop()
    assert (client.disconnects, monitor.dropped) == (1, 1)
    assert "monitor/monitor0: client dropped" in capfd.readouterr().err


def test_requests_of_one_client_are_answered_in_several_turns(
    context, client, monkeypatch
) -> None:
    monkeypatch.setattr("instar.monitor.monitor._TURN_NS", -1)
    turns = []
    monkeypatch.setattr(context.loop, "call_soon", turns.append)
    Monitor("qmp", client, context)
    client.take()
    client.type(HELLO * 3)
    assert (client.take().count(b"\n"), len(turns)) == (1, 1)
    turns.pop()()
    assert (client.take().count(b"\n"), len(turns)) == (1, 1)


def test_rubbish_is_answered_counted_and_told_of_now_and_then(context, client, capfd) -> None:
    Monitor("qmp", client, context, "rude")
    client.take()
    client.type(b"}\n" * 100)
    assert client.take().count(b"JSON parse error") == 100
    said = capfd.readouterr().err
    assert "monitor/rude: client sent what is no request, 1 times so far" in said
    assert said.count("no request") < 20


def test_turn_of_a_monitor_that_was_closed_does_nothing(context, client, monkeypatch) -> None:
    monkeypatch.setattr("instar.monitor.monitor._TURN_NS", -1)
    turns = []
    monkeypatch.setattr(context.loop, "call_soon", turns.append)
    monitor = Monitor("qmp", client, context)
    client.type(HELLO * 3)
    monitor.close()
    client.take()
    turns.pop()()
    assert (client.take(), turns) == (b"", [])


def test_client_that_has_gone_with_many_requests_is_dropped(
    context, client, monkeypatch, capfd
) -> None:
    monkeypatch.setattr("instar.monitor.monitor._TURN_NS", -1)
    monitor = Monitor("qmp", client, context)
    client.broken = True
    client.type(HELLO * 3)
    assert (client.disconnects, monitor.dropped, monitor.save_state().input) == (1, 1, b"")
    assert "it has gone, leaving more requests than one turn answers" in capfd.readouterr().err


def test_saved_monitor_goes_on_without_a_greeting(context, client) -> None:
    before = Monitor("qmp", client, context, "m")
    client.type(HELLO + b'{"execute": "query-')
    state = before.save_state()
    before.close()
    client.take()
    after = Monitor("qmp", client, context, "m", state=state)
    client.type(b'name"}')
    assert client.take() == b'{"return": {"name": "demo"}}\r\n'
    assert after.state_id == before.state_id == "monitor/m"


def test_saved_monitor_answers_requests_that_were_waiting(context, client) -> None:
    state = MonitorState(
        kind="qmp", greeted=True, negotiated=True, input=b'{"execute": "query-name"}'
    )
    Monitor("qmp", client, context, state=state)
    assert client.take() == b'{"return": {"name": "demo"}}\r\n'


def test_state_of_the_other_kind_or_of_no_session_is_not_taken(context, client) -> None:
    Monitor("hmp", client, context, state=MonitorState(kind="qmp", greeted=True))
    assert client.take() == BANNER
    other = FakeChardev("other")
    Monitor("hmp", other, context, state=MonitorState())
    assert other.take() == BANNER


def test_prompt_that_waits_comes_back_by_timer_also_after_an_update(context, client) -> None:
    context.migration.state = {"status": "active"}
    before = Monitor("hmp", client, context)
    client.type(b"migrate file:x\rinfo name\r")
    assert client.take() == BANNER + b"migrate file:x\r\n"
    context.loop.run_later()
    assert client.take() == b""
    state = before.save_state()
    before.close()
    Monitor("hmp", client, context, state=state)
    context.loop.run_later()
    assert client.take() == b""
    context.migration.state = {"status": "completed"}
    context.loop.run_later()
    assert client.take() == b"(instar) info name\r\ndemo\r\n(instar) "
    assert context.loop.later == []


def test_long_paste_is_taken_piece_by_piece(context, client) -> None:
    Monitor("hmp", client, context)
    client.type(b"info name\r" * 100)
    assert client.take().count(b"demo\r\n") == 100


def test_monitor_in_a_mux_greets_when_somebody_looks(context) -> None:
    terminal = FakeChardev("term")
    mux = MuxChardev(terminal, context.loop)
    serial = mux.share("serial")
    seen = []
    serial.attach(receive=seen.append, can_receive=lambda: 9, event=lambda _: None)
    Monitor("hmp", mux.share("monitor"), context)
    terminal.type(b"a")
    assert (terminal.take(), seen) == (b"", [b"a"])
    terminal.type(b"\x01c")
    assert terminal.take() == BANNER
    terminal.type(b"sto\x01c\x01c")
    assert terminal.take() == b"sto\r\n(instar) sto"
    terminal.type(b"\x01x")
    assert context.machine.done == [("quit", "host-ui")]
