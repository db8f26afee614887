"""Character devices over the kernel's unix sockets, standard streams and files, before and after an update."""

from __future__ import annotations

import array
import contextlib
import gc
import os
import resource
import socket
import termios
import threading
import tty

import pytest
from chardev_side import FrontEnd, Side

from instar.chardev import create
from instar.chardev.named import NamedFdTable
from instar.cpr.fds import Fds
from instar.cpr.state import save
from instar.errors import ConfigError, HostError


@pytest.fixture
def side():
    side = Side()
    yield side
    side.close()


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "s")


@pytest.fixture
def client():
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        yield client


def test_server_talks_to_one_client_after_another(side, path, client) -> None:
    device = side.create("socket", path=path, server=True)
    front = FrontEnd(device)
    assert device.filename == f"disconnected:unix:{path},server=on"
    assert os.stat(path).st_mode & 0o777 == 0o600
    with socket.socket(socket.AF_UNIX) as first:
        first.connect(path)
        client.connect(path)
        first.sendall(b"one")
        client.sendall(b"two")
        side.turn()
        assert (front.got, device.filename) == (b"one", f"unix:{path},server=on")
    side.turn()
    assert front.got == b"onetwo"
    assert front.events == ["opened", "closed", "opened"]
    device.write(b"hello")
    assert client.recv(99) == b"hello"


def test_server_removes_its_socket_at_exit_and_a_stale_one_before(path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(path)
    side = Side()
    side.create("socket", path=path, server=True)
    assert os.path.exists(path)
    side.close()
    assert not os.path.exists(path)


def test_server_leaves_a_socket_in_use_alone(side, path) -> None:
    side.create("socket", path=path, server=True)
    with pytest.raises(HostError, match="another program listens on it"):
        side.create("socket", "c1", path=path, server=True)
    assert os.path.exists(path)


def test_server_leaves_a_file_alone(side, path) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write("precious")
    with pytest.raises(HostError, match="exists and is not a socket"):
        side.create("socket", path=path, server=True)
    assert os.path.getsize(path) == len("precious")


def test_server_does_not_remove_the_socket_of_its_successor(side, path) -> None:
    first = side.create("socket", path=path, server=True)
    os.unlink(path)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
    first.close()
    assert os.path.exists(path)


def test_client_connects_or_says_why_not(side, path) -> None:
    with pytest.raises(HostError, match=f"cannot connect to {path}: No such file"):
        side.create("socket", path=path)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        device = side.create("socket", path=path)
        assert (device.connected, device.filename) == (True, f"unix:{path}")


def test_server_out_of_descriptors_tries_again_and_does_not_spin(side, path, client) -> None:
    device = side.create("socket", path=path, server=True)
    FrontEnd(device)
    client.connect(path)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    try:
        side.turn()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert not device.connected
    side.until(lambda: device.connected)
    assert device.connected


def test_wait_returns_when_somebody_has_connected(side, path, client) -> None:
    told = []

    def announce(text):
        told.append(text)
        client.connect(path)

    options = {"path": path, "server": True, "wait": True}
    device = create("socket", "c0", options, side.loop, side.fds, announce=announce)
    side.devices.append(device)
    assert device.connected
    assert told == [f"waiting for connection on: disconnected:unix:{path},server=on"]


def test_slow_client_gets_everything(side, path, client) -> None:
    device = side.create("socket", path=path, server=True)
    front = FrontEnd(device)
    client.connect(path)
    side.turn()
    data = os.urandom(3 << 20)
    device.write(data)
    assert 0 < device.pending() < len(data)
    got = b""
    while len(got) < len(data):
        got += client.recv(1 << 20)
        side.turn(2)
    assert (got == data, device.pending(), front.events[-1]) == (True, 0, "drained")


def test_connection_and_unsent_output_go_on_after_an_update(side, path, client) -> None:
    device = side.create("socket", path=path, server=True)
    FrontEnd(device)
    client.connect(path)
    side.turn()
    data = os.urandom(1 << 20)
    device.write(data)
    after = side.update(("socket", {"path": path, "server": True}))
    (new,) = after.devices
    front = FrontEnd(new)
    client.sendall(b"still there?")
    got = b""
    while len(got) < len(data):
        after.turn(2)
        got += client.recv(1 << 20)
    after.turn()
    assert (got == data, front.got, front.events[0]) == (True, b"still there?", "drained")
    assert "opened" not in front.events
    client.close()
    after.turn()
    assert front.events[-1] == "closed"
    after.close()
    assert not os.path.exists(path)


def test_update_that_is_refused_leaves_the_descriptors_open(side, path, client) -> None:
    device = side.create("socket", path=path, server=True)
    FrontEnd(device)
    client.connect(path)
    side.turn()
    after = Side()
    device.save_fds(side.fds)
    copies = [os.dup(entry.fd) for entry in side.fds.walk()]
    for index, fd in enumerate(copies):
        after.fds.resave("chardev/c0", index, fd)
    with pytest.raises(ConfigError, match="where it listens already"):
        after.create("socket", path=path + "x", server=True)
    gc.collect()
    for fd in copies:
        os.close(fd)  # fails if somebody else has closed it


def test_device_that_is_forgotten_closes_nothing(side, path, client) -> None:
    device = side.create("socket", path=path, server=True)
    FrontEnd(device)
    client.connect(path)
    side.turn()
    other = side.update(("socket", {"path": path, "server": True}))
    number = other.devices.pop()._sock.fileno()
    gc.collect()
    os.close(number)


def send_fds(client, data, *fds):
    client.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])


