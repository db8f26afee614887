"""Clients of QMP and HMP that send rubbish, too much, half of it, or never read: they are told, or closed and counted.

The monitor's other clients and the guest go on, and memory stays bounded.
"""

from __future__ import annotations

import contextlib
import json
import random
import select
import socket
import threading
from itertools import pairwise
from pathlib import Path

import pytest

from harness import PATIENCE, Vm, connect

MIB = 1 << 20
GROWTH = (
    48 * MIB
)  # of the resident set, whatever a client does: its request, its parsed form, its answer
LIMIT_TOLD = {
    "error": {"class": "GenericError", "desc": "JSON token size limit exceeded"},
}


@pytest.fixture(scope="module")
def machine(ticker: Path, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("sockets")
    with Vm(
        "-kernel", str(ticker),
        "-chardev", f"socket,id=other,path={folder}/other,server=on,wait=off",
        "-mon", "chardev=other,mode=control",
        "-monitor", f"unix:{folder}/hmp,server=on,wait=off",
    ) as vm:  # fmt: skip
        vm.console.wait(b"tick 1")
        vm.other, vm.people = folder / "other", folder / "hmp"
        yield vm


@pytest.fixture
def vm(machine: Vm):
    """A machine; afterwards its first client, its guest and its memory are as they were."""
    before = resident(machine)
    yield machine
    assert machine.qmp.command("query-status") == {"status": "running", "running": True}
    machine.console.wait(b"tick", len(machine.console.text))
    assert resident(machine) - before < GROWTH


def resident(vm: Vm) -> int:
    """Bytes of the program that are in RAM, without the guest's."""
    status = Path(f"/proc/{vm.process.pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return int(fields["RssAnon"].split()[0]) << 10


class Client:
    """A QMP client that may be rude."""

    def __init__(self, path: Path) -> None:
        self.socket = connect(path)
        self.lines = self.socket.makefile("rb")

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.lines.close()
        self.socket.close()

    def read(self) -> dict:
        return json.loads(self.lines.readline())

    def negotiate(self) -> None:
        assert "QMP" in self.read()
        assert self.ask("qmp_capabilities")["return"] == {}

    def ask(self, name: str, ident: object = 0) -> dict:
        self.socket.sendall(json.dumps({"execute": name, "id": ident}).encode() + b"\n")
        while (reply := self.read()).get("id") != ident:
            pass
        return reply

    def send_while_reading(self, pieces) -> bytes:
        """Send everything, taking what comes meanwhile; returns that."""
        got = bytearray()
        for piece in pieces:
            left = memoryview(piece)
            while left:
                readable, writable, _ = select.select([self.socket], [self.socket], [], PATIENCE)
                assert readable or writable
                if readable:
                    got += self.socket.recv(65536)
                if writable:
                    left = left[self.socket.send(left[:65536]) :]
        return bytes(got)


@pytest.mark.parametrize(
    "garbage",
    [
        random.Random(1).randbytes(200_000),
        b"\xff" * 100_000,
        b"\x00" * 100_000,
        b"}" * 50_000,
        b'{"execute": "query-status"' * 5_000,
        b'{"execute": "\xc3\x28\xff\xfe"}\n' * 2_000,
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 1_000,
        b'{"execute": 1e999999, "id": -1E+99999999}' * 1_000,
        b'{"execute": "query-status", "id": ' + b"9" * 100_000 + b"}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'"' + b"\\u" * 100_000,
    ],
    ids=[
        "random", "ff", "nul", "closing", "half", "utf8", "http", "numbers", "digits", "lists", "objects", "string",
    ],
)  # fmt: skip
def test_garbage_is_answered_with_errors_and_the_same_client_goes_on(
    vm: Vm, garbage: bytes
) -> None:
    with Client(vm.other) as client:
        client.negotiate()
        client.send_while_reading([garbage, b"\xff\n"])
        assert client.ask("query-status", "after")["return"]["status"] == "running"


def test_100_mib_of_json_get_one_error_and_memory_stays_bounded(vm: Vm) -> None:
    with Client(vm.other) as client:
        client.negotiate()
        chunk = b'{"x": "' + b"y" * 65529 + b'"},'
        pieces = [b'{"execute": "query-status", "arguments": {"a": [', *[chunk] * 1600, b"]}}\n"]
        answer = client.send_while_reading(pieces)
        assert client.ask("query-status", "after")["return"]["status"] == "running"
    assert json.loads(answer) == LIMIT_TOLD
    assert "monitor/other: client sent what is no request, " in vm.said()


def test_largest_request_with_the_largest_id_is_answered(vm: Vm) -> None:
    with Client(vm.other) as client:
        client.negotiate()
        huge = "\u00e9" * 400_000  # two bytes each on the way in, six on the way out
        request = json.dumps({"execute": "query-name", "id": huge}, ensure_ascii=False).encode()
        answer = client.send_while_reading([request])
        while not answer.endswith(b"\n"):
            answer += client.socket.recv(MIB)
        assert json.loads(answer)["id"] == huge
        assert client.ask("query-status", "after")["return"]["status"] == "running"


def test_client_that_never_reads_is_not_read_and_costs_little(vm: Vm) -> None:
    with Client(vm.other) as client:
        client.negotiate()
        client.socket.setblocking(False)
        request = b'{"execute": "query-qmp-schema"}\n' * 1000
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while sent < 100 * MIB:
                sent += client.socket.send(request)
                vm.qmp.command("query-status")  # the others are served meanwhile
        assert sent < 10 * MIB  # it has to wait, not we
        client.socket.settimeout(PATIENCE)
        for _ in range(20):  # who begins to read after all gets its answers
            assert "return" in client.read()


def test_client_that_never_reads_events_is_dropped_and_counted(vm: Vm) -> None:
    with Client(vm.other) as client:
        client.negotiate()
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        while "monitor/other: client dropped: " not in vm.said():
            vm.qmp.socket.sendall(b'{"execute": "system_powerdown"}' * 1000)
            for _ in range(2000):  # answers and events, of a client that does read
                vm.qmp.next_event()
    with Client(vm.other) as client:
        client.negotiate()


def test_storms_of_connections_leave_nothing_behind(vm: Vm) -> None:
    footprint = vm.footprint()

    def storm(path: Path, first: bytes) -> None:
        for _ in range(200):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))  # waits when the backlog is full
                with contextlib.suppress(BrokenPipeError):
                    client.sendall(first)

    threads = [
        threading.Thread(target=storm, args=(path, first))
        for path in (vm.other, vm.people)
        for first in (b"", b'{"execute"', b'{"execute": "qmp_capabilities"}', b"info ")
    ]
    for thread in threads:
        thread.start()
    for _ in range(200):
        assert vm.qmp.command("query-status")["running"]
    for thread in threads:
        thread.join()
    with Client(vm.other) as client:
        client.negotiate()
    while vm.footprint() != footprint:  # the last of them are still being hung up on
        pass


