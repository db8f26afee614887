"""Descriptors that a client passes: a disk and a log file of them, and the same numbers after updates."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

from harness import Vm


def add_fd(vm: Vm, fd: int, **arguments) -> dict:
    request = {"execute": "add-fd", "arguments": arguments}
    socket.send_fds(vm.qmp.socket, [json.dumps(request).encode()], [fd])
    return vm.qmp._read()["return"]


def test_passed_descriptors_keep_their_numbers_over_updates(ticker, tmp_path: Path) -> None:
    path = tmp_path / "passed"
    path.write_bytes(b"x" * 512)
    with Vm("-kernel", str(ticker)) as vm, path.open("r+b") as file:
        first = add_fd(vm, file.fileno(), **{"fdset-id": 3, "opaque": "rdwr:passed"})
        second = add_fd(vm, file.fileno())
        assert (first["fdset-id"], second["fdset-id"]) == (3, 0)
        listed = [
            {"fdset-id": 0, "fds": [{"fd": second["fd"]}]},
            {"fdset-id": 3, "fds": [{"fd": first["fd"], "opaque": "rdwr:passed"}]},
        ]
        assert vm.qmp.command("query-fdsets") == listed
        for _ in range(3):
            vm.update()
            assert vm.qmp.command("query-fdsets") == listed
        inside = Path(f"/proc/{vm.process.pid}/fd/{first['fd']}")
        assert inside.readlink() == path
        vm.qmp.command("remove-fd", fdset_id=3)
        reply = vm.qmp.raw("remove-fd", fdset_id=3, fd=22)
        assert reply["error"]["desc"] == "File descriptor named 'fdset-id:3, fd:22' not found"
        assert vm.qmp.command("query-fdsets") == listed[:1]


def test_inherited_descriptors_are_a_disk_and_a_file_and_stay_so(ticker, tmp_path: Path) -> None:
    disk, log = tmp_path / "disk", tmp_path / "log"
    disk.write_bytes(bytes(1 << 20))
    log.write_bytes(b"before\n")
    fds = [os.open(disk, os.O_RDWR), os.open(log, os.O_WRONLY | os.O_APPEND)]
    with Vm(
        "-kernel", str(ticker),
        "-add-fd", f"fd={fds[0]},set=1,opaque=the disk", "-add-fd", f"fd={fds[1]},set=2",
        "-drive", "file=/dev/fdset/1,if=none,id=d0,format=raw", "-device", "virtio-blk-device,drive=d0",
        "-chardev", "file,id=log,path=/dev/fdset/2",
        pass_fds=fds,
    ) as vm:  # fmt: skip
        for fd in fds:
            os.close(fd)
        before = vm.qmp.command("query-fdsets")
        assert [fdset["fdset-id"] for fdset in before] == [1, 2]
        vm.update()
        assert vm.qmp.command("query-fdsets") == before
        (drive,) = vm.qmp.command("query-block")
        assert drive["inserted"]["image"]["virtual-size"] == 1 << 20
        assert log.read_bytes() == b"before\n"
