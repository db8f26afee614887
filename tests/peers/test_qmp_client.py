"""QMP as another project's client speaks it: PyPI's ``qemu.qmp``, over a unix socket (it sends no newlines)."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from pathlib import Path

import pytest
from qemu.qmp import ExecuteError, QMPClient

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "monitor"))

from monitor_fakes import FakeContext, FakeNamedFds

from instar.chardev import create
from instar.cpr.fds import Fds
from instar.loop import Loop
from instar.monitor.monitor import Monitor


class Server:
    """Our QMP server in a thread of its own."""

    def __init__(self, path):
        self.path = path
        self.context = FakeContext()
        self.context.loop = Loop()
        self.context.named_fds = FakeNamedFds(())
        options = {"path": path, "server": True}
        self.chardev = create("socket", "qmp0", options, self.context.loop, Fds())
        self.monitor = Monitor("qmp", self.chardev, self.context)
        self.thread = threading.Thread(target=self.context.loop.run)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.context.loop.quit()
        self.thread.join()
        self.chardev.close()


@pytest.fixture
def server(tmp_path):
    with Server(str(tmp_path / "qmp")) as server:
        yield server


def talk(server, conversation):
    """Run ``conversation(client)`` with a connected client and return what it returns."""

    async def run():
        client = QMPClient("test")
        await client.connect(server.path)
        try:
            return await asyncio.wait_for(conversation(client), 60)
        finally:
            await client.disconnect()

    return asyncio.run(run())


def test_client_negotiates_and_gets_answers(server) -> None:
    async def conversation(client):
        greeting = client.greeting._asdict()
        return greeting, [
            await client.execute(c) for c in ("query-status", "query-name", "query-kvm")
        ]

    greeting, answers = talk(server, conversation)
    assert greeting["QMP"]["version"]["package"] == "instar 0.1.0"
    assert answers == [
        {"status": "running", "running": True}, {"name": "demo"}, {"enabled": False, "present": False}
    ]  # fmt: skip


def test_client_reads_the_whole_schema(server) -> None:
    async def conversation(client):
        names = {c["name"] for c in await client.execute("query-commands")}
        schema = await client.execute("query-qmp-schema")
        return names, {e["name"] for e in schema if e["meta-type"] == "command"}

    names, described = talk(server, conversation)
    assert names == described
    assert {"migrate", "query-cpus-fast", "human-monitor-command"} <= names


def test_client_sees_errors_as_errors(server) -> None:
    async def conversation(client):
        with pytest.raises(ExecuteError) as unknown:
            await client.execute("nosuch")
        with pytest.raises(ExecuteError) as wrong:
            await client.execute("migrate-set-parameters", {"mode": "xyz"})
        return unknown.value, wrong.value

    unknown, wrong = talk(server, conversation)
    assert (unknown.error_class, str(unknown)) == (
        "CommandNotFound",
        "The command nosuch has not been found",
    )
    assert (wrong.error_class, str(wrong)) == (
        "GenericError",
        "Parameter 'mode' does not accept value 'xyz'",
    )


def test_client_gets_events_in_order(server) -> None:
    async def conversation(client):
        with client.listener(("STOP", "RESUME")) as listener:
            await client.execute("stop")
            await client.execute("cont")
            return [(await listener.get())["event"] for _ in range(2)]

    assert talk(server, conversation) == ["STOP", "RESUME"]


def test_client_executes_many_requests_at_once(server) -> None:
    async def conversation(client):
        return await asyncio.gather(*(client.execute("query-name") for _ in range(50)))

    assert talk(server, conversation) == [{"name": "demo"}] * 50


def test_client_gives_a_descriptor(server, tmp_path) -> None:
    async def conversation(client):
        client.send_fd_scm(file.fileno())
        await client.execute("getfd", {"fdname": "fd1"})
        kept = dict(server.context.named_fds.kept)
        await client.execute("closefd", {"fdname": "fd1"})
        return kept

    with open(tmp_path / "file", "w+b") as file:
        fd = talk(server, conversation)["fd1"]
        assert os.path.sameopenfile(fd, file.fileno())
    os.close(fd)


def test_client_uses_hmp(server) -> None:
    async def conversation(client):
        return await client.execute("human-monitor-command", {"command-line": "info status"})

    assert talk(server, conversation) == "VM status: running\r\n"


def test_clients_one_after_another(server) -> None:
    async def conversation(client):
        return await client.execute("query-status")

    assert talk(server, conversation) == talk(server, conversation)