def test_half_a_request_before_an_update_is_completed_after_it(vm: Vm) -> None:
    request = json.dumps(
        {"execute": "query-status", "id": "\u20ac" * 1000}, ensure_ascii=False
    ).encode()
    with Client(vm.other) as client, Client(vm.people) as person:
        client.negotiate()
        cuts = [0, 1, 500, 501, len(request)]  # 501: in the middle of a character
        for begin, end in pairwise(cuts):
            client.socket.sendall(request[begin:end])
            person.socket.sendall(b"i")
            assert vm.update()["status"] == "completed"
        while "return" not in (reply := client.read()):
            pass
        assert reply["id"] == "\u20ac" * 1000
        person.socket.sendall(b"\x15info sta")  # away with what was typed between
        assert vm.update()["status"] == "completed"
        person.socket.sendall(b"tus\n")
        while b"VM status: running" not in person.lines.readline():
            pass


def test_hostile_clients_during_updates_cost_nobody_else_anything(vm: Vm) -> None:
    """One sends rubbish, one never reads, one comes and goes, while the machine is updated three times."""
    over = threading.Event()

    def rubbish() -> None:
        with Client(vm.other) as client:
            client.socket.settimeout(0.1)
            while not over.is_set():
                with contextlib.suppress(TimeoutError):
                    client.socket.sendall(b'{"execute": \xff[[[[}}}}\n')

    def comes_and_goes() -> None:
        while not over.is_set():
            with Client(vm.people) as client:
                client.socket.sendall(b"info chardev\ninfo ")
                client.socket.recv(10)

    threads = [threading.Thread(target=rubbish), threading.Thread(target=comes_and_goes)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(3):
            assert vm.update()["status"] == "completed"
    finally:
        over.set()
        for thread in threads:
            thread.join()


KEYS = {
    "random": random.Random(2).randbytes(200_000).replace(b"\x18", b"x").replace(b"q", b"x"),
    "long line": b"x" * 300_000 + b"\n",
    "escapes": b"\x1b[" * 50_000 + b"\x1b[999999999A" * 2_000,
    "half characters": b"\xe2\x82" * 50_000 + b"\n",
    "lines": b"\n" * 50_000,
    "tabs": b"info \t" * 2_000 + b"\n",
    "unknown": b"nonsense " * 20_000 + b"\n",
    "expressions": b"x " + b"(" * 4_000 + b"\n" + b"x 9" + b"9" * 4_000 + b"*9\n",
    "history": b"".join(b"help %d\n" % n for n in range(1_000)),
}


@pytest.mark.parametrize("keys", KEYS.values(), ids=KEYS)
def test_keys_of_any_kind_leave_a_monitor_that_answers(vm: Vm, keys: bytes) -> None:
    with Client(vm.people) as person:
        person.send_while_reading([keys, b"\x03\x15\n"])
        person.socket.sendall(b"\ninfo status\n")
        got = b""
        while b"VM status: running" not in got:
            got = got[-100:] + person.socket.recv(65536)


def test_person_that_never_reads_waits_alone(vm: Vm) -> None:
    with Client(vm.people) as person:
        person.socket.setblocking(False)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while sent < 100 * MIB:
                sent += person.socket.send(b"help\n" * 1000)
                vm.qmp.command("query-status")
        assert sent < 10 * MIB
