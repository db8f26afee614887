"""The client library of QEMU's own project stays connected through updates and notices nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

from qemu.qmp import EventListener, QMPClient

from harness import Vm

UPDATES = 10


async def ask_all_the_time(client: QMPClient, stop: asyncio.Event) -> int:
    asked = 0
    while not stop.is_set():
        assert (await client.execute("query-name"))["name"] == "kept"
        asked += 1
    return asked


async def drive(vm: Vm, path: Path) -> tuple[int, list[str]]:
    client = QMPClient("test")
    await client.connect(str(path))
    stop, names = asyncio.Event(), []
    with client.listener(("STOP", "RESUME", "MIGRATION")) as listener:
        asker = asyncio.create_task(ask_all_the_time(client, stop))
        for _ in range(UPDATES):
            uri = vm.prepare_update()
            await client.execute("migrate", {"uri": uri})
            await wait_for_resume(listener, names)
        stop.set()
        asked = await asker
    assert (await client.execute("query-migrate"))["status"] == "completed"
    await client.disconnect()
    return asked, names


async def wait_for_resume(listener: EventListener, names: list[str]) -> None:
    async for event in listener:
        names.append(event["data"]["status"] if event["event"] == "MIGRATION" else event["event"])
        if event["event"] == "RESUME":
            return


def test_client_library_stays_connected_and_gets_every_answer_and_event(
    ticker: Path, tmp_path: Path
) -> None:
    path = tmp_path / "qmp"
    with Vm(
        "-kernel", str(ticker), "-name", "kept", "-qmp", f"unix:{path},server=on,wait=off"
    ) as vm:
        vm.console.wait(b"tick 1")
        asked, names = asyncio.run(drive(vm, path))
        assert asked > UPDATES
        assert names == ["setup", "STOP", "active", "device", "completed", "RESUME"] * UPDATES
