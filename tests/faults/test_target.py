"""What an update executes: pinned, known by its digest, on the list, and found executable before the guest stops."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness import PROGRAM, QmpError, Vm

PACKAGE = Path(__file__).parents[2] / "src" / "instar"


@pytest.fixture
def vm(ticker: Path):
    with Vm("-kernel", str(ticker)) as machine:
        machine.console.wait(b"tick 1")
        yield machine


def copy(folder: Path, name: str = "instar-system") -> Path:
    """Another file with this very program."""
    path = folder / name
    shutil.copy(PROGRAM, path)
    return path


def refused(vm: Vm, **options) -> str:
    """Try to update; returns why it was not done, and asserts that the guest never stopped."""
    uri = vm.prepare_update(**options)
    try:
        vm.qmp.command("migrate", uri=uri)
        vm.qmp.wait_event("MIGRATION", status="failed")
        error = vm.qmp.command("query-migrate")["error-desc"]
    except QmpError as e:
        error = str(e)
    assert [event for event in vm.qmp.events if event["event"] == "STOP"] == []
    assert vm.qmp.command("query-status")["running"] is True
    assert vm.children() == []
    vm.console.wait(b"tick", len(vm.console.text))
    return error


def expected_digest(program: Path) -> str:
    """The rule of docs/reference/security.md, written down a second time."""

    def line(path: Path, name: str) -> str:
        return f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {name}\n"

    files = [path for path in PACKAGE.rglob("*") if path.suffix in {".py", ".so"}]
    names = sorted(str(path.relative_to(PACKAGE)) for path in files)
    text = line(program, "program") + "".join(line(PACKAGE / name, name) for name in names)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def test_digest_of_launcher_and_release_is_shown_and_can_be_required(vm: Vm) -> None:
    footprint = vm.footprint()
    digest = expected_digest(PROGRAM)
    assert vm.update()["x-update"]["digest"] == digest
    vm.qmp.command("migrate-set-parameters", **{"cpr-exec-digest": digest.removeprefix("sha256:")})
    assert vm.update()["x-update"]["digest"] == digest
    assert vm.qmp.command("query-migrate-parameters")["cpr-exec-digest"] == digest
    assert len(vm.footprint()["fds"]) == len(footprint["fds"])


def test_digest_that_is_another_one_refuses_and_names_both(vm: Vm, tmp_path: Path) -> None:
    wanted = "sha256:" + "0" * 64
    vm.qmp.command("migrate-set-parameters", **{"cpr-exec-digest": wanted})
    program = copy(tmp_path)
    error = refused(vm, program=program)
    assert error == (
        f"{program} is {expected_digest(program)}, but cpr-exec-digest is {wanted}; "
        "the guest was not stopped"
    )
    vm.qmp.command("migrate-set-parameters", **{"cpr-exec-digest": ""})
    vm.update()


def test_digest_of_a_script_that_no_rehearsal_looks_into_is_not_known(vm: Vm) -> None:
    off = {"x-update-rehearsal": False, "cpr-exec-digest": "0" * 64}
    vm.qmp.command("migrate-set-parameters", **off)
    assert "has no digest, as no rehearsal" in refused(vm)


def test_digest_that_is_none_is_refused_at_once(vm: Vm) -> None:
    with pytest.raises(QmpError, match="64 hexadecimal digits"):
        vm.qmp.command("migrate-set-parameters", **{"cpr-exec-digest": "deadbeef"})


def test_list_of_programs_lets_its_own_through_and_crosses(ticker: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    other, listed = copy(tmp_path), copy(tmp_path / "new")
    allow = ("-exec-allow", f"{PROGRAM},{tmp_path}/new")
    with Vm("-kernel", str(ticker), *allow) as vm:
        vm.console.wait(b"tick 1")
        vm.update(program=listed)
        assert "is not what -exec-allow names" in refused(vm, program=other)
        # A monitor client cannot leave it away: not with a rehearsal,
        shorter = [word for word in vm.argv if word not in allow]
        command = [*shorter, "-incoming", "memfd:"]
        error = refused(vm, command=command, uri="memfd:")
        assert "-exec-allow: the command line allows anything" in error
        # nor without.
        vm.qmp.command("migrate-set-parameters", **{"x-update-rehearsal": False})
        vm.update(command=command, uri="memfd:")
        vm.console.wait(b"tick", len(vm.console.text))
        assert "is not what -exec-allow names" in refused(vm, program=other)


def test_program_that_somebody_writes_to_is_refused_while_the_guest_runs(
    vm: Vm, tmp_path: Path
) -> None:
    shutil.copy(os.path.realpath(sys.executable), tmp_path / "busy")
    with open(tmp_path / "busy", "r+b"):
        assert "Text file busy; this was tried in a child" in refused(
            vm, program=tmp_path / "busy"
        )


def test_program_of_another_architecture_is_refused_at_once(vm: Vm, tmp_path: Path) -> None:
    head = bytearray(Path(sys.executable).read_bytes()[:4096])
    head[18:20] = (8).to_bytes(2, "little")  # MIPS
    path = tmp_path / "foreign"
    path.write_bytes(head)
    path.chmod(0o755)
    assert refused(vm, program=path) == f"execvp {path} failed: Exec format error"


def test_program_on_a_noexec_file_system_is_refused(ticker: Path, tmp_path: Path) -> None:
    script = f'mount -t tmpfs -o noexec none {tmp_path} && cp {PROGRAM} {tmp_path}/x && exec "$@"'
    wrapper = ("unshare", "-rm", "--", "sh", "-c", script, "sh")
    if subprocess.run([*wrapper, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no namespaces for this user here")
    with Vm("-kernel", str(ticker), wrapper=wrapper) as vm:
        vm.console.wait(b"tick 1")
        assert refused(vm, program=tmp_path / "x") == (
            f"execvp {tmp_path}/x failed: Permission denied"
        )
