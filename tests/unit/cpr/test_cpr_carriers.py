"""The exec carrier without an exec that succeeds: what it writes, what it undoes, what it adopts."""

import errno
import fcntl
import os
import sys
from struct import pack
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.cpr import adopted
from instar.cpr.adopted import SCRIPT, VARIABLE, adopt
from instar.cpr.carriers import ExecCarrier
from instar.cpr.encoding import encode
from instar.cpr.errors import CprError, DescriptorError, ExecFailedError, PeerError
from instar.cpr.fds import Fds

SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class FakeTarget:
    def __init__(self, fd, *, script=False):
        self.program, self.path = "program", "/bin/program"
        self.fd, self.script = fd, script


@pytest.fixture
def opened():
    before = set(os.listdir("/proc/self/fd"))
    fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(3)]
    yield fds
    for fd in fds:
        os.close(fd)
    assert set(os.listdir("/proc/self/fd")) == before


def execve_noting(seen, exc):
    def execve(fd, argv, environ):
        inheritable = {int(n) for n in os.listdir("/proc/self/fd") if is_inheritable(int(n))}
        seen.append((fd, argv, environ, inheritable))
        raise exc

    return execve


def is_inheritable(fd):
    try:
        return os.get_inheritable(fd)
    except OSError:  # the descriptor of the listing itself
        return False


def table(*fds):
    made = Fds()
    for n, fd in enumerate(fds):
        made.save("null", n, fd)
    return made


def crossed(monkeypatch, target, fds, info):
    """Save, 'execute' and return the environment that the new program would see."""
    environs = []

    def execve(_fd, _argv, environ):
        number = fcntl.fcntl(int(environ[VARIABLE]), fcntl.F_DUPFD_CLOEXEC, 3)
        environs.append({**environ, VARIABLE: str(number)})
        raise OSError(errno.ENOEXEC, "Exec format error")

    monkeypatch.setattr(os, "execve", execve)
    carrier = ExecCarrier(target, ["program", "-x"])
    carrier.save(fds, info)
    with pytest.raises(ExecFailedError):
        carrier.execute({"PATH": "/bin"})
    return environs[0]


def test_execute_makes_exactly_the_named_descriptors_inheritable(opened, monkeypatch):
    seen = []
    monkeypatch.setattr(os, "execve", execve_noting(seen, OSError(errno.ENOENT, "No such file")))
    before = {int(n) for n in os.listdir("/proc/self/fd") if is_inheritable(int(n))}
    carrier = ExecCarrier(FakeTarget(opened[2]), ["program", "-x"])
    carrier.save(table(opened[0]), {})
    with pytest.raises(ExecFailedError, match=r"^execvp program failed: No such file$"):
        carrier.execute({"PATH": "/bin"})
    ((fd, argv, environ, inheritable),) = seen
    memfd = int(environ[VARIABLE])
    assert (fd, argv, environ["PATH"]) == (opened[2], ["program", "-x"], "/bin")
    assert inheritable - before == {opened[0], memfd}
    assert {int(n) for n in os.listdir("/proc/self/fd") if is_inheritable(int(n))} == before
    assert VARIABLE not in os.environ


def test_execute_script_keeps_its_descriptor_for_the_interpreter(opened, monkeypatch):
    seen = []
    monkeypatch.setattr(os, "execve", execve_noting(seen, ValueError("embedded null byte")))
    carrier = ExecCarrier(FakeTarget(opened[2], script=True), ["program"])
    carrier.save(table(), {})
    with pytest.raises(ExecFailedError, match="execvp program failed: embedded null byte"):
        carrier.execute({})
    assert opened[2] in seen[0][3]
    assert not os.get_inheritable(opened[2])


def test_execute_descriptor_that_was_inheritable_stays_so(opened, monkeypatch):
    monkeypatch.setattr(
        os, "execve", execve_noting([], OSError(errno.EPERM, "Operation not permitted"))
    )
    os.set_inheritable(opened[0], True)
    carrier = ExecCarrier(FakeTarget(opened[2]), ["program"])
    carrier.save(table(*opened[:2]), {})
    with pytest.raises(ExecFailedError, match="Operation not permitted"):
        carrier.execute({})
    assert [os.get_inheritable(fd) for fd in opened[:2]] == [True, False]


def test_execute_with_closed_descriptor_undoes_and_fails(opened):
    extra = os.dup(opened[0])
    carrier = ExecCarrier(FakeTarget(opened[2]), ["program"])
    carrier.save(table(opened[0], extra), {})
    os.close(extra)
    with pytest.raises(ExecFailedError, match="Bad file descriptor"):
        carrier.execute({})
    assert not os.get_inheritable(opened[0])


def test_save_again_replaces_and_drop_twice_is_fine(opened):
    carrier = ExecCarrier(FakeTarget(opened[2]), ["program"])
    carrier.save(table(opened[0]), {})
    carrier.save(table(opened[1]), {})
    carrier.drop()
    carrier.drop()


def test_save_descriptor_that_changed_is_refused_and_leaves_nothing(opened):
    fds = table(opened[0])
    other = os.open("/dev/zero", os.O_RDONLY)
    os.dup2(other, opened[0], inheritable=False)
    os.close(other)
    with pytest.raises(DescriptorError):
        ExecCarrier(FakeTarget(opened[2]), ["program"]).save(fds, {})


