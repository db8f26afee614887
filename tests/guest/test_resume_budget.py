"""The start of a new program stays short: how many modules it imports before the guest runs again, and how large.

Counts, not times: they are the same on every machine. Who needs more raises the budget here, and says why in
docs/reference/pause.md, where the times are.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import Vm

KIB = 1024


def disk(folder: Path, name: str, *limits: str) -> list[str]:
    """Words for a disk of 1 MiB."""
    path = folder / f"{name}.raw"
    path.write_bytes(bytes(1 << 20))
    return [
        *("-drive", ",".join(["if=none", f"id={name}", f"file={path}", "format=raw", *limits])),
        *("-device", f"virtio-blk-device,drive={name}"),
    ]


def small(folder: Path) -> list[str]:
    """A disk and entropy; serial port and monitor are sockets."""
    return [*disk(folder, "d0"), "-device", "virtio-rng-device"]


def large(folder: Path) -> list[str]:
    """Every device that needs no other program on the host, several back ends, several kinds of character devices."""
    return [
        *small(folder),
        *disk(folder, "d1", "throttling.bps-total=1000000"),
        *("-chardev", f"file,id=f,path={folder}/log", "-chardev", "ringbuf,id=r,size=4096"),
        *("-device", "virtio-serial-device", "-device", "virtconsole,chardev=f"),
        *("-device", "virtserialport,chardev=r,name=port"),
        *("-netdev", f"stream,id=n,server=on,addr.type=unix,addr.path={folder}/net"),
        *("-device", "virtio-net-device,netdev=n", "-device", "virtio-balloon-device"),
        *("-device", f"virtio-vsock-device,guest-cid=3,uds-path={folder}/vsock"),
        *("-child", "name=c,command=sleep 1000"),
    ]


@pytest.mark.parametrize(
    ("words", "modules", "size"), [(small, 138, 1150 * KIB), (large, 168, 1400 * KIB)]
)
def test_new_program_imports_no_more_than_its_budget(
    ticker: Path, tmp_path: Path, words, modules: int, size: int
) -> None:
    with Vm("-kernel", str(ticker), *words(tmp_path)) as vm:
        vm.console.wait(b"tick 1")
        report = vm.update()["x-update"]
        assert report["status"] == "completed"
        assert 0 < report["modules"] <= modules
        assert 0 < report["module-bytes"] <= size
