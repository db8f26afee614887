"""Files that hold a guest's memory or its disk: one program has them at a time, and nobody saves a state over them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness import PATIENCE, QmpError, Vm

REFUSED = 3  # exit status: the host refused something


class Files:
    """A machine whose memory lies in a file, and the words that make it."""

    def __init__(self, folder: Path, ticker: Path) -> None:
        self.memory, self.disk, self.state = folder / "ram", folder / "disk", folder / "vm.state"
        self.disk.write_bytes(bytes(1 << 20))
        self.words = (
            "-kernel", str(ticker), "-object",
            f"memory-backend-file,id=ramf,size=64M,share=on,mem-path={self.memory}",
            "-machine", "memory-backend=ramf",
        )  # fmt: skip

    def start(self, *extra: str) -> Vm:
        vm = Vm(*self.words, *extra)
        vm.console.wait(b"tick 1")
        return vm

    def refused(self, vm: Vm, *extra: str) -> tuple[int, str]:
        """Start another program on the memory of ``vm``; returns its exit status and what it says."""
        own = [word for word in vm.argv if "/qmp" not in word and "/serial" not in word]
        words = [w for w in own if w not in ("-qmp", "-chardev", "-serial", "chardev:con")]
        done = subprocess.run(
            [*words, *extra], capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        return done.returncode, done.stderr


@pytest.fixture
def files(tmp_path: Path, ticker: Path) -> Files:
    return Files(tmp_path, ticker)


def save(vm: Vm, path: Path, mode: str) -> None:
    vm.qmp.command("migrate-set-parameters", mode=mode)
    capabilities = [{"capability": "events", "state": True}]
    vm.qmp.command("migrate-set-capabilities", capabilities=capabilities)
    vm.qmp.command("migrate", uri=f"file:{path}")
    vm.qmp.wait_event("MIGRATION", status="completed")


def runs(vm: Vm) -> bool:
    vm.console.wait(b"tick", len(vm.console.text))
    return vm.qmp.command("query-status")["running"]


def test_memory_of_a_running_guest_is_not_taken_by_another_program(files: Files) -> None:
    with files.start() as vm:
        status, said = files.refused(vm)
        assert (status, f"another program has {files.memory}" in said) == (REFUSED, True)
        vm.update()  # the lock crosses with the descriptor
        assert files.refused(vm)[0] == REFUSED
        assert runs(vm)


@pytest.mark.parametrize("mode", ["normal", "cpr-reboot"])
def test_memory_that_was_copied_belongs_to_who_saved_it_until_that_ends(
    files: Files, mode: str
) -> None:
    with files.start() as vm:
        save(vm, files.state, mode)
        status, said = files.refused(vm, "-incoming", f"file:{files.state}")
        assert (status, f"another program has {files.memory}" in said) == (1, True)
        vm.qmp.command("cont")
        assert runs(vm)
        save(vm, files.state, mode)
        vm.qmp.command("quit")
        vm.wait_exit()
    with files.start("-incoming", f"file:{files.state}") as vm:
        assert runs(vm)


@pytest.mark.parametrize("mode", ["normal", "cpr-reboot", "cpr-exec"])
def test_state_is_not_written_over_what_a_machine_uses(files: Files, mode: str) -> None:
    words = ("-drive", f"file={files.disk},if=virtio,format=raw")
    with files.start(*words) as vm:
        command = [*vm.argv, "-incoming", "defer"]
        vm.qmp.command("migrate-set-parameters", **{"mode": mode, "cpr-exec-command": command})
        for path in (files.memory, files.disk):
            before = path.stat().st_size
            with pytest.raises(QmpError, match=f"{path}: a machine uses it"):
                vm.qmp.command("migrate", uri=f"file:{path}")
            assert path.stat().st_size == before
        assert runs(vm)
    assert files.disk.read_bytes() == bytes(1 << 20)
