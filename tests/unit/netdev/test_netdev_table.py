"""Back ends without a host: frames on a stream, batches, and what is kept across an update."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.cpr import state as states
from instar.cpr.errors import StateInvalidError
from instar.cpr.fds import Fds
from instar.errors import CommandError, ConfigError, HostError
from instar.netdev import Netdevs, NetSpec
from instar.netdev.base import BATCH, LENGTH, MAX_FRAME, NetBackend
from instar.netdev.state import NetdevsState, NetdevState, QueueState, RemovedState
from instar.netdev.tap import TapNet, without_header


class Loop:
    def watch(self, fd, *, readable=None, writable=None) -> None:
        raise AssertionError("nothing is open")


class Quiet:
    def watch(self, fd, *, readable=None, writable=None) -> None:
        pass

    def unwatch(self, fd) -> None:
        pass


class Card:
    """Takes as many frames as the test allows."""

    vnet_hdr = False
    queues = 1

    def __init__(self, limit: int = 1 << 30) -> None:
        self.limit = limit
        self.frames: list[bytes] = []
        self.backends = []

    def connect(self, backend) -> None:
        self.backends.append(backend)

    def room(self) -> int:
        return self.limit - len(self.frames)

    def deliver(self, frames) -> int:
        taken = frames[: self.room()]
        self.frames += taken
        return len(taken)

    def drained(self) -> None:
        self.limit += 1


class Nowhere(NetBackend):
    """A back end without a host."""

    kind = "stream"

    def open(self, _fds) -> None:
        self.connected = False

    def send(self, _header, _frame) -> bool:
        return True


def backend(ident: str = "n0") -> Nowhere:
    return Nowhere(NetSpec("stream", ident, {}), Loop(), lambda _name, _data: None)


def framed(frames: list[bytes]) -> bytes:
    return b"".join(LENGTH.pack(len(frame)) + frame for frame in frames)


@settings(max_examples=50)
@given(st.lists(st.binary(max_size=40), max_size=200), st.data())
def test_stream_cut_anywhere_gives_the_same_frames_across_an_update(frames, data) -> None:
    whole = framed(frames)
    cut = data.draw(st.integers(0, len(whole)))
    limit = data.draw(st.integers(0, len(frames)))
    old, card = backend(), Card(limit)
    old.attach(card)
    old.load_state(NetdevState(id="n0", kind="stream", received=whole[:cut]))
    old.accept_input()
    crossed = states.load(NetdevState, 2, states.save(old.save_state()))
    new, rest = backend(), Card()
    crossed.received += whole[cut:]
    new.load_state(crossed)
    new.attach(rest)
    assert card.frames + rest.frames == frames
    assert len(card.frames) <= limit


def test_frame_that_is_too_long_ends_the_connection_and_is_forgotten() -> None:
    one, card = backend(), Card()
    one.attach(card)
    one.load_state(NetdevState(received=LENGTH.pack(MAX_FRAME + 1) + b"x" * 100))
    one.accept_input()
    assert card.frames == []
    assert one.save_state().received == b""


def test_guest_that_takes_nothing_leaves_all_frames_in_order() -> None:
    frames = [bytes((n,)) * 60 for n in range(3 * BATCH)]
    one, card = backend(), Card(limit=BATCH + 1)
    one.load_state(NetdevState(received=framed(frames)))
    one.attach(card)
    assert card.frames == frames[: BATCH + 1]
    card.limit = 1 << 30
    one.accept_input()
    assert card.frames == frames


@pytest.fixture
def kinds(monkeypatch):
    monkeypatch.setattr(
        "instar.netdev.table.KINDS", {"stream": lambda: Nowhere, "tap": lambda: Nowhere}
    )


def table(*listed: str) -> Netdevs:
    made = Netdevs(Loop(), Fds(), lambda _name, _data: None)
    for ident in listed:
        made.plan(NetSpec("stream", ident, {"addr.type": "unix"}))
    return made


def names(one: Netdevs) -> list[str]:
    return [each.id for each in one]


def resumed(old: Netdevs, *listed: str) -> Netdevs:
    new = table(*listed)
    new.load_state(states.load(NetdevsState, 1, states.save(old.save_state())))
    new.open()
    return new


@pytest.mark.usefixtures("kinds")
def test_added_and_removed_back_ends_stay_so_through_updates() -> None:
    one = table("a", "b")
    one.open()
    one.remove("a")
    one.add(NetSpec("stream", "c", {"addr.type": "inet"}))
    two = resumed(one, "a", "b")
    assert sorted(names(two)) == ["b", "c"]
    assert two.get("c").spec.options == {"addr.type": "inet"}
    two.add(NetSpec("stream", "a", {"addr.type": "fd"}))
    two.remove("c")
    three = resumed(two, "a", "b")
    assert sorted(names(three)) == ["a", "b"]
    assert three.get("a").spec.options == {"addr.type": "fd"}


@pytest.mark.usefixtures("kinds")
def test_back_end_is_told_whether_the_program_before_had_it() -> None:
    one = table("a")
    one.open(patience_s=2.5)
    assert (one.get("a").resumed, one.get("a").patience_s) == (False, 2.5)
    two = resumed(one, "a", "b")
    assert [each.resumed for each in two] == [True, False]


@pytest.mark.usefixtures("kinds")
def test_card_has_its_back_end_whenever_there_is_one() -> None:
    one, card = table("a"), Card()
    one.use("a", card)
    one.open()
    one.remove("a")
    one.add(NetSpec("stream", "a", {}))
    assert card.backends == [card.backends[0], None, one.get("a")]


@pytest.mark.usefixtures("kinds")
def test_add_of_what_cannot_be_says_why_and_changes_nothing() -> None:
    one = table("a")
    one.use("b", Card())
    one.open()
    with pytest.raises(CommandError, match="Duplicate ID 'a' for netdev"):
        one.add(NetSpec("stream", "a", {}))
    with pytest.raises(CommandError, match="without vnet_hdr; nothing was added"):
        one.add(NetSpec("tap", "b", {}))
    with pytest.raises(ConfigError, match="unknown kind hubport"):
        one.add(NetSpec("hubport", "c", {}))
    with pytest.raises(CommandError, match="Device 'c' not found"):
        one.remove("c")
    assert names(one) == ["a"]


@pytest.mark.usefixtures("kinds")
def test_back_end_with_fewer_queues_than_its_card_is_not_added() -> None:
    one, card = table(), Card()
    card.queues = 2
    one.use("a", card)
    with pytest.raises(
        CommandError, match="its card has 2 pairs of queues, not 1; nothing was added"
    ):
        one.add(NetSpec("stream", "a", {"addr.type": "unix"}))
    assert names(one) == []


@pytest.mark.parametrize(
    ("options", "queues"),
    [({}, 1), ({"fd": "7"}, 1), ({"queues": "3"}, 3), ({"fds": "7:8:9:10"}, 4)],
)
def test_queues_of_a_tap_are_what_the_user_said(options, queues) -> None:
    assert NetSpec("tap", "n0", options).queues == queues


def test_frames_of_each_queue_of_a_tap_cross_an_update() -> None:
    old, new = (TapNet(NetSpec("tap", "n0", {"queues": "2"}), Quiet(), print) for _ in range(2))
    frames = [[b"a" * 60, b"b" * 70], [b"c" * 80]]
    first = NetdevState(received=framed(frames[0]), more=[QueueState(received=framed(frames[1]))])
    old.load_state(first)
    new.load_state(states.load(NetdevState, 2, states.save(old.save_state())))
    cards = [Card(), Card()]
    for index, card in enumerate(cards):
        new.queue(index).attach(card)
    assert [card.frames for card in cards] == frames
    assert new.queue(2) is None


@pytest.mark.parametrize("cut", [0, 5, 12, 20])
def test_frame_without_a_header_is_cut_wherever_the_header_ends(cut) -> None:
    data = bytes(range(40))
    parts = [memoryview(data[:cut]), memoryview(data[cut:])]
    assert b"".join(without_header(parts)) == data[12:]


@pytest.mark.parametrize(
    "options", [{"ifname": "it0"}, {"fd": "77"}, {"fds": "77:78", "queues": "2"}]
)
def test_tap_whose_interface_was_deleted_is_not_made_again_by_an_update(options) -> None:
    tap = TapNet(NetSpec("tap", "n0", options), Loop(), lambda _name, _data: None)
    tap.resumed = True
    fds = Fds()
    tap.open(fds)
    assert tap.info == f"ifname={options.get('ifname', '')}" + (
        ",queues=2,deleted" if "queues" in options else ",deleted"
    )
    assert tap.send(bytes(12), b"frame")
    tap.save_fds(fds)
    assert list(fds.walk("netdev")) == []


@pytest.mark.parametrize("options", [{"fd": "mine"}, {"fds": "mine:mine", "queues": "2"}])
def test_descriptor_that_is_no_tap_keeps_the_name_that_the_client_gave_it(options) -> None:
    fds = Fds()
    read, write = os.pipe()
    fds.save("getfd/mine", 0, read)
    table = Netdevs(Loop(), fds, lambda _name, _data: None)
    with pytest.raises(HostError, match="no usable tap"):
        table.add(NetSpec("tap", "n0", options))
    assert fds.find("getfd/mine", 0) == read
    assert list(table) == []
    os.close(read)
    os.close(write)


def test_specs_name_what_is_there_and_what_a_card_waits_for() -> None:
    table = Netdevs(Quiet(), Fds(), lambda _name, _data: None)
    card = Card()
    card.vnet_hdr, card.queues = True, 2
    table.plan(NetSpec("none", "n0", {}))
    table.use("n0", card)
    table.open()
    assert list(table) == []
    (spec,) = table.specs()
    assert (spec.kind, spec.id) == ("none", "n0")
    assert (spec.vnet_hdr, spec.queues) == (True, 2)
    table.plan(spec)
    assert (table.has_header("n0"), table.queues("n0")) == (True, 2)


def test_removed_names_that_a_command_line_lacks_are_kept_until_the_next_removal() -> None:
    table = Netdevs(Quiet(), Fds(), lambda _name, _data: None)
    table.plan(NetSpec("none", "n0", {}))
    given = NetdevsState(removed=[RemovedState(id="n0"), RemovedState(id="n1")])
    table.load_state(given)
    table.open()
    assert [one.id for one in table.save_state().removed] == ["n0", "n1"]
    table._listed |= {"n2"}
    table._backends["n2"] = Nowhere(NetSpec("stream", "n2", {}), Quiet(), None)
    table.remove("n2")
    assert [one.id for one in table.save_state().removed] == ["n0", "n2"]


@pytest.mark.usefixtures("kinds")
def test_back_ends_that_are_open_already_take_over_what_waited_in_the_others() -> None:
    one, two = table("a"), table("a")
    one.open()
    two.open()
    frames = [b"first", b"second"]
    one.get("a").load_state(NetdevState(id="a", kind="stream", received=framed(frames)))
    state = states.load(NetdevsState, 1, states.save(one.save_state()))
    two.check_against(state)
    two.load_state(state)
    card = Card()
    two.get("a").attach(card)
    assert card.frames == frames


@pytest.mark.parametrize(("theirs", "mine"), [(("a", "b"), ("a",)), (("a",), ("a", "b"))])
@pytest.mark.usefixtures("kinds")
def test_back_ends_that_one_program_alone_has_are_refused(theirs, mine) -> None:
    one, two = table(*theirs), table(*mine)
    one.open()
    two.open()
    with pytest.raises(StateInvalidError, match="netdevs: b: only one"):
        two.check_against(one.save_state())


def test_back_end_that_is_given_up_has_no_descriptor_left() -> None:
    fds = Fds()
    one = Netdevs(Quiet(), fds, lambda _name, _data: None)
    read, write = os.pipe()
    os.close(write)
    fds.save("netdev/a", 0, read, kind="netdev", owner="netdev")
    backend = TapNet(NetSpec("tap", "a", {}), Quiet(), lambda _name, _data: None)
    backend._fd = read
    one._backends["a"] = backend
    one.give_up()
    assert fds.find("netdev/a", 0) == -1
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(read)