def test_save_without_a_free_descriptor_passes_the_error_and_leaves_nothing(opened, monkeypatch):
    def full(*_):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "memfd_create", full)
    with pytest.raises(OSError, match="Too many open files"):
        ExecCarrier(FakeTarget(opened[2]), ["program"]).save(table(opened[0]), {})


# ---------------------------------------------------------------- the new side


def test_adopt_gives_descriptors_and_news_and_cleans_up(opened, monkeypatch):
    environ = crossed(monkeypatch, FakeTarget(opened[2]), table(*opened[:2]), {"phases": [1]})
    os.set_inheritable(opened[0], True)
    found = adopt(environ)
    assert environ == {"PATH": "/bin"}
    assert found.fds.find("null", 1) == opened[1]
    assert (found.info, found.program, found.path) == ({"phases": [1]}, "program", "/bin/program")
    assert found.argv == ["program", "-x"]
    assert not os.get_inheritable(opened[0])
    assert found.started_ns > 0
    found.settle()


def test_adopt_names_the_program_and_settle_closes_the_script(opened, monkeypatch):
    copy = os.dup(opened[2])
    environ = crossed(monkeypatch, FakeTarget(copy, script=True), table(), {})
    monkeypatch.setattr(sys, "argv", [f"/dev/fd/{copy}", "-x"])
    monkeypatch.setattr(sys.modules["__main__"], "__file__", f"/dev/fd/{copy}")
    found = adopt(environ)
    assert sys.argv == ["program", "-x"]
    assert sys.modules["__main__"].__file__ == "/bin/program"
    found.settle()
    assert found.fds.find(SCRIPT, 0) == -1
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(copy)


def test_adopt_without_the_variable_is_an_ordinary_start():
    assert adopt({"PATH": "/bin"}) is None


@pytest.mark.parametrize("value", ["", "abc", "-1", "1.0", "٣", "3 ", "9" * 10, "0x3"])
def test_adopt_value_that_is_no_number_is_refused_and_taken_away(value):
    environ = {VARIABLE: value}
    with pytest.raises(PeerError, match="not a descriptor's number"):
        adopt(environ)
    assert environ == {}


def test_adopt_descriptor_that_is_not_open_is_refused_with_a_hint():
    with pytest.raises(PeerError, match="INSTAR_CPR_STATE=999: not an open memfd") as caught:
        adopt({VARIABLE: "999"})
    assert "starts afresh" in caught.value.__notes__[0]


def test_adopt_other_kind_of_descriptor_is_refused(opened):
    with pytest.raises(PeerError, match="not an open memfd"):
        adopt({VARIABLE: str(opened[0])})


def memfd(data, seals=SEALS):
    fd = os.memfd_create("x", os.MFD_ALLOW_SEALING)
    os.write(fd, data)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


def framed(body, magic=b"INSTARFD", number=1):
    return pack("<8sIII", magic, number, len(body), crc32(body)) + body


GOOD = {"fds": [], "info": {}, "program": "p", "path": "/p", "argv": ["p"]}


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "0 bytes"),
        (framed(b"", magic=b"QCPRQCPR"), "magic 5143505251435052"),
        (framed(b"", number=2), "format 2"),
        (framed(encode(GOOD))[:-1], "torn or damaged"),
        (framed(encode(GOOD)) + b"x", "torn or damaged"),
        (framed(b"\xff"), "not one of ours"),
        (framed(encode([])), "expected the keys"),
        (framed(encode({**GOOD, "more": 1})), "expected the keys"),
        (framed(encode({**GOOD, "info": []})), "of the wrong kind"),
        (framed(encode({**GOOD, "argv": []})), "argv is not a list of texts"),
        (framed(encode({**GOOD, "argv": ["a", 1]})), "argv is not a list of texts"),
        (framed(encode({**GOOD, "fds": 1})), "not a list"),
    ],
)
def test_adopt_malformed_message_is_refused(data, why):
    fd = memfd(data)
    try:
        with pytest.raises(CprError, match=why):
            adopt({VARIABLE: str(fd)})
    finally:
        os.close(fd)


@pytest.mark.parametrize("missing", [1, 2, 4, 8])
def test_adopt_memfd_that_lacks_a_seal_is_refused(missing):
    fd = memfd(framed(encode(GOOD)), SEALS & ~missing)
    try:
        with pytest.raises(PeerError, match="is not sealed"):
            adopt({VARIABLE: str(fd)})
    finally:
        os.close(fd)


def test_adopt_oversized_message_is_refused(monkeypatch):
    monkeypatch.setattr(adopted, "MAX_SIZE", 30)
    fd = memfd(framed(encode(GOOD)))
    try:
        with pytest.raises(PeerError, match="limit 30"):
            adopt({VARIABLE: str(fd)})
    finally:
        os.close(fd)


@settings(max_examples=50)
@given(st.binary(max_size=64))
def test_adopt_any_message_that_is_not_ours_is_refused(data):
    fd = memfd(framed(data))
    try:
        with pytest.raises(CprError):
            adopt({VARIABLE: str(fd)})
    finally:
        os.close(fd)
