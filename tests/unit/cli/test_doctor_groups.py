"""What control groups leave a process, from the kernel's files as hosts have them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.cli.doctor.facts import Cgroup
from instar.cli.doctor.groups import Place, limits, place
from instar.cli.doctor.reading import chosen

UNIFIED = "30 24 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
MIXED = "40 32 0:35 / /sys/fs/cgroup/unified rw shared:9 - cgroup2 cgroup2 rw\n"
INSIDE = "90 80 0:26 /docker/01 /sys/fs/cgroup ro - cgroup2 cgroup rw\n"
NONE = "24 1 8:1 / / rw - ext4 /dev/sda1 rw\n"


@pytest.mark.parametrize(
    ("mountinfo", "cgroup", "folder"),
    [
        (UNIFIED, "0::/user.slice/a.scope\n", "/sys/fs/cgroup/user.slice/a.scope"),
        (NONE + UNIFIED, "0::/\n", "/sys/fs/cgroup"),
        (MIXED, "4:memory:/x\n0::/y\n", "/sys/fs/cgroup/unified/y"),
        (INSIDE, "0::/docker/01/sub\n", "/sys/fs/cgroup/sub"),
        (INSIDE, "0::/elsewhere\n", "/sys/fs/cgroup"),
    ],
)
def test_place_of_a_group_is_below_the_mount(mountinfo, cgroup, folder):
    assert place(mountinfo, cgroup).folder == folder


@pytest.mark.parametrize(
    ("mountinfo", "cgroup"), [(NONE, "0::/\n"), (UNIFIED, "4:memory:/x\n"), ("", "")]
)
def test_place_without_version_2_is_none(mountinfo, cgroup):
    assert place(mountinfo, cgroup) is None
    assert limits(None, lambda _path: "") == Cgroup()


def test_limits_are_the_tightest_on_the_way_up():
    files = {
        "/c/a/b/memory.max": "max\n",
        "/c/a/b/memory.current": "5\n",
        "/c/a/b/pids.max": "100\n",
        "/c/a/b/pids.current": "30\n",
        "/c/a/memory.max": "1000\n",
        "/c/a/memory.current": "400\n",
        "/c/a/pids.max": "50\n",
        "/c/a/pids.current": "45\n",
        "/c/a/cpu.max": "150000 100000\n",
        "/c/cpu.max": "max 100000\n",
        "/memory.max": "1\n",
    }
    found = limits(Place("/c", "/c/a/b", "/a/b"), lambda path: files.get(path, ""))
    assert found == Cgroup(memory=600, processes=5, cpus=1.5, name="/a/b")


def test_limits_that_are_passed_already_leave_nothing():
    files = {"/c/memory.max": "10", "/c/memory.current": "30"}
    assert limits(Place("/c", "/c", "/"), lambda path: files.get(path, "")).memory == 0


@settings(max_examples=50)
@given(st.text(), st.text(), st.text())
def test_limits_of_any_text_are_numbers(mountinfo, cgroup, contents):
    found = limits(place(UNIFIED + mountinfo, f"0::/{cgroup}"), lambda _path: contents)
    assert min(found.memory, found.processes, found.cpus) >= -1


@pytest.mark.parametrize(
    ("line", "word"),
    [("always within_size advise [never] deny force\n", "never"), ("", ""), ("always", "")],
)
def test_chosen_is_the_word_in_brackets(line, word):
    assert chosen(line) == word