def test_descriptors_come_with_the_input_and_survive_an_update(
    side, path, client, tmp_path
) -> None:
    device = side.create("socket", path=path, server=True)
    FrontEnd(device)
    client.connect(path)
    with open(tmp_path / "gift", "w+b") as a, open(tmp_path / "other", "w+b") as b:
        send_fds(client, b"x", a.fileno(), b.fileno())
        side.turn()
        first = device.take_gift()
        assert os.path.sameopenfile(first, a.fileno())
        os.close(first)
        after = side.update(("socket", {"path": path, "server": True}))
        second = after.devices[0].take_gift()
        assert os.path.sameopenfile(second, b.fileno())
        os.close(second)
    after.close()


def test_inherited_descriptors_have_no_name_until_the_next_update(side, path, client) -> None:
    device = side.create("socket", path=path, server=True)
    FrontEnd(device)
    client.connect(path)
    send_fds(client, b"x", 0)
    side.turn()
    side.create("file", "c1", path=os.devnull)
    after = side.update(("socket", {"path": path, "server": True}), ("file", {"path": os.devnull}))
    named = NamedFdTable(after.fds)
    named.add("f1", after.devices[0].take_gift())
    assert [entry.name for entry in after.fds.walk()] == ["getfd/f1"]
    assert named.remove("f1")
    after.close()


def test_descriptors_that_nobody_claims_are_closed(side, path, client) -> None:
    device = side.create("socket", path=path, server=True)
    FrontEnd(device)
    client.connect(path)
    side.turn()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        send_fds(client, b"x", 0, 1, 2)
        side.turn()
    assert len(os.listdir("/proc/self/fd")) == before + 3
    device.disconnect()
    assert len(os.listdir("/proc/self/fd")) == before - 1


def test_named_descriptors_survive_and_are_closed_by_name(side, tmp_path) -> None:
    with open(tmp_path / "a", "w+b") as file:
        named = NamedFdTable(side.fds)
        named.add("f1", os.dup(file.fileno()))
        named.add("f1", os.dup(file.fileno()))
        after = NamedFdTable(Fds.from_record(side.fds.to_record()))
        assert os.path.sameopenfile(after.find("f1"), file.fileno())
        assert (after.remove("f1"), after.remove("f1")) == (True, False)


def test_file_is_appended_to_after_an_update_not_truncated(side, tmp_path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"earlier run\n")
    side.create("file", path=str(path)).write(b"before\n")
    after = side.update(("file", {"path": str(path)}))
    after.devices[0].write(b"after\n")
    after.close()
    assert path.read_bytes() == b"before\nafter\n"


def test_file_with_append_keeps_what_is_in_it(side, tmp_path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"earlier run\n")
    side.create("file", path=str(path), append=True).write(b"new\n")
    assert path.read_bytes() == b"earlier run\nnew\n"


def test_file_that_cannot_be_opened_says_why(side, tmp_path) -> None:
    with pytest.raises(HostError, match="Is a directory"):
        side.create("file", path=str(tmp_path))


def test_file_on_a_full_disk_keeps_the_output_and_does_not_spin(side) -> None:
    device = side.create("file", path="/dev/full")
    FrontEnd(device)
    device.write(b"kept")
    side.turn()
    assert device.pending() == 4
    state = save(device.save_state())
    assert state["unsent"] == b"kept"


@contextlib.contextmanager
def streams(input_fd, output_fd):
    """Let descriptors 0 and 1 be these (not a fixture: the test runner has its own idea of 1 between phases)."""
    saved = os.dup(0), os.dup(1)
    os.dup2(input_fd, 0)
    os.dup2(output_fd, 1)
    try:
        yield
    finally:
        for number, fd in enumerate(saved):
            os.dup2(fd, number)
            os.close(fd)


@contextlib.contextmanager
def terminal_streams():
    """Let descriptors 0 and 1 be a terminal; gives the descriptor of the person who sits at it."""
    master, slave = os.openpty()
    with streams(slave, slave):
        os.close(slave)
        yield master
    os.close(master)


