"""A real machine's state: seen by the tool, and carried through older versions back into a machine that runs on."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from harness import PROGRAM, Vm
from instar.cli import inspect
from instar.cpr.fds import Fds
from instar.cpr.state import APART, load, registry
from instar.cpr.stream import Reader
from instar.cpr.writer import Writer
from instar.image.ticker import STATUS_ADDRESS, STATUS_SIZE, read_status
from instar.migration.saving import write_sections

NETWORK = (
    "-netdev",
    "stream,id=n0,server=on,addr.type=unix,addr.path={}",
    "-device",
    "virtio-net-device,netdev=n0,id=nic",
)


def tool(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(PROGRAM.with_name("instar")), "inspect", *words],
        capture_output=True,
        text=True,
        check=False,
    )


def save_to(vm: Vm, path: Path) -> None:
    vm.qmp.command("migrate", uri=f"file:{path}")
    while vm.qmp.command("query-status")["status"] != "postmigrate":
        pass


class Saved:
    """An object of a state file, as the machine would give it."""

    def __init__(self, section, record) -> None:
        self.state_id = section.id
        self.state_class = registry()[section.state]
        self._live = load(self.state_class, section.version, record)

    def save_state(self):
        return self._live


def through_older_versions(source: Path, target: Path) -> dict[str, int]:
    """Write a state again in the oldest versions, with a field of one to come; return the states that are older now."""
    assert inspect.DECLARING
    fd, out = os.open(source, os.O_RDONLY), os.open(target, os.O_WRONLY | os.O_CREAT)
    reader = Reader(fd)
    things = [Saved(s, reader.record(s.id)) for s in reader.manifest.objects.values()]
    memories = {
        bulk.name: memoryview(bytearray(bulk.size)) for bulk in reader.manifest.bulk.values()
    }
    reader.load_bulk(memories)
    reader.finish()
    (plic,) = (thing.save_state() for thing in things if thing.state_id == "plic")
    plic.state_kept = {"glow": [1, 2, 3]}
    writer = Writer(out, program="0.0.1", mode="normal")
    write_sections(
        writer, things, Fds(), {name: cls.state_oldest for name, cls in registry().items()}
    )
    for name, view in memories.items():
        writer.add_bulk(name, view)
    writer.finish()
    os.close(fd)
    os.close(out)
    return {t.state_class.state_name: 1 for t in things if t.state_class.state_version > 1}


@pytest.fixture
def arguments(ticker: Path, tmp_path: Path) -> tuple[str, ...]:
    network = [word.format(tmp_path / "net") for word in NETWORK]
    return ("-kernel", str(ticker), *network)


def test_state_of_a_machine_goes_through_older_versions_and_back_ten_times(
    arguments, tmp_path
) -> None:
    with Vm(*arguments) as vm:
        vm.console.wait(b"tick 3")
        save_to(vm, tmp_path / "0")
        counter = read_status(vm.guest_memory(STATUS_ADDRESS, STATUS_SIZE)).counter
    for turn in range(10):
        older = through_older_versions(tmp_path / f"{turn}", tmp_path / "old")
        assert older["virtio-net"] == 1
        with Vm(*arguments, "-incoming", f"file:{tmp_path}/old") as vm:
            vm.console.wait(b"tick")
            save_to(vm, tmp_path / f"{turn + 1}")
            status = read_status(vm.guest_memory(STATUS_ADDRESS, STATUS_SIZE))
        assert (status.counter > counter, status.errors) == (True, 0)
        counter = status.counter
        (tmp_path / f"{turn}").unlink()
    report = inspect.report_on(str(tmp_path / "10"), only="plic")
    assert report["objects"][0]["kept"] == ["glow"]


def test_tool_reads_all_of_a_machine_s_state_and_names_what_is_damaged(
    arguments, tmp_path
) -> None:
    path = tmp_path / "vm.state"
    with Vm(*arguments) as vm:
        vm.console.wait(b"tick 1")
        save_to(vm, path)
    done = tool(str(path), "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert {"plic", "ram", "machine"} <= {made["id"] for made in report["objects"]}
    assert [made["id"] for made in report["objects"] if not made["reads"]] == []
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"damage")
    done = tool(str(path))
    assert done.returncode == 4
    assert done.stderr.startswith(f"instar: {path}: chunk ")
    assert APART not in done.stdout
