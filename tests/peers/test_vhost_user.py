"""Disks and folders over vhost-user, served by Debian's own daemons, which no update disconnects."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import struct
import subprocess
import time
from pathlib import Path

import pytest

from harness import PATIENCE, QmpError, Vm

SIZE = 64 << 20
CLUSTER = 1 << 16
ROOT = Path(__file__).parents[2]
VIRTIOFSD = shutil.which(
    "virtiofsd",
    path=f"{os.environ['PATH']}:/usr/libexec:/usr/lib/qemu:{ROOT}/.cache/debian/peers/usr/lib/qemu",
)
BAD = re.compile(rb"I/O error|hung task|Oops|BUG:|WARNING:|DISK ERROR|is not a head")


def make_raw(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(SIZE)


def make_qcow2(path: Path) -> None:
    """An empty image: header, reference counts of the four clusters that there are, an empty first table."""
    header = struct.pack(
        ">4sIQIIQIIQQIIQ", b"QFI\xfb", 2, 0, 0, 16, SIZE, 0, 1, 3 * CLUSTER, CLUSTER, 1, 0, 0
    )
    clusters = [header, struct.pack(">Q", 2 * CLUSTER), struct.pack(">4H", 1, 1, 1, 1), b""]
    path.write_bytes(b"".join(part.ljust(CLUSTER, b"\0") for part in clusters))


def daemon_command(path: Path, kind: str, socket: Path) -> list[str]:
    return [
        "qemu-storage-daemon",
        "--blockdev", f"driver=file,filename={path},node-name=file",
        "--blockdev", f"driver={kind},file=file,node-name=disk",
        "--export", f"vhost-user-blk,id=e,node-name=disk,addr.type=unix,addr.path={socket},writable=on",
    ]  # fmt: skip


def sockets(pid: int) -> list[str]:
    links = [os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()]
    return sorted(link for link in links if link.startswith("socket:"))


def shell(vm: Vm, line: str) -> bytes:
    """Type a line into the guest's shell and return what it printed."""
    vm.console.pull(0)  # the guest may print all the time
    start = len(vm.console.text)
    vm.console.send(line.encode() + b"\necho 'e''nd'\n")
    end = vm.console.wait(b"end\r\n", start)
    return vm.console.text[start:end]


def socket_answers(path: Path) -> bool:
    """Whether the socket file is one that somebody made since (a daemon that was killed leaves its own)."""
    return path.exists() and str(path) in Path("/proc/net/unix").read_text()


def until(condition) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize(("kind", "make"), [("raw", make_raw), ("qcow2", make_qcow2)])
def test_disk_of_the_storage_daemon_goes_on_through_20_updates(
    debian, tmp_path: Path, kind, make
) -> None:
    image, socket = tmp_path / "image", tmp_path / "socket"
    make(image)
    with subprocess.Popen(daemon_command(image, kind, socket)) as daemon:
        try:
            until(socket.exists)
            with Vm(
                *debian.arguments("console=ttyS0 quiet instar.diskverify"),
                "-chardev", f"socket,id=c,path={socket}",
                "-device", "vhost-user-blk-device,chardev=c,id=disk0", size=256,
            ) as vm:  # fmt: skip
                vm.console.wait(b"DISK OK")
                connected = sockets(daemon.pid)
                vm.update()
                footprint = vm.footprint()
                for n in range(19):
                    assert vm.update()["status"] == "completed"
                    if n % 10 == 0:
                        vm.console.wait(b"DISK OK", len(vm.console.text))
                vm.console.wait(b"DISK OK", len(vm.console.text))
                assert vm.footprint() == footprint
                assert sockets(daemon.pid) == connected
                shown = {"label": "c", "filename": f"unix:{socket}", "frontend-open": True}
                assert shown in vm.qmp.command("query-chardev")
                vm.qmp.command("stop")  # rings stop with the machine, and start with it
                vm.qmp.command("cont")
                vm.console.wait(b"DISK OK", len(vm.console.text))
                assert not BAD.search(vm.console.text + shell(vm, "dmesg"))
                assert "needs a reset" not in vm.said()
        finally:
            daemon.terminate()