def test_terminal_is_raw_while_we_run_and_restored_at_exit() -> None:
    with terminal_streams() as terminal:
        side = Side()
        before = termios.tcgetattr(0)
        device = side.create("stdio", signal=True)
        front = FrontEnd(device)
        os.write(terminal, b"x\r")
        side.until(lambda: len(front.got) == 2)
        assert front.got == b"x\r"
        assert not termios.tcgetattr(0)[tty.LFLAG] & (termios.ICANON | termios.ECHO)
        assert termios.tcgetattr(0)[tty.LFLAG] & termios.ISIG
        assert os.get_blocking(0)
        device.write(b"hi\n")
        assert os.read(terminal, 99) == b"hi\r\n"
        side.close()
        assert termios.tcgetattr(0) == before


def test_terminal_without_signals_gives_ctrl_c_to_the_guest() -> None:
    with terminal_streams() as terminal:
        side = Side()
        front = FrontEnd(side.create("stdio"))
        os.write(terminal, b"\x03")
        side.until(lambda: len(front.got) == 1)
        side.close()
        assert front.got == b"\x03"


def test_terminal_stays_raw_over_an_update_and_is_restored_after_it() -> None:
    with terminal_streams() as terminal:
        side = Side()
        before = termios.tcgetattr(0)
        FrontEnd(side.create("stdio"))
        raw = termios.tcgetattr(0)
        after = side.update(("stdio", {}))
        assert termios.tcgetattr(0) == raw
        front = FrontEnd(after.devices[0])
        os.write(terminal, b"y")
        after.until(lambda: len(front.got) == 1)
        assert front.got == b"y"
        after.close()
        assert termios.tcgetattr(0) == before


def test_terminal_that_hangs_up_is_the_end_of_input() -> None:
    master, slave = os.openpty()
    with streams(slave, slave):
        os.close(slave)
        side = Side()
        device = side.create("stdio")
        front = FrontEnd(device)
        os.close(master)
        side.until(lambda: front.events)
        device.write(b"to nobody")
        side.turn()
        side.close()
    assert front.events == ["closed"]


def test_pipes_are_read_to_their_end_and_stay_blocking_for_others() -> None:
    (out_read, out_write), (in_read, in_write) = os.pipe(), os.pipe()
    with streams(in_read, out_write):
        side = Side()
        device = side.create("stdio")
        front = FrontEnd(device)
        os.write(in_write, b"last words")
        os.close(in_write)
        side.turn()
        device.write(b"answer")
        side.close()
    assert (front.got, front.events) == (b"last words", ["closed"])
    assert os.read(out_read, 99) == b"answer"
    assert (os.get_blocking(in_read), os.get_blocking(out_write)) == (True, True)
    for fd in (out_read, out_write, in_read):
        os.close(fd)


def test_sockets_are_made_blocking_again_at_exit() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, streams(ours.fileno(), ours.fileno()):
        side = Side()
        device = side.create("stdio")
        assert not os.get_blocking(0)
        device.write(b"x")
        assert theirs.recv(9) == b"x"
        side.close()
        assert os.get_blocking(0)


def test_empty_input_ends_and_does_not_spin() -> None:
    null = os.open("/dev/null", os.O_RDWR)
    with streams(null, null):
        side = Side()
        front = FrontEnd(side.create("stdio"))
        side.turn()
        side.close()
    os.close(null)
    assert front.events == ["closed"]


def test_closed_input_is_harmless() -> None:
    null = os.open("/dev/null", os.O_RDWR)
    side = Side()  # made before: its descriptors must not become number 0
    with streams(null, null):
        os.close(0)
        device = side.create("stdio")
        FrontEnd(device)
        device.write(b"output goes on")
        side.turn()
        assert (device.connected, device.pending()) == (False, 0)
        side.close()
    os.close(null)


def test_slow_reader_gets_the_last_output_of_a_program_that_ends() -> None:
    (out_read, out_write), null = os.pipe(), os.open("/dev/null", os.O_RDONLY)
    data = os.urandom(300_000)
    got = []

    def reader():
        got.append(b"".join(iter(lambda: os.read(out_read, 4096), b"")))

    with streams(null, out_write):
        os.close(out_write)
        side = Side()
        side.create("stdio").write(data)
        thread = threading.Thread(target=reader)
        thread.start()
        side.close()
    thread.join()
    os.close(out_read)
    os.close(null)
    assert got == [data]


def test_reader_that_never_reads_does_not_keep_a_program_from_ending(side, path, client) -> None:
    device = side.create("socket", path=path, server=True)
    FrontEnd(device)
    client.connect(path)
    side.turn()
    device.write(bytes(4 << 20))
    device.close()
    assert device.pending() == 0
