"""Groups of descriptors: what one takes, what crosses, and what is refused."""

import os
import socket
import sys

import pytest

from instar.cpr.encoding import decode, encode
from instar.cpr.errors import DescriptorError, PeerError
from instar.cpr.fds import Fds, set_cloexec

SIZE = 200  # more than what is done one by one


@pytest.fixture
def sockets():
    made = [end for _ in range(SIZE // 2) for end in socket.socketpair()]
    yield made
    for end in made:
        end.close()


@pytest.fixture(params=["compiled", "python"])
def way(request, monkeypatch):
    """How it is done; without the compiled part it is done in Python."""
    hide = {"compiled": {}, "python": {"instar.cpr._descriptors": None}}[request.param]
    for name, module in hide.items():
        monkeypatch.setitem(sys.modules, name, module)


def table_of(sockets):
    fds = Fds()
    group = fds.group("clients", kind="socket", owner="me")
    for end in sockets:
        group.add(end.fileno())
    return fds, group


def cross(fds):
    return Fds.from_record(decode(encode(fds.to_record()), "table"))


@pytest.mark.usefixtures("way")
def test_group_that_crosses_has_the_same_members_in_order(sockets):
    fds, group = table_of(sockets)
    fds.verify_members()
    arrived = cross(fds)
    assert [item.label for item in arrived.unclaimed()] == ["clients"]
    found = arrived.group("clients")
    assert (list(found), found.kind, found.owner) == (list(group), "socket", "me")
    assert arrived.unclaimed() == []
    assert arrived.numbers() == fds.numbers()


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("on", [False, True])
def test_set_cloexec_of_many_is_set_on_each(sockets, on):
    set_cloexec([end.fileno() for end in sockets], on=on)
    assert {os.get_inheritable(end.fileno()) for end in sockets} == {not on}


@pytest.mark.usefixtures("way")
def test_set_cloexec_with_a_closed_one_tells_and_sets_the_others(sockets):
    numbers = [end.fileno() for end in sockets]
    sockets[0].close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        set_cloexec(numbers, on=False)
    assert all(os.get_inheritable(number) for number in numbers[1:])


@pytest.mark.usefixtures("way")
def test_verify_of_a_closed_member_names_it(sockets):
    fds, _ = table_of(sockets)
    number = sockets[7].fileno()
    sockets[7].close()
    with pytest.raises(
        DescriptorError, match=f"^descriptor {number} of clients is not open; noth"
    ):
        fds.verify_members()


@pytest.mark.usefixtures("way")
def test_from_record_with_members_that_are_other_files_by_now_refuses(sockets):
    fds, _ = table_of(sockets)
    record = fds.to_record()
    for end in sockets[3:5]:
        os.dup2(sockets[0].fileno(), end.fileno())
    number = sockets[3].fileno()
    with pytest.raises(
        DescriptorError, match=f"^descriptor {number} of clients is not what was saved, and 1 more"
    ):
        Fds.from_record(record)


def test_add_and_discard_keep_one_name_for_a_descriptor(sockets):
    fds, group = table_of(sockets[:2])
    number = sockets[0].fileno()
    with pytest.raises(DescriptorError, match=f"descriptor {number} is already kept as clients"):
        fds.group("others").add(number)
    with pytest.raises(DescriptorError, match="is already kept as clients"):
        fds.save("single", 0, number)
    assert group.discard(number)
    assert not group.discard(number)
    fds.save("single", 0, number)
    with pytest.raises(DescriptorError, match="is already kept as single"):
        group.add(number)
    assert (len(group), number in group) == (1, False)


def test_add_of_a_closed_descriptor_is_refused(sockets):
    number = sockets[0].fileno()
    sockets[0].close()
    with pytest.raises(DescriptorError, match=f"descriptor {number} is not open"):
        Fds().group("clients").add(number)


def test_add_of_an_anonymous_file_is_refused():
    number = os.eventfd(0)
    with pytest.raises(DescriptorError, match="an anonymous file of the kernel's"):
        Fds().group("clients").add(number)
    os.close(number)


@pytest.mark.parametrize("name", ["", "a\n", "x" * 256])
def test_group_of_a_bad_name_is_refused(name):
    with pytest.raises(DescriptorError, match="not 1 to 255 printable bytes"):
        Fds().group(name)


def test_copy_is_independent_and_knows_what_was_added_again(sockets):
    fds, group = table_of(sockets[:3])
    first, second, third = (end.fileno() for end in sockets[:3])
    copied = fds.copy()
    group.discard(first)
    group.discard(second)
    group.add(second)
    before, after = copied.members(), fds.members()
    assert (list(before), list(after)) == ([first, second, third], [third, second])
    assert after[third] is before[third]
    assert after[second] is not before[second]


def test_close_unclaimed_closes_a_group(sockets):
    fds, _ = table_of(sockets)
    arrived = cross(fds)
    assert arrived.close_unclaimed() == ["clients"]
    assert arrived.numbers() == []
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(sockets[0].detach())
    for end in sockets[1:]:
        end.detach()


def damaged(**news):
    def make(row):
        return {**row, **{name: change(row[name]) for name, change in news.items()}}

    return make


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (damaged(numbers=lambda raw: raw[:-1]), "bytes of numbers"),
        (damaged(identities=lambda raw: raw[:-32]), "of identities"),
        (damaged(numbers=lambda raw: b"\xff\xff\xff\xff" + raw[4:]), "-1 is not a descriptor"),
        (damaged(numbers=lambda raw: raw[:4] + raw[:-4]), "arrived twice"),
        (damaged(numbers=len), "bad numbers"),
        (damaged(name=lambda _: 5), "bad name"),
    ],
)
def test_from_record_of_a_damaged_group_refuses(sockets, damage, why):
    fds, _ = table_of(sockets[:4])
    (row,) = fds.to_record()
    with pytest.raises(PeerError, match=why):
        Fds.from_record([damage(row)])


def test_from_record_with_a_group_twice_refuses(sockets):
    one, other = (table_of(part)[0].to_record()[0] for part in (sockets[:2], sockets[2:4]))
    with pytest.raises(PeerError, match="descriptors clients arrived twice"):
        Fds.from_record([one, other])


def test_from_record_with_a_member_that_has_a_name_refuses(sockets):
    fds, _ = table_of(sockets[:2])
    (row,) = fds.to_record()
    single = Fds()
    single.save("single", 0, sockets[0].fileno())
    with pytest.raises(PeerError, match="has one of them twice"):
        Fds.from_record([*single.to_record(), row])
