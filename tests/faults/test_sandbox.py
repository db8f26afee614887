"""``-sandbox on``: what it forbids, what goes on working, and that nothing piles up over updates."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness import PROGRAM, QmpError, Vm
from instar.sandbox.landlock import abi

MAIN = "from instar.cli.start import main\nsys.exit(main())\n"
UPDATES = 50  # more than three times the layers that Landlock has
# Puts as many layers on top as there is room for, in a child, and says how many: 16 less those that there are.
COUNT = """
import os, sys
pid = os.fork()
if not pid:
    from instar.sandbox import landlock
    count = 0
    while count < 20:
        layer = landlock.Layer()
        layer.allow(["/"], layer.handled)
        try:
            layer.enforce()
        except OSError:
            break
        count += 1
    os._exit(count)
sys.stderr.write(f"layers free: {os.WEXITSTATUS(os.waitpid(pid, 0)[1])}\\n")
"""

needs_landlock = pytest.mark.skipif(abi() < 1, reason="this kernel has no Landlock")


def program(folder: Path, patch: str, name: str = "instar-other") -> Path:
    """Write a version of the program that does something first."""
    lines = PROGRAM.read_text().splitlines(keepends=True)
    start = next(n for n, line in enumerate(lines) if line.startswith("from instar"))
    path = folder / name
    path.write_text("".join(lines[:start]) + patch + MAIN)
    path.chmod(0o755)
    return path


def rows(pid: int) -> dict[str, str]:
    """What the kernel says about a process."""
    text = Path(f"/proc/{pid}/status").read_text()
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def refused(vm: Vm, **options) -> str:
    uri = vm.prepare_update(**options)
    try:
        vm.qmp.command("migrate", uri=uri)
        vm.qmp.wait_event("MIGRATION", status="failed")
        error = vm.qmp.command("query-migrate")["error-desc"]
    except QmpError as e:
        error = str(e)
    assert vm.qmp.command("query-status")["running"] is True
    assert vm.children() == []
    vm.console.wait(b"tick", len(vm.console.text))
    return error


@pytest.fixture
def vm(ticker: Path, tmp_path: Path):
    (tmp_path / "releases").mkdir()
    options = ("-sandbox", f"on,write={tmp_path}", "-exec-allow", f"{PROGRAM},{tmp_path}/releases")
    with Vm("-kernel", str(ticker), *options) as machine:
        machine.console.wait(b"tick 1")
        yield machine


@needs_landlock
def test_sandbox_stays_as_it_is_over_updates(vm: Vm, tmp_path: Path) -> None:
    before = rows(vm.process.pid)
    assert (before["Seccomp"], before["NoNewPrivs"]) == ("2", "1")
    counting = program(tmp_path / "releases", COUNT)
    vm.update(uri="memfd:", program=PROGRAM)
    footprint = vm.footprint()
    quick = {"x-update-rehearsal": False, "x-update-guardian": False}
    vm.qmp.command("migrate-set-parameters", **quick)
    for _ in range(UPDATES):
        vm.update(uri="memfd:", program=PROGRAM)
    vm.update(uri="memfd:", program=counting)
    after = rows(vm.process.pid)
    assert after["Seccomp_filters"] == before["Seccomp_filters"]
    assert "layers free: 15" in vm.said()
    vm.update(uri="memfd:", program=PROGRAM)
    assert vm.footprint() == footprint
    shown = vm.qmp.command("query-sandbox")
    assert (shown["enabled"], shown["write"]) == (True, [str(tmp_path)])
    vm.console.wait(b"tick", len(vm.console.text))


@needs_landlock
def test_sandbox_refuses_what_no_option_named_and_says_so(vm: Vm, tmp_path: Path) -> None:
    for argument in ("file,id=x,path=/var/tmp/instar-no", "pty,id=x"):
        kind, _, rest = argument.partition(",")
        backend = {"type": kind, "data": {"out": "/var/tmp/instar-no"} if "path" in rest else {}}
        with pytest.raises(QmpError, match="-sandbox on leaves this program only"):
            vm.qmp.command("chardev-add", id="x", backend=backend)
    elsewhere = refused(vm, uri="file:/var/tmp/instar-no")
    assert "-sandbox on leaves this program only what its command line names" in elsewhere
    vm.update(uri=f"file:{tmp_path}/state", program=PROGRAM)


@needs_landlock
def test_sandbox_lets_execute_only_what_is_allowed(vm: Vm, tmp_path: Path) -> None:
    assert "is not what -exec-allow names" in refused(vm, program=program(tmp_path, ""))
    vm.update(uri="memfd:", program=program(tmp_path / "releases", ""))


@needs_landlock
def test_sandbox_without_a_list_lets_execute_only_this_program(
    ticker: Path, tmp_path: Path
) -> None:
    with Vm("-kernel", str(ticker), "-sandbox", "on") as vm:
        vm.console.wait(b"tick 1")
        error = refused(vm, program=program(tmp_path, ""), uri="memfd:")
        assert error.startswith(f"execvp {tmp_path}/instar-other failed: Permission denied")
        assert "-sandbox on leaves this program only" in error
        vm.update(uri="memfd:")


@needs_landlock
def test_sandbox_lets_the_way_back_and_the_guardian_work(vm: Vm, tmp_path: Path) -> None:
    go = "import instar.migration.incoming as i\n"
    raises = go + "def bad(*a): raise RuntimeError('boom')\ni.Incoming._go = bad\n"
    assert "boom" in refused(vm, program=program(tmp_path / "releases", raises), uri="memfd:")
    vm.update(uri="memfd:", program=PROGRAM)
    ends = go + "import os\ndef bad(*a): os._exit(0)\ni.Incoming._go = bad\n"
    uri = vm.prepare_update(program=program(tmp_path / "releases", ends), uri="memfd:")
    vm.qmp.command("migrate", uri=uri)
    vm.qmp.wait_event("MIGRATION", status="failed")
    vm.process.wait(60)
    vm.update(uri="memfd:", program=PROGRAM)
    assert vm.qmp.command("query-sandbox")["seccomp-filters"] >= 1
    vm.console.wait(b"tick", len(vm.console.text))
    vm.qmp.command("quit")


@needs_landlock
def test_sandbox_cannot_be_left_nor_entered_by_an_update(vm: Vm, ticker: Path) -> None:
    at = vm.argv.index("-sandbox")
    without = [*vm.argv[:at], *vm.argv[at + 2 :], "-incoming", "memfd:"]
    assert "-sandbox: enabled is on" in refused(vm, command=without, uri="memfd:")
    vm.qmp.command("migrate-set-parameters", **{"x-update-rehearsal": False})
    vm.update(command=without, uri="memfd:")
    assert vm.qmp.command("query-sandbox")["enabled"] is True
    with Vm("-kernel", str(ticker)) as other:
        other.console.wait(b"tick 1")
        into = [*other.argv, "-sandbox", "on", "-incoming", "memfd:"]
        assert "-sandbox: enabled is off" in refused(other, command=into, uri="memfd:")
        other.qmp.command("migrate-set-parameters", **{"x-update-rehearsal": False})
        assert "its threads cannot be confined any more" in refused(
            other, command=into, uri="memfd:"
        )


@needs_landlock
def test_sandbox_that_ends_leaves_no_socket_behind(vm: Vm) -> None:
    vm.qmp.command("quit")
    assert vm.wait_exit() == 0
    assert sorted(path.name for path in vm.folder.iterdir()) == ["stderr"]


# Others' sandboxes around the program

WRAP = """
import os, sys
from instar.sandbox.{module} import {names}
{body}
os.execv(sys.argv[1], sys.argv[1:])
"""


def around(module: str, names: str, body: str) -> tuple[str, ...]:
    return (sys.executable, "-c", WRAP.format(module=module, names=names, body=body))


def outside_filter(call: str) -> tuple[str, ...]:
    """A filter that refuses a call to all processes but the one it is put around, which is still to be executed."""
    body = f"install([Rule(['{call}'], [Condition(4, 0x1000, mask=0xFFFF)])])"
    return around("seccomp", "Condition, Rule, install", body)


def test_filter_that_refuses_exec_by_descriptor_is_found_out_before_the_stop(ticker: Path) -> None:
    with Vm("-kernel", str(ticker), wrapper=outside_filter("execveat")) as vm:
        vm.console.wait(b"tick 1")
        error = refused(vm)
        assert error.startswith(
            f"execvp {PROGRAM} failed: Operation not permitted; this was tried"
        )
        assert "cpr-transfer needs no exec" in error
        assert [event for event in vm.qmp.events if event["event"] == "STOP"] == []


def test_filter_that_refuses_every_exec_is_found_out_before_the_stop(
    ticker: Path, tmp_path: Path
) -> None:
    patch = (
        "import instar.cli.system as s\nold = s._begin\n"
        "def begin(*a):\n"
        "    from instar.sandbox.seccomp import Rule, install\n"
        "    install([Rule(['execve', 'execveat'])], all_threads=True)\n"
        "    old(*a)\n"
        "s._begin = begin\n"
    )
    with Vm("-kernel", str(ticker), program=program(tmp_path, patch)) as vm:
        vm.console.wait(b"tick 1")
        error = refused(vm)
        assert "failed: Operation not permitted; this was tried in a child" in error
        assert "cpr-transfer needs no exec" in error


@needs_landlock
def test_parent_that_forbids_executing_elsewhere_is_found_out_before_the_stop(
    ticker: Path, tmp_path: Path
) -> None:
    body = (
        "import ctypes\nctypes.CDLL(None).prctl(38, 1, 0, 0, 0)\nlayer = Layer()\n"
        "layer.allow(['/'], layer.handled & ~EXECUTE)\n"
        f"layer.allow(['/usr', '/lib', '/lib64', {str(PROGRAM.parent)!r}, {sys.base_prefix!r}], EXECUTE)\n"
        "layer.enforce()"
    )
    wrapper = around("landlock", "EXECUTE, Layer", body)
    with Vm("-kernel", str(ticker), wrapper=wrapper) as vm:
        vm.console.wait(b"tick 1")
        error = refused(vm, program=program(tmp_path, ""))
        assert error.startswith(f"execvp {tmp_path}/instar-other failed: Permission denied; this")
        vm.update(program=PROGRAM)


def test_sandbox_where_the_kernel_refuses_it_ends_the_program(ticker: Path) -> None:
    body = "install([Rule(['landlock_create_ruleset'], error=38)])"
    wrapper = around("seccomp", "Rule, install", body)
    done = subprocess.run(
        [*wrapper, str(PROGRAM), "-nodefaults", "-kernel", str(ticker), "-sandbox", "on"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 3
    assert (
        "-sandbox on: the kernel has no Landlock, or it is off; nothing was started" in done.stderr
    )
