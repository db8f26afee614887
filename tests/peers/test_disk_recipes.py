"""The recipes of docs/reference/disks.md, word for word."""

from __future__ import annotations

import hashlib
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from test_vhost_user import make_qcow2, make_raw, shell, until

from harness import Vm

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "disks.md"
DATA = b"instar\n" * 10000


def words(name: str) -> list[str]:
    """The words of a code block of the page."""
    (block,) = re.findall(rf"^```sh {name}\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return shlex.split(block.replace("\\\n", ""))


def use_disk(debian, folder: Path, recipe: str) -> None:
    """Let a guest write, be updated, and find what it wrote."""
    with Vm(
        *debian.arguments("console=ttyS0 quiet"), *words(recipe), size=256, cwd=folder
    ) as vm:  # fmt: skip
        vm.console.wait(b"instar-guest:")
        shell(
            vm, f"yes instar | head -c {len(DATA)} | dd of=/dev/vda bs=64k conv=fsync 2>/dev/null"
        )
        for _ in range(2):
            assert vm.update()["status"] == "completed"
        back = f"echo 3 >/proc/sys/vm/drop_caches; head -c {len(DATA)} /dev/vda | sha256sum"
        assert hashlib.sha256(DATA).hexdigest().encode() in shell(vm, back)
        assert len(vm.children()) == 1
        vm.qmp.command("quit")
        assert vm.wait_exit() == 0


def test_recipe_for_qcow2_works(debian, tmp_path: Path) -> None:
    image = tmp_path / "disk.qcow2"
    make_qcow2(image)
    use_disk(debian, tmp_path, "recipe-qcow2")
    data = image.read_bytes()
    assert data[:4] == b"QFI\xfb"
    assert DATA[:4096] in data


def test_recipe_for_nbd_works(debian, tmp_path: Path) -> None:
    image = tmp_path / "disk.raw"
    make_raw(image)
    with subprocess.Popen(words("server-nbd"), cwd=tmp_path) as server:
        try:
            until((tmp_path / "nbd.sock").exists)
            use_disk(debian, tmp_path, "recipe-nbd")
        finally:
            server.terminate()
    assert image.read_bytes()[: len(DATA)] == DATA


@pytest.mark.parametrize("recipe", ["recipe-qcow2", "recipe-nbd"])
def test_recipe_shows_one_disk(recipe: str) -> None:
    assert words(recipe)[::2] == ["-child", "-chardev", "-device"]
