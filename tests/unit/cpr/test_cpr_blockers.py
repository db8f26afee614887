"""Blockers and notifiers, by mode."""

import pytest

from instar.cpr.blockers import Blockers
from instar.cpr.errors import BlockedError
from instar.cpr.notifiers import Notifiers

MODES = ("normal", "cpr-exec", "cpr-transfer")


def test_check_mode_that_is_blocked_gives_all_reasons():
    blockers = Blockers(MODES)
    blockers.add("first reason", "cpr-exec", "cpr-transfer")
    blockers.add("second reason")
    with pytest.raises(BlockedError, match=r"^first reason$") as caught:
        blockers.check("cpr-exec")
    assert caught.value.reasons == ["first reason", "second reason"]
    assert blockers.reasons("normal") == ["second reason"]


def test_remove_blocker_lets_its_modes_go_and_again_is_fine():
    blockers = Blockers(MODES)
    same = [blockers.add("same reason", "normal") for _ in range(2)]
    blockers.remove(same[0])
    blockers.remove(same[0])
    assert blockers.reasons("normal") == ["same reason"]
    blockers.remove(same[1])
    blockers.check("normal")


def test_name_unknown_mode_is_a_type_error():
    with pytest.raises(TypeError, match="no such mode: nope"):
        Blockers(MODES).add("x", "nope")
    with pytest.raises(TypeError, match="no such mode: nope"):
        Blockers(MODES).reasons("nope")
    with pytest.raises(TypeError, match="no such mode: nope"):
        Notifiers(MODES, print).setup("nope")


class Listener:
    def __init__(self, name, heard, *, fails=()):
        self.name, self.heard, self.fails = name, heard, fails

    def __call__(self, event, mode):
        self.heard.append((self.name, event))
        if event in self.fails:
            raise ValueError(f"{self.name} objects")


@pytest.fixture
def heard():
    return []


def test_notify_tells_the_listeners_of_the_mode_in_order(heard):
    notifiers = Notifiers(MODES, print)
    notifiers.add(Listener("a", heard), "cpr-exec", "normal")
    notifiers.add(Listener("b", heard), "normal")
    notifiers.add(Listener("c", heard))
    notifiers.setup("cpr-exec")
    notifiers.done("cpr-exec")
    assert heard == [("a", "setup"), ("c", "setup"), ("a", "done"), ("c", "done")]


def test_veto_in_setup_passes_through_and_failed_goes_to_those_who_heard(heard):
    notifiers = Notifiers(MODES, print)
    notifiers.add(Listener("a", heard))
    notifiers.add(Listener("b", heard, fails={"setup"}))
    notifiers.add(Listener("c", heard))
    with pytest.raises(ValueError, match="b objects"):
        notifiers.setup("normal")
    assert notifiers.failed("normal") == []
    assert heard == [("a", "setup"), ("b", "setup"), ("b", "failed"), ("a", "failed")]


def test_failing_listener_of_done_is_logged_and_returned(heard):
    logged = []
    notifiers = Notifiers(MODES, logged.append)
    notifiers.add(Listener("a", heard, fails={"done", "failed"}))
    notifiers.add(Listener("b", heard))
    notifiers.setup("normal")
    (failure,) = notifiers.done("normal")
    assert str(failure) == "a objects"
    assert heard[-1] == ("b", "done")
    assert logged == ["a listener failed on done of normal: ValueError: a objects"]


def test_failed_twice_tells_nobody_the_second_time(heard):
    notifiers = Notifiers(MODES, print)
    notifiers.add(Listener("a", heard))
    notifiers.setup("normal")
    notifiers.failed("normal")
    notifiers.failed("normal")
    assert heard == [("a", "setup"), ("a", "failed")]


def test_failed_after_done_reaches_those_who_heard_done(heard):
    notifiers = Notifiers(MODES, print)
    notifiers.add(Listener("a", heard))
    notifiers.setup("normal")
    notifiers.done("normal")
    notifiers.failed("normal")
    assert heard == [("a", "setup"), ("a", "done"), ("a", "failed")]


def test_removed_listener_hears_nothing_more(heard):
    notifiers = Notifiers(MODES, print)
    entry = notifiers.add(Listener("a", heard))
    notifiers.setup("normal")
    notifiers.remove(entry)
    notifiers.remove(entry)
    notifiers.done("normal")
    notifiers.setup("normal")
    assert heard == [("a", "setup")]


def test_source_is_asked_each_time_for_its_modes():
    blockers = Blockers(MODES)
    connections: list[str] = []
    blockers.ask(lambda: connections, MODES[0])
    blockers.add("always")
    assert blockers.reasons(MODES[0]) == ["always"]
    connections.append("somebody is connected")
    assert blockers.reasons(MODES[0]) == ["always", "somebody is connected"]
    assert blockers.reasons(MODES[1]) == ["always"]
