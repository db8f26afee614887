"""A host that has no room for a guest's write: the machine waits, is updated meanwhile, and nothing is lost."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

import pytest

from harness import Vm

TMPFS = (
    "unshare", "-Urm", "sh", "-c",
    'mount -t tmpfs -o size=1M t "$0" && cd "$0" && truncate -s 8M disk && head -c 512K /dev/zero >full && exec "$@"',
)  # fmt: skip


def drive(disk: Path, *more: str) -> list[str]:
    options = ",".join([f"file={disk},if=none,id=d0,format=raw", *more])
    return ["-drive", options, "-device", "virtio-blk-device,drive=d0"]


def type_line(vm: Vm, line: str) -> int:
    vm.console.pull_all()
    start = len(vm.console.text)
    vm.console.send(line.encode() + b"\n")
    return start


def error_event(vm: Vm) -> dict:
    data = vm.qmp.wait_event("BLOCK_IO_ERROR")["data"]
    vm.qmp.wait_event("STOP")
    assert vm.qmp.command("query-status")["status"] == "io-error"
    return data


WRITE = (
    "dd if=/bin/busybox of=/dev/vda bs=512K count=2 conv=fsync 2>/dev/null; echo wrote''-$?;"
    " cmp -n 786432 /bin/busybox /dev/vda && echo sa''me"
)


def test_full_host_stops_the_machine_until_there_is_room_again_across_updates(
    debian, tmp_path: Path
) -> None:
    place = tmp_path / "full"
    place.mkdir()
    with Vm(
        *debian.arguments("console=ttyS0 quiet"), *drive(place / "disk"), size=192,
        wrapper=(*TMPFS, str(place)),
    ) as vm:  # fmt: skip
        vm.console.wait(b"instar-guest:")
        start = type_line(vm, WRITE)
        data = error_event(vm)
        assert data == {
            "device": "d0", "node-name": "d0", "operation": "write", "action": "stop", "nospace": True,
            "reason": os.strerror(errno.ENOSPC),
        }  # fmt: skip
        vm.qmp.command("cont")  # nothing has changed at the host: it stops again
        assert error_event(vm)["nospace"]
        assert vm.update()["status"] == "completed"
        assert vm.qmp.command("query-status")["status"] == "io-error"
        os.unlink(f"/proc/{vm.process.pid}/root{place}/full")
        vm.qmp.command("cont")
        vm.console.wait(b"wrote-0", start)
        vm.console.wait(b"same", start)


@pytest.mark.parametrize("rule", ["stop", "report", "ignore"])
def test_write_beyond_the_hosts_file_size_limit_follows_werror(
    debian, tmp_path: Path, rule: str
) -> None:
    disk = tmp_path / "disk.raw"
    disk.touch()
    os.truncate(disk, 8 << 20)
    with Vm(
        *debian.arguments("console=ttyS0 quiet"), *drive(disk, f"werror={rule}"), size=192
    ) as vm:
        vm.console.wait(b"instar-guest:")
        pid = vm.process.pid
        before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (256 << 10, before[1]))
        start = type_line(vm, WRITE)
        data = vm.qmp.wait_event("BLOCK_IO_ERROR")["data"]
        assert (data["action"], data["nospace"]) == (rule, False)
        for event in {"stop": ["STOP"], "report": [], "ignore": []}[rule]:
            vm.qmp.wait_event(event)  # before cont: an error is told first, then the machine stops
        outcome = {"stop": b"wrote-0", "report": b"wrote-1", "ignore": b"wrote-0"}[rule]
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)
        vm.qmp.command("cont")
        vm.console.wait(outcome, start)
