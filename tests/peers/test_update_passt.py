"""User-mode networking by Debian's real passt: a guest's TCP connection goes on through updates."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from harness import PATIENCE, Vm
from net_guest import booted, stream_through_updates

GATEWAY = "192.0.2.1"  # passt maps it to the host's loopback


@pytest.fixture
def passt(tmp_path: Path):
    path = tmp_path / "passt"
    as_root = ["--runas", "0"] if os.geteuid() == 0 else []
    process = subprocess.Popen(
        ["passt", "-f", "-1", "-q", "-s", path, "-a", "192.0.2.15", "-n", "24", "-g", GATEWAY, *as_root],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
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
        booted(vm, "ip addr add 192.0.2.15/24 dev eth0; ip link set eth0 up")
        server, back, seen = stream_through_updates(vm, "127.0.0.1", GATEWAY)
        assert server.exact
        assert server.received > seen[-1] > seen[0]
        assert server.digest.hexdigest() in back
