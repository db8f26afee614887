"""A rehearsal of a machine with everything attached changes nothing outside and says nothing to anybody."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pty
import socket
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from harness import PATIENCE, Qmp, Vm, connect

DAEMON = Path(__file__).parents[1] / "blk_daemon.py"
MIB = 1 << 20


class World:
    """Files, sockets and programs around a machine; what the machine makes lies in the same folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("disk", "shared", "empty"):
            with self.path(name).open("wb") as file:
                file.truncate(MIB)
        for name in ("fifo.in", "fifo.out", "noise"):
            os.mkfifo(self.path(name))
        self.master, slave = pty.openpty()
        self.terminal = os.ttyname(slave)
        self.slave = slave
        self.dgram = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.dgram.bind(str(self.path("dgram.remote")))
        self.daemon = subprocess.Popen(
            [
                sys.executable,
                DAEMON,
                self.path("vhost"),
                self.path("shared"),
                f"journal={self.path('journal')}",
            ]
        )
        until(self.path("vhost").exists)
        self.peers: dict[str, socket.socket] = {}

    def path(self, name: str) -> Path:
        return self.folder / name

    def arguments(self) -> list[str]:
        f = self.folder
        return [
            "-pidfile", f"{f}/pid",
            "-blockdev", f"driver=file,node-name=d0,filename={f}/disk", "-device", "virtio-blk-device,drive=d0",
            "-blockdev", f"driver=file,node-name=d1,filename={f}/empty,read-only=on",
            "-device", "virtio-blk-device,drive=d1",
            "-object", f"rng-random,id=r0,filename={f}/noise", "-device", "virtio-rng-device,rng=r0",
            "-device", "virtio-balloon-device",
            "-device", f"virtio-vsock-device,guest-cid=5,uds-path={f}/vsock",
            "-netdev", f"stream,id=n0,server=on,addr.type=unix,addr.path={f}/stream",
            "-device", "virtio-net-device,netdev=n0",
            "-netdev",
            f"dgram,id=n1,local.type=unix,local.path={f}/dgram,remote.type=unix,remote.path={f}/dgram.remote",
            "-chardev", f"file,id=log,path={f}/log", "-chardev", "pty,id=term",
            "-chardev", f"pipe,id=pipe,path={f}/fifo",
            "-chardev", "ringbuf,id=ring", "-chardev", f"socket,id=port,path={f}/port,server=on,wait=off",
            "-device", "virtio-serial-device",
            "-device", "virtconsole,chardev=term", "-device", "virtserialport,chardev=port,name=port",
            "-device", "virtserialport,chardev=log,name=log", "-device", "virtserialport,chardev=pipe,name=pipe",
            "-chardev", f"socket,id=vh,path={f}/vhost", "-device", "vhost-user-blk-device,chardev=vh",
            "-child", "name=sleeper,command=sleep 1000",
            "-chardev", "stdio,id=std,mux=on", "-mon", "chardev=std,mode=readline",
        ]  # fmt: skip

    def meet(self) -> None:
        """Connect to whatever listens."""
        for name in ("stream", "port", "vsock"):
            self.peers[name] = connect(self.path(name))
        self.peers["dgram"] = self.dgram

    def close(self) -> None:
        for peer in self.peers.values():
            peer.close()
        self.dgram.close()
        os.close(self.master)
        os.close(self.slave)
        self.daemon.kill()
        self.daemon.wait()


def until(condition) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def world(tmp_path: Path):
    made = World(tmp_path)
    with contextlib.closing(made):
        yield made


@pytest.fixture
def vm(world: World, ticker: Path):
    streams = {"stdin": world.slave, "stdout": world.slave}
    with Vm("-kernel", str(ticker), "-S", *world.arguments(), **streams) as machine:
        world.meet()
        add(machine.qmp, "chardev-add", id="late", backend={"type": "pty", "data": {}})
        yield machine


def add(qmp: Qmp, command: str, **arguments) -> None:
    qmp.command(command, **arguments)


def outside(vm: Vm, world: World) -> dict[str, object]:
    """Everything that somebody else could notice."""
    files = {
        path.name: (info.st_ino, info.st_mode, info.st_size, info.st_mtime_ns, info.st_ctime_ns)
        for folder in (vm.folder, world.folder)
        for path in sorted(folder.iterdir())
        if (info := path.lstat())
    }
    ram = vm.guest_memory(0x8000_0000, 64 * MIB)
    images = [world.path(name) for name in ("disk", "shared", "empty")]
    locks = [line.split(":", 1)[1] for line in Path("/proc/locks").read_text().splitlines()]
    descriptors = Path(f"/proc/{vm.process.pid}/fdinfo")
    return {
        "files": files,
        "ram": hashlib.sha256(ram).hexdigest(),
        "disks": [hashlib.sha256(path.read_bytes()).hexdigest() for path in images],
        "locks": [line for line in locks if any(f":{path.stat().st_ino} " in line for path in images)],
        "terminal": termios.tcgetattr(world.slave),
        "flags": sorted(info.read_text().split("\nmnt_id")[0] for info in descriptors.iterdir()),
        "journal": world.path("journal").read_bytes(),
        "footprint": vm.footprint(),
    }  # fmt: skip


def heard(peer: socket.socket) -> bytes:
    """What lies at a peer, "-" if nothing does."""
    try:
        peer.setblocking(False)
        return peer.recv(4096)
    except BlockingIOError:
        return b"-"


def rehearse(vm: Vm) -> str:
    """Let the new program rehearse everything; return why it was refused: it would take longer than 1 ms."""
    vm.qmp.command("migrate-set-parameters", **{"x-update-budget": 1})
    vm.qmp.command("migrate", uri=vm.prepare_update())
    vm.qmp.wait_event("MIGRATION", status="failed")
    return vm.qmp.command("query-migrate")["error-desc"]


def test_rehearsal_with_every_device_changes_nothing_outside(vm: Vm, world: World) -> None:
    rehearse(vm)  # what is loaded or made once
    before = outside(vm, world)
    assert "x-update-budget is 1 ms" in rehearse(vm)
    after = outside(vm, world)
    assert after == before
    assert {name: heard(peer) for name, peer in world.peers.items()} == dict.fromkeys(
        world.peers, b"-"
    )
    assert world.daemon.poll() is None


def test_update_of_a_machine_with_every_device_goes_through(vm: Vm) -> None:
    vm.update()
    vm.update()