def test_disk_whose_daemon_dies_comes_back_when_the_driver_resets_it(
    debian, tmp_path: Path
) -> None:
    image, socket = tmp_path / "image", tmp_path / "socket"
    make_raw(image)
    command = " ".join(daemon_command(image, "raw", socket)).replace(",", ",,")
    with Vm(
        *debian.arguments("console=ttyS0 quiet"),
        "-child", f"name=disk,command={command},restart=on-failure",
        "-chardev", f"socket,id=c,path={socket}", "-device", "vhost-user-blk-device,chardev=c", size=256,
    ) as vm:  # fmt: skip
        vm.console.wait(b"instar-guest:")
        shell(vm, "echo written | dd of=/dev/vda conv=fsync 2>/dev/null")
        (child,) = vm.children()
        os.kill(child, signal.SIGKILL)
        until(lambda: "needs a reset" in vm.said())
        assert vm.update()["status"] == "completed"  # a dead back end stops its device alone
        until(lambda: vm.children() not in ([], [child]))
        again = "cd /sys/bus/virtio/drivers/virtio_blk; for d in virtio*; do echo $d > unbind; echo $d > bind; done"
        until(lambda: socket_answers(socket))
        assert b"written" in shell(vm, f"{again}; head -c 7 /dev/vda")
        assert vm.update()["status"] == "completed"
        assert b"written" in shell(vm, "echo 3 > /proc/sys/vm/drop_caches; head -c 7 /dev/vda")


@pytest.mark.skipif(os.geteuid() != 0, reason="virtiofsd needs root")
def test_folder_of_virtiofsd_stays_mounted_through_20_updates(debian, tmp_path: Path) -> None:
    share, socket = tmp_path / "share", tmp_path / "socket"
    share.mkdir()
    (share / "big").write_bytes(os.urandom(4 << 20))
    big = hashlib.sha256((share / "big").read_bytes()).hexdigest().encode()
    command = (
        f"{VIRTIOFSD} --socket-path={socket} -o source={share} -o sandbox=chroot -o log_level=err"
    )
    with Vm(
        *debian.arguments("console=ttyS0 quiet"),
        "-child", f"name=fs,command={command}",
        "-chardev", f"socket,id=c,path={socket}", "-device", "vhost-user-fs-device,chardev=c,tag=share", size=256,
    ) as vm:  # fmt: skip
        vm.console.wait(b"instar-guest:")
        shell(vm, "mount -t virtiofs share /mnt && exec 9> /mnt/kept")
        work = "dd if=/dev/urandom of=/mnt/f$n bs=64k count=2 2>/dev/null; (cd /mnt; sha256sum f$n >> sums)"
        shell(
            vm, f"(n=0; while [ ! -e /tmp/off ]; do n=$((n+1)); {work}; done; echo 'OFF''OFF') &"
        )
        (child,) = vm.children()
        vm.update()
        footprint = vm.footprint()
        sums = share / "sums"
        until(sums.exists)
        for n in range(19):
            assert vm.update()["status"] == "completed"
            if n % 5 == 0:
                before = sums.stat().st_size
                until(lambda before=before: sums.stat().st_size > before)
        assert vm.children() == [child]
        assert vm.footprint() == footprint
        start = len(vm.console.text)
        vm.console.send(b"touch /tmp/off\n")
        vm.console.wait(b"OFFOFF", start)
        assert big in shell(vm, "echo open >&9; sha256sum /mnt/big")
        assert (share / "kept").read_bytes() == b"open\n"  # a file that was open all the time
        subprocess.run(["sha256sum", "-c", "--quiet", "sums"], cwd=share, check=True)
        vm.qmp.command("migrate-set-parameters", mode="normal")
        with pytest.raises(QmpError, match="only mode cpr-exec keeps it"):
            vm.qmp.command("migrate", uri=f"file:{tmp_path}/state")
        vm.qmp.command("quit")
        assert vm.wait_exit() == 0
        assert not Path(f"/proc/{child}").exists()  # ended with the machine, and was reaped
