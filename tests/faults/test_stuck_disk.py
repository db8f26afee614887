"""A host that never finishes a disk request: stops and updates do not wait for it for ever."""

from __future__ import annotations

import time
from _thread import allocate_lock
from pathlib import Path

import pytest

from harness import PATIENCE, PROGRAM, Vm
from instar.block import file_io
from instar.block.raw import BlockSpec, open_block
from instar.block.request import BlockRequest
from instar.errors import HostError
from instar.testing.fakes import FakeFds

# The program, with a host whose writes take as long as a file is there.
STUCK = """
import os, time
from instar.block import file_io
perform = file_io.perform
def stuck(fd, request):
    while request.op == "write" and os.path.exists({gate!r}):
        open({gate!r} + "-seen", "w").close()
        time.sleep(0.01)
    return perform(fd, request)
file_io.perform = stuck
from instar.cli.start import main
"""
WRITE = b"dd if=/bin/busybox of=/dev/vda bs=64K count=1 conv=fsync 2>/dev/null; echo wrote''-$?\n"


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    return tmp_path / "gate"


@pytest.fixture
def program(tmp_path: Path, gate: Path) -> Path:
    made = tmp_path / "instar-system"
    text = PROGRAM.read_text().replace(
        "from instar.cli.start import main\n", STUCK.format(gate=str(gate))
    )
    made.write_text(text)
    made.chmod(0o755)
    return made


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    made = tmp_path / "disk.img"
    made.write_bytes(bytes(1 << 20))
    return made


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_update_with_a_disk_that_hangs_is_refused_and_the_guest_goes_on(
    debian, program: Path, gate: Path, disk: Path
) -> None:
    with Vm(
        *debian.arguments("console=ttyS0 quiet"), "-drive", f"file={disk},if=none,id=d0,format=raw",
        "-device", "virtio-blk-device,drive=d0,drain-ms=200", size=192, program=program,
    ) as vm:  # fmt: skip
        vm.console.wait(b"instar-guest:")
        gate.touch()
        vm.console.send(WRITE)
        wait_for(gate.with_name("gate-seen"))
        uri = vm.prepare_update()
        # A rehearsal takes its time, which is not what is looked at here.
        vm.qmp.command("migrate-set-parameters", **{"x-update-rehearsal": False})
        vm.qmp.command("migrate", uri=uri)
        vm.qmp.wait_event("MIGRATION", status="failed")
        why = vm.qmp.command("query-migrate")["error-desc"]
        assert why.startswith("disk d0: the host did not finish 1 requests on")
        assert why.endswith("in 200 ms")
        assert vm.qmp.command("query-status")["status"] == "running"
        gate.unlink()
        vm.console.wait(b"wrote-0")
        assert vm.update()["status"] == "completed"
        assert disk.read_bytes()[:4] == b"\x7fELF"


def test_drain_tells_what_hangs_and_nothing_once_it_is_done(disk: Path, monkeypatch) -> None:
    hangs, answers = allocate_lock(), []
    hangs.acquire()
    monkeypatch.setattr(file_io, "perform", lambda _fd, _request: int(not hangs.acquire()))
    block = open_block(BlockSpec("d0", str(disk)), FakeFds(), lambda _call: None)
    block.drain_ms = 1
    block.submit(BlockRequest("flush", 0, 0, [], answers.append))
    said = f"disk d0: the host did not finish 1 requests on {disk} in 1 ms"
    assert (block.drain(), answers) == (said, [])
    with pytest.raises(HostError, match="did not finish 1 requests"):
        block.resize(512)
    hangs.release()
    block.finish()
    assert (block.drain(), answers, block.size) == ("", [0], 1 << 20)
    block.close()
