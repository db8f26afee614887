"""The start of a new program stays short: how many modules it imports before the guest runs again, and how large.

Counts, not times: they are the same on every machine. Who needs more raises the budget here, and says why in
docs/reference/pause.md, where the times are.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from harness import PROGRAM, Vm

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
    ("words", "modules", "size"), [(small, 128, 1030 * KIB), (large, 156, 1280 * KIB)]
)
def test_new_program_imports_no_more_than_its_budget(
    ticker: Path, tmp_path: Path, words, modules: int, size: int
) -> None:
    with Vm("-kernel", str(ticker), *words(tmp_path)) as vm:
        vm.console.wait(b"tick 1")
        report = vm.update()["x-update"]
        assert report["status"] == "completed"
        assert report["prepared"] is True
        assert 0 < report["modules"] <= modules
        assert 0 < report["module-bytes"] <= size


def test_start_without_a_rehearsal_is_not_prepared(ticker: Path) -> None:
    with Vm("-kernel", str(ticker)) as vm:
        vm.console.wait(b"tick 1")
        vm.qmp.command("migrate-set-parameters", x_update_rehearsal=False)
        report = vm.update()["x-update"]
        assert (report["status"], report["prepared"]) == ("completed", False)


def test_start_with_something_else_than_what_was_prepared_is_an_ordinary_one(
    ticker: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "program"
    text = PROGRAM.read_text()
    damaged.write_text(
        text.replace(
            "import sys\n",
            "import os, sys\n"
            "if 'INSTAR_CPR_PREPARED' in os.environ:\n"
            "    other = os.memfd_create('other')\n"
            "    os.write(other, bytes(range(256)) * 16)\n"
            "    os.environ['INSTAR_CPR_PREPARED'] = str(other)\n",
            1,
        )
    )
    damaged.chmod(0o755)
    with Vm("-kernel", str(ticker)) as vm:
        vm.console.wait(b"tick 1")
        report = vm.update(program=damaged)["x-update"]
        assert (report["status"], report["prepared"]) == ("completed", False)
        assert vm.update()["x-update"]["prepared"] is True
