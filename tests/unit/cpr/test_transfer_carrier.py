"""Descriptors and news over a socket: what arrives is what was sent, or nothing is taken."""

import fcntl
import os
import socket
from struct import Struct
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.cpr.adopted import LEASE
from instar.cpr.encoding import encode
from instar.cpr.errors import CprError, PeerError, TakenOverError
from instar.cpr.fds import Fds
from instar.cpr.lease import WORK, Lease
from instar.cpr.transfer import (
    FORMAT,
    GROUP,
    MAGIC,
    MAX_REASON,
    Receiver,
    Sender,
    TransferCarrier,
    reason_in,
    receive_table,
    told,
)

HEADER = Struct("<8sIIII")


@pytest.fixture
def line():
    before = set(os.listdir("/proc/self/fd"))
    one, two = socket.socketpair()
    two.settimeout(5)
    yield one, two
    one.close()
    two.close()
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def lease():
    made = Lease.create()
    made.lock(WORK)
    yield made
    os.close(made.fd)


def message(record: object, **changed) -> bytes:
    data = encode(record)
    fields = {
        "magic": MAGIC,
        "format": FORMAT,
        "length": len(data),
        "crc": crc32(data),
        "count": 0,
    }
    return HEADER.pack(*(fields | changed).values()) + data


def table_of(lease: Lease, *fds: int) -> Fds:
    made = Fds()
    made.save(LEASE, 0, lease.fd, kind="memfd", owner="cpr")
    for n, fd in enumerate(fds):
        made.save("null", n, fd)
    return made


def handed(line, lease: Lease, *fds: int, **info):
    """Send a table and receive it."""
    carrier = TransferCarrier(line[0])
    carrier.save(table_of(lease, *fds), info)
    assert carrier.send()
    return receive_table(line[1])


def close_all(fds: Fds) -> None:
    for entry in list(fds.walk()):
        os.close(entry.fd)


@settings(max_examples=40)
@given(
    st.dictionaries(st.text(max_size=8), st.binary(max_size=300), max_size=8), st.integers(1, 200)
)
def test_message_cut_anywhere_arrives_whole(record, piece) -> None:
    one, two = socket.socketpair()
    with one, two:
        two.settimeout(0)
        receiver, data, got = Receiver(two), message(record), None
        for at in range(0, len(data), piece):
            assert got is None
            one.sendall(data[at : at + piece])
            got = receiver.receive()
        assert got == record


@pytest.mark.parametrize("count", [0, 1, GROUP, GROUP + 1])
def test_descriptors_arrive_under_their_names(line, lease, count) -> None:
    nulls = [os.open("/dev/null", os.O_RDONLY) for _ in range(count)]
    found = handed(line, lease, *nulls, word="news")
    assert [entry.name for entry in found.fds.walk()] == [LEASE] + ["null"] * count
    assert found.info == {"word": "news", "count": 0}
    assert not any(os.get_inheritable(entry.fd) for entry in found.fds.walk())
    close_all(found.fds)
    for fd in nulls:
        os.close(fd)


BAD = {
    "magic": (message({}, magic=b"X" * 8), "none of ours"),
    "format": (message({}, format=FORMAT + 1), "none of ours"),
    "length": (message({}, length=1 << 31), "limits"),
    "count": (message({}, count=1 << 20), "limits"),
    "checksum": (message({}, crc=1), "damaged"),
    "no record": (message([1]), "is not a record"),
    "no keys": (message({"fds": []}), "expected the keys"),
    "fds no list": (message({"fds": 1, "info": {}}), "expected the keys"),
    "info no record": (message({"fds": [], "info": 1}), "expected the keys"),
    "a name too many": (message({"fds": [{}], "info": {}}), "1 names for 0 descriptors"),
    "no lease": (message({"fds": [], "info": {"count": 0}}), "no lease"),
    "half": (message({"fds": [], "info": {}})[:-1], "hung up"),
    "nothing": (b"", "hung up"),
}


