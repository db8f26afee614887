"""A state that is torn, damaged, old or another machine's is refused by name of what is wrong; the guest goes on."""

from __future__ import annotations

import fcntl
import os
import shutil
import zlib
from pathlib import Path

import pytest
from test_way_back import fail

from faulty import faulty
from harness import Vm
from instar.cpr import adopted
from instar.cpr.adopted import FORMAT, HEADER, MAGIC
from instar.cpr.encoding import encode
from instar.cpr.errors import CprError
from instar.cpr.fds import Fds
from instar.cpr.stream import Reader

ALL_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
STEP = 7  # coprime to all sizes of fields: each kind of byte is hit


@pytest.fixture(scope="module")
def state_file(ticker: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state that a real update left behind."""
    path = tmp_path_factory.mktemp("state") / "vm.state"
    with Vm("-kernel", str(ticker)) as vm:
        vm.console.wait(b"tick 1")
        vm.update()
        shutil.copy(vm.folder / "vm.state", path)
    return path


def read_all(data: bytes) -> None:
    fd = os.memfd_create("state")
    try:
        os.write(fd, data)
        reader = Reader(fd)
        for ident in reader.manifest.objects:
            reader.record(ident)
        reader.finish()
    finally:
        os.close(fd)


def test_every_region_of_a_real_state_is_covered_by_a_checksum(state_file: Path) -> None:
    data = state_file.read_bytes()
    read_all(data)
    for at in range(0, len(data), STEP):
        damaged = bytearray(data)
        damaged[at] ^= 0x10
        with pytest.raises(CprError) as caught:
            read_all(bytes(damaged))
        assert ":" in str(caught.value), at  # the object, then what is wrong with it


def test_every_byte_of_a_real_table_is_covered_by_a_checksum() -> None:
    table = {
        "fds": Fds().to_record(),
        "info": {"nonce": "0"},
        "program": "p",
        "path": "/p",
        "argv": ["p"],
    }
    body = encode(table)
    data = HEADER.pack(MAGIC, FORMAT, len(body), zlib.crc32(body)) + body
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 0x10
        fd = os.memfd_create("table", os.MFD_ALLOW_SEALING)
        os.write(fd, damaged)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, ALL_SEALS)
        with pytest.raises(CprError, match="nothing was adopted"):
            adopted.adopt({"INSTAR_CPR_STATE": str(fd)})
        os.close(fd)


FIND = (
    "import os, shutil\n"
    "path = next(w for w in sys.argv if w.startswith('file:'))[5:]\n"
    "if 'INSTAR_CPR_STATE' in os.environ:\n "  # the update, not its rehearsal
)
FLIP = "f = open(path, 'r+b'); f.seek(-200, 2); b = f.read(1); f.seek(-1, 1); f.write(bytes([b[0] ^ 1])); f.close()\n"
DAMAGE = {
    "torn": ("os.truncate(path, os.stat(path).st_size // 2)\n", "torn"),
    "empty": ("os.truncate(path, 0)\n", "torn"),
    "flipped": (FLIP, "checksum"),
    "old": ("shutil.copy(path + '.before', path)\n", "nonce"),
    "gone": ("os.unlink(path)\n", "No such file"),
    "zeros": ("f = open(path, 'r+b'); f.write(bytes(4096)); f.close()\n", "magic"),
}


def test_state_of_another_vm_brings_the_old_program_back_and_says_whose_it_was(
    ticker: Path, tmp_path: Path, state_file: Path
) -> None:
    with Vm("-kernel", str(ticker), "-name", "web") as vm:
        vm.console.wait(b"tick 1")
        vm.update()
        mine = identity(vm.folder / "vm.state")
        error = fail(vm, faulty(tmp_path, FIND + f" shutil.copy({str(state_file)!r}, path)\n"))
        theirs = identity(state_file)["id"]
        assert f"the state is of VM without a name (no -uuid, id {theirs})" in error
        assert f"the descriptors are of VM web (no -uuid, id {mine['id']})" in error
        assert vm.process.poll() is None
        vm.console.wait(b"tick", len(vm.console.text))
        vm.update()
        assert identity(vm.folder / "vm.state") == mine


def identity(path: Path) -> dict:
    with path.open("rb") as file:
        return Reader(file.fileno()).manifest.info["vm"]


@pytest.mark.parametrize("damage", DAMAGE)
def test_file_that_is_damaged_on_its_way_brings_the_old_program_back(
    ticker: Path, tmp_path: Path, damage: str
) -> None:
    code, text = DAMAGE[damage]
    with Vm("-kernel", str(ticker)) as vm:
        vm.console.wait(b"tick 1")
        vm.update()
        shutil.copy(vm.folder / "vm.state", vm.folder / "vm.state.before")
        error = fail(vm, faulty(tmp_path, FIND + code))
        assert text in error
        assert vm.process.poll() is None
        vm.console.wait(b"tick", len(vm.console.text))
        vm.update()
