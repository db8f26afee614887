"""Network cards of Debian's stock driver, updated under traffic."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import QmpError, Vm
from net_guest import UPDATES, booted, echoes, shell

PINGS = 400


@pytest.fixture
def linked(debian, tmp_path: Path):
    """Two guests with a wire between them, 10.0.0.1 at the listening end and 10.0.0.2."""
    path = tmp_path / "wire"
    kernel = debian.arguments("console=ttyS0 quiet")
    first, second = "52:54:00:00:00:01", "52:54:00:00:00:02"
    with Vm(
        *kernel, "-netdev", f"stream,id=n0,server=on,addr.type=unix,addr.path={path}",
        "-device", f"virtio-net-device,netdev=n0,mac={first},id=nic", size=256,
    ) as server, Vm(
        *kernel, "-netdev", f"stream,id=n0,addr.type=unix,addr.path={path}",
        "-device", f"virtio-net-device,netdev=n0,mac={second},id=nic", size=256,
    ) as client:  # fmt: skip
        for n, vm in enumerate((server, client), 1):
            booted(vm, f"ip addr add 10.0.0.{n}/24 dev eth0; ip link set eth0 up")
        yield server, client


def test_a_wire_between_two_guests_through_20_updates_of_one_loses_no_frame(linked) -> None:
    server, client = linked
    shell(client.console, "ping -c 1 10.0.0.1")
    start = len(client.console.text)
    client.console.send(f"ping -i 0.01 -c {PINGS} 10.0.0.1 | tail -3\n".encode())
    footprint = None
    for _ in range(UPDATES):
        assert server.update()["status"] == "completed"
        footprint = footprint or server.footprint()
        client.console.pull(0.1)
    client.console.wait(b"round-trip", start)
    assert echoes(client.console) == (PINGS + 1, PINGS + 1)
    now = server.footprint()
    assert {key: now[key] for key in ("fds", "children")} == {
        key: footprint[key] for key in ("fds", "children")
    }


def test_link_and_filter_and_added_back_ends_cross_an_update(linked, tmp_path: Path) -> None:
    server, client = linked
    server.qmp.command("human-monitor-command", command_line="set_link nic off")
    server.update()
    assert shell(server.console, "cat /sys/class/net/eth0/carrier").count("\r\n0\r\n")
    assert ",link=down" in info(server)
    server.qmp.command("human-monitor-command", command_line="set_link n0 on")
    assert "1 packets received" in shell(client.console, "ping -c 1 10.0.0.1")

    before = server.qmp.command("query-rx-filter")
    assert before[0]["multicast-table"]
    server.update()
    assert server.qmp.command("query-rx-filter") == before

    server.qmp.command("netdev_del", id="n0")
    client.qmp.wait_event("NETDEV_STREAM_DISCONNECTED")
    client.qmp.command("netdev_del", id="n0")
    where = {"type": "unix", "path": str(tmp_path / "other")}
    for vm, listens in ((server, True), (client, False)):
        vm.qmp.command("netdev_add", type="stream", id="n0", server=listens, addr=where)
    server.qmp.wait_event("NETDEV_STREAM_CONNECTED")
    server.update()
    client.update()
    assert "1 packets received" in shell(client.console, "ping -c 1 10.0.0.1")
    assert str(tmp_path / "other") in info(server)
    with pytest.raises(QmpError, match="Duplicate ID 'n0' for netdev"):
        server.qmp.command("netdev_add", type="stream", id="n0", server=True, addr=where)
    with pytest.raises(QmpError, match="Device 'n7' not found"):
        server.qmp.command("netdev_del", id="n7")


def info(vm: Vm) -> str:
    return vm.qmp.command("human-monitor-command", command_line="info network")


def test_datagrams_between_two_guests_go_on_through_updates(debian, tmp_path: Path) -> None:
    def netdev(here: str, there: str) -> str:
        return (
            f"dgram,id=n0,local.type=unix,local.path={tmp_path}/{here},"
            f"remote.type=unix,remote.path={tmp_path}/{there}"
        )

    kernel = debian.arguments("console=ttyS0 quiet")
    card = "virtio-net-device,netdev=n0,mac=52:54:00:00:00:0"
    with (
        Vm(*kernel, "-netdev", netdev("a", "b"), "-device", f"{card}1", size=256) as one,
        Vm(*kernel, "-netdev", netdev("b", "a"), "-device", f"{card}2", size=256) as two,
    ):
        for n, vm in enumerate((one, two), 1):
            booted(vm, f"ip addr add 10.0.0.{n}/24 dev eth0; ip link set eth0 up")
        shell(two.console, "ping -c 1 10.0.0.1")
        start = len(two.console.text)
        # Linux keeps 10 datagrams for a unix socket, so that is how many a pause may meet.
        two.console.send(b"ping -i 0.2 -c 25 10.0.0.1 | tail -3\n")
        for _ in range(3):
            one.update()
            two.update()
        two.console.wait(b"round-trip", start)
        assert echoes(two.console) == (26, 26)
