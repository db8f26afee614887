"""Groups of descriptors through real updates: also where the host allows hardly one more, and by the guardian."""

import os
import socket
import subprocess
import sys

import pytest
from test_cpr_exec import NEW, OLD, run

from instar.cpr.fds import Fds
from instar.cpr.guardian import GROUP, Guardian
from instar.cpr.guardian_link import GuardianLink

PAIRS = 150
SPARE = 24  # what the two programs and the guardian need besides
CHECK = """
def check(group):
    numbers = sorted(group)
    for one, other in zip(numbers[::2], numbers[1::2]):
        os.write(one, b"%d" % one)
        assert os.read(other, 16) == b"%d" % one
        assert not os.get_inheritable(one) and not os.get_inheritable(other)
    return len(numbers)
"""
FIRST = f"""
import socket
resource.setrlimit(resource.RLIMIT_NOFILE, ({2 * PAIRS + SPARE},) * 2)
for _ in range({PAIRS}):
    for end in socket.socketpair():
        engine.fds.group("pairs").add(end.detach())
"""
UPDATE = """
try:
    engine.update(NEXT, rehearse=REHEARSE)
except CprError as exc:
    say(refused=f"{exc}", members=check(engine.fds.group("pairs")))
"""


def old(*, rehearse=True, between=""):
    start, went_on = OLD.split("if engine.failed:", 1)
    told = "say(failed=engine.failed, members=check(engine.fds.group('pairs')))\n    sys.exit()"
    rest = went_on.split("sys.exit()", 1)[1]
    ready, group = "engine.ready()", "engine.fds.group('pairs')\n"
    head = (start + CHECK).replace(ready, group + ready)
    text = f"{head}\nif engine.failed:\n    {told}{rest}{FIRST}{between}{UPDATE}"
    return text.replace("REHEARSE", str(rehearse))


def new(between="group = engine.fds.group('pairs')"):
    said = "say(members=check(group), by=report.by, lost=report.lost)"
    return NEW.replace("report =", f"{between}\nreport =") + CHECK + said


def test_group_crosses_whole_where_hardly_a_descriptor_is_left(tmp_path):
    said, errors = run(tmp_path, old(), new())
    assert errors == []
    assert said == [{"members": 2 * PAIRS, "by": "exec", "lost": []}]


def test_group_goes_back_to_the_old_program(tmp_path):
    said, _ = run(tmp_path, old(rehearse=False), new("raise ValueError('boom')"))
    assert said == [{"failed": "version new: ValueError: boom", "members": 2 * PAIRS}]


def test_group_goes_to_the_guardian_under_the_same_numbers(tmp_path):
    said, _ = run(tmp_path, old(rehearse=False), new("os.kill(os.getpid(), 9)"))
    assert said == [{"failed": "the new program ended before it went on", "members": 2 * PAIRS}]


def test_group_with_a_member_that_was_closed_refuses_the_update(tmp_path):
    between = "os.close(min(engine.fds.group('pairs')))\nCHECK = 0\ncheck = len\n"
    said, errors = run(tmp_path, old(between=between), new())
    assert errors == []
    assert "of pairs is not open; nothing changed" in said[0]["refused"]


def test_group_that_nobody_asks_for_refuses_the_update(tmp_path):
    said, errors = run(tmp_path, old(), new("group = []"))
    assert errors == []
    assert "descriptor pairs (300 of them) would be lost" in said[0]["refused"]


@pytest.mark.parametrize("seed", range(5))
def test_place_gives_every_file_its_number_whatever_was_there(seed):
    text = f"""
import os, random, resource, sys
from instar.cpr.guardian import place
made = [os.memfd_create(str(n), os.MFD_CLOEXEC) for n in range(60)]
wanted = made[:] + list(range(made[-1] + 1, made[-1] + 20))
random.Random({seed}).shuffle(wanted)
fds = dict(zip(wanted, made))
os.set_inheritable(made[0], True)
resource.setrlimit(resource.RLIMIT_NOFILE, (max(wanted) + 2,) * 2)
place(fds)
for number, fd in fds.items():
    assert os.readlink(f"/proc/self/fd/{{number}}") == f"/memfd:{{fd - made[0]}} (deleted)"
    assert os.get_inheritable(number)
there = [path for n in range(200) if os.path.lexists(path := f"/proc/self/fd/{{n}}")]
assert sum("memfd" in os.readlink(path) for path in there) == 60
"""
    subprocess.run([sys.executable, "-c", text], check=True, timeout=60)


def test_arm_sends_only_what_came_or_went_since():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    fds, pairs = Fds(), [socket.socketpair() for _ in range(GROUP)]
    group = fds.group("clients")
    for one, _ in pairs:
        group.add(one.fileno())
    guardian, link = Guardian(theirs, os.getpid()), GuardianLink(0, ours)
    link.give(fds.members())
    gone, again = (pairs[n][0].fileno() for n in (0, 1))
    group.discard(gone)
    group.discard(again)
    group.add(again)
    late = socket.socketpair()
    group.add(late[0].fileno())
    order = {"lease": pairs[2][0].fileno(), "limit-ms": 1}
    link.arm(fds.numbers(), order, fds.members())
    with pytest.raises(OSError, match="No such device"):  # no lease: that word is the last one
        any(guardian._listen() for _ in range(SPARE))
    assert sorted(guardian.fds) == sorted(group)
    assert [os.path.sameopenfile(guardian.fds[n], n) for n in group] == [True] * GROUP
    for sock in (ours, theirs, *(end for pair in (*pairs, late) for end in pair)):
        sock.close()
    for number in (*guardian.fds.values(), guardian.process):
        os.close(number)