@pytest.mark.parametrize("what", BAD)
def test_hostile_message_is_refused(line, what) -> None:
    data, text = BAD[what]
    line[0].sendall(data)
    line[0].shutdown(socket.SHUT_WR)
    with pytest.raises(PeerError, match=text):
        receive_table(line[1])


@settings(max_examples=60)
@given(st.data())
def test_message_with_a_flipped_bit_is_refused_and_nothing_stays_open(data) -> None:
    before = set(os.listdir("/proc/self/fd"))
    whole = bytearray(message({"fds": [], "info": {"count": 0}}))
    at = data.draw(st.integers(0, len(whole) * 8 - 1))
    whole[at // 8] ^= 1 << at % 8
    one, two = socket.socketpair()
    with one, two:
        two.settimeout(0.001)
        one.sendall(whole)
        one.shutdown(socket.SHUT_WR)
        with pytest.raises(CprError):
            receive_table(two)
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(("told_count", "sent"), [(1, 3), (2, 1), (2, 0)])
def test_other_descriptors_than_told_are_closed_again(line, told_count, sent) -> None:
    null = os.open("/dev/null", os.O_RDONLY)
    line[0].sendall(message({}, count=told_count))
    socket.send_fds(line[0], [b" "], [null] * sent)
    line[0].shutdown(socket.SHUT_WR)
    os.close(null)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(PeerError, match=r"not as agreed|hung up"):
        receive_table(line[1])
    assert len(os.listdir("/proc/self/fd")) == before


def test_message_that_has_not_come_is_none_yet(line) -> None:
    line[1].settimeout(0)
    assert Receiver(line[1]).receive() is None


def test_sender_that_cannot_go_on_says_so_and_one_without_peer_raises(line) -> None:
    line[0].settimeout(0)
    sender = Sender(line[0], {"data": b"x" * (1 << 20)})
    assert not sender.send()
    line[1].close()
    with pytest.raises(PeerError, match="is gone"):
        sender.send()


def test_target_commits_only_what_the_source_gave_up_and_only_once(line, lease) -> None:
    found = handed(line, lease)
    with pytest.raises(TakenOverError, match="did not give the guest up"):
        found.commit()
    assert (lease.count, found.committed) == (0, False)
    lease.unlock(WORK)
    found.commit()
    assert (lease.count, found.committed) == (1, True)
    assert not lease.lock(WORK)
    close_all(found.fds)


def test_target_whose_offer_was_taken_back_never_commits(line, lease) -> None:
    found = handed(line, lease)
    lease.commit(0)  # what a source does that goes on
    lease.unlock(WORK)
    with pytest.raises(TakenOverError, match="too slow"):
        found.commit()
    assert lease.count == 1
    close_all(found.fds)


def test_lease_that_is_handed_over_is_a_contender(line, lease) -> None:
    found = handed(line, lease)
    theirs = Lease(found.fds.find(LEASE, 0))
    assert not theirs.lock(WORK)
    assert lease.lock(WORK)
    close_all(found.fds)


def test_dropped_carrier_leaves_nothing_open(line, lease) -> None:
    before = len(os.listdir("/proc/self/fd"))
    carrier = TransferCarrier(line[0])
    carrier.save(table_of(lease), {})
    carrier.drop()
    carrier.drop()
    assert len(os.listdir("/proc/self/fd")) == before


def test_reasons_are_short_and_texts() -> None:
    assert reason_in({}) == ""
    assert reason_in({"error": "no"}) == "no"
    assert len(reason_in({"error": "x" * 9999})) == MAX_REASON
    assert "does not say why" in reason_in({"error": 7})
    assert told(PeerError("a sentence")) == {"error": "a sentence"}
    assert told(SystemExit()) == {"error": "SystemExit()"}


def test_descriptor_that_is_closed_meanwhile_is_told(line, lease) -> None:
    null = fcntl.fcntl(lease.fd, fcntl.F_DUPFD_CLOEXEC, 200)
    table = table_of(lease, null)
    os.close(null)
    carrier = TransferCarrier(line[0])
    with pytest.raises(CprError, match="null"):
        carrier.save(table, {})
    carrier.drop()
