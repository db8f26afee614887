"""The lab's command line and job, what it makes of a machine's end, and when it tries again."""

import shlex
import sys
from pathlib import Path

import pytest

from instar.image import cpio

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
from lab import images, machine, main

IMAGES = images.Images("/c/kernel", "/c/initrd")
DEAD = machine.Ending(-1, died="QEMU ended with status 1 before the job did")


class Machines:
    """Machines that end as they are told to."""

    def __init__(self, *endings: machine.Ending) -> None:
        self.endings = list(endings)
        self.folders = []

    def boot(self, folder: str) -> machine.Ending:
        self.folders.append(Path(folder).name)
        return self.endings.pop(0)


def watch(folder, **limits):
    return machine._Watch(str(folder), machine.Limits(**limits), lambda _text: None)


def test_command_with_a_comma_in_the_folder_keeps_it_one_value():
    words = machine.command("qemu", IMAGES, "/logs,1", 64)
    assert "local,id=job,path=/logs,,1,security_model=none" in words
    assert "file,id=console,path=/logs,,1/console.log" in words


def test_command_shows_the_host_read_only():
    (host,) = [word for word in machine.command("qemu", IMAGES, "/l", 64) if "path=/," in word]
    assert "readonly=on" in host


def test_job_script_passes_words_and_folder_through_the_shell_unchanged():
    words = ["python", "-k", "a b", "$HOME", "it's"]
    script = machine.job_script(words, "/my tree", colored=False)
    last = script.splitlines()[-1]
    assert shlex.split(last) == ["exec", *words]
    assert "cd '/my tree' || exit 3" in script
    assert "PY_COLORS" not in script


def test_job_script_for_a_terminal_asks_for_colors():
    assert "export PY_COLORS=1" in machine.job_script(["true"], "/r", colored=True)


@pytest.mark.parametrize("status", [0, 1, 5])
def test_ending_with_a_status_is_the_jobs(tmp_path, status):
    (tmp_path / "status").write_text(f"{status}\n")
    assert watch(tmp_path, boot=9, job=9).ending(0) == machine.Ending(status)


def test_ending_without_a_status_is_the_machines_fault(tmp_path):
    seen = watch(tmp_path, boot=9, job=9)
    assert not seen.over()
    assert seen.ending(1).died == "QEMU ended with status 1 before the job did"


def test_ending_of_a_machine_that_does_not_come_up_is_its_fault(tmp_path):
    seen = watch(tmp_path, boot=-1, job=9)
    assert seen.over()
    assert seen.ending(-9).died.startswith("it was not up after")


def test_ending_at_the_jobs_limit_is_not_the_machines_fault(tmp_path):
    (tmp_path / "up").write_text("1.0\n")
    seen = watch(tmp_path, boot=-1, job=-1)
    assert seen.over()
    assert seen.ending(-9) == machine.Ending(-1, late=True)


def test_ending_of_a_machine_without_a_sign_of_life_is_its_fault(tmp_path, monkeypatch):
    (tmp_path / "up").write_text("1.0\n")
    (tmp_path / "alive").write_text("1.1\n")
    seen = watch(tmp_path, boot=9, job=9)
    assert not seen.over()
    monkeypatch.setattr(machine, "STILL", -1.0)
    assert seen.over()
    assert seen.ending(-9).died.startswith("it has given no sign of life for")


def test_last_words_of_a_machine_are_the_end_of_its_console(tmp_path):
    (tmp_path / "console.log").write_bytes(
        b"first\r\n" + b"x" * machine.LAST_WORDS + b"\r\nlast\r\n"
    )
    words = machine.last_words(str(tmp_path))
    assert "first" not in words
    assert words.endswith("x\nlast")
    assert not machine.last_words(str(tmp_path / "none"))


def test_output_is_passed_on_once(tmp_path, capfdbinary):
    log = tmp_path / "output.log"
    seen = watch(tmp_path, boot=9, job=9)
    log.write_bytes(b"one ")
    seen.over()
    log.write_bytes(b"one two")
    seen.over()
    assert capfdbinary.readouterr().out == b"one two"


@pytest.mark.parametrize(
    ("endings", "status", "folders"),
    [
        ([machine.Ending(0)], 0, ["first"]),
        ([machine.Ending(1)], 1, ["first"]),
        ([machine.Ending(-1, late=True)], 124, ["first"]),
        ([DEAD, machine.Ending(0)], 0, ["first", "second"]),
        ([DEAD, machine.Ending(1)], 1, ["first", "second"]),
        ([DEAD, DEAD], 125, ["first", "second"]),
    ],
)
def test_job_is_tried_again_only_when_its_machine_died(tmp_path, endings, status, folders):
    machines = Machines(*endings)
    assert main.with_retry(machines.boot, str(tmp_path)) == status
    assert machines.folders == folders


def test_initrd_has_modules_in_the_order_of_loading():
    made = images.initrd(b"busybox", [("netfs", b"1"), ("9p", b"2")])
    assert made.index(b"modules/000-netfs.ko") < made.index(b"modules/001-9p.ko")
    assert len(made) % cpio.BLOCK == 0
