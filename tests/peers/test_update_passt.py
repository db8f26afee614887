"""User-mode networking by Debian's real passt: a guest's TCP connection goes on through updates."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from harness import PATIENCE, Vm
from net_guest import booted, shell, stream_through_updates

GATEWAY = "192.0.2.1"  # passt maps it to the host's loopback
ADDRESS = "ip addr add 192.0.2.15/24 dev eth0; ip link set eth0 up"


def passt_command(path: Path) -> list[str]:
    as_root = ["--runas", "0"] if os.geteuid() == 0 else []
    return ["passt", "-f", "-q", "-s", str(path), "-a", "192.0.2.15", "-n", "24", "-g", GATEWAY, *as_root]  # fmt: skip


@pytest.fixture
def passt(tmp_path: Path):
    path = tmp_path / "passt"
    process = subprocess.Popen([*passt_command(path), "-1"], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + PATIENCE
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    yield path
    process.kill()
    process.wait()


def test_tcp_through_passt_is_byte_exact_across_20_updates(debian, passt: Path) -> None:
    with Vm(
        *debian.arguments("console=ttyS0 quiet"),
        "-netdev", f"stream,id=n0,addr.type=unix,addr.path={passt}",
        "-device", "virtio-net-device,netdev=n0", size=256,
    ) as vm:  # fmt: skip
        booted(vm, ADDRESS)
        server, back, seen = stream_through_updates(vm, "127.0.0.1", GATEWAY)
        assert server.exact
        assert server.received > seen[-1] > seen[0]
        assert server.digest.hexdigest() in back


def answer_once(listener: socket.socket) -> None:
    """Serve one HTTP request."""
    client, _ = listener.accept()
    with client:
        client.recv(4096)
        client.sendall(b"HTTP/1.0 200 OK\r\n\r\nreached the host\n")


def fetched(vm: Vm) -> str:
    """What the guest gets from a server on the host, by a new connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(PATIENCE)
        server = threading.Thread(target=answer_once, args=(listener,))
        server.start()
        said = shell(vm.console, f"wget -q -O - http://{GATEWAY}:{listener.getsockname()[1]}/")
        server.join()
        return said


def connected_across_an_update(vm: Vm) -> dict:
    """Update; returns what the event of the connection tells, which comes before, during or after it."""
    vm.qmp.command("migrate", uri=vm.prepare_update())
    told: list[dict] = []
    done = False
    while not (told and done):
        event = vm.qmp.next_event()
        if event["event"] == "NETDEV_STREAM_CONNECTED":
            told.append(event["data"])
        done |= event["event"] == "MIGRATION" and event["data"]["status"] == "completed"
    return told[0]


def test_passt_as_a_child_stays_through_20_updates_and_is_started_again_when_it_dies(
    debian, tmp_path: Path
) -> None:
    path = tmp_path / "passt"
    command = shlex.join(passt_command(path)).replace(",", ",,")
    with Vm(
        *debian.arguments(),
        "-child", f"name=net,command={command},restart=on-failure",
        "-netdev", f"stream,id=n0,addr.type=unix,addr.path={path},reconnect-ms=50",
        "-device", "virtio-net-device,netdev=n0", size=256,
    ) as vm:  # fmt: skip
        booted(vm, ADDRESS)
        (child,) = vm.children()
        server, back, seen = stream_through_updates(vm, "127.0.0.1", GATEWAY)
        assert vm.children() == [child]
        assert server.exact
        assert server.received > seen[-1] > seen[0]
        assert server.digest.hexdigest() in back

        os.kill(child, signal.SIGKILL)
        vm.qmp.wait_event("NETDEV_STREAM_DISCONNECTED")
        said = connected_across_an_update(vm)
        assert said == {"netdev-id": "n0", "addr": {"type": "unix", "path": str(path)}}
        assert "child net was killed by signal 9; it is started again" in vm.said()
        (again,) = vm.children()
        assert again != child
        assert "reached the host" in fetched(vm)
        vm.update()
        assert vm.children() == [again]
        assert "reached the host" in fetched(vm)


def test_netdev_waits_for_a_child_that_is_still_starting(ticker, tmp_path: Path) -> None:
    path = tmp_path / "passt"
    command = shlex.join(passt_command(path))
    with Vm(
        "-kernel", str(ticker),
        "-child", f"name=net,command=sh -c 'sleep 0.5; exec {command}'",
        "-netdev", f"stream,id=n0,addr.type=unix,addr.path={path}",
        "-device", "virtio-net-device,netdev=n0",
    ) as vm:  # fmt: skip
        shown = vm.qmp.command("human-monitor-command", command_line="info network")
        assert f"connected,unix:{path}" in shown
