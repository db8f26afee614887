"""What may be executed, and the exact words when it may not."""

import errno
import hashlib
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from instar.cpr import target as target_module
from instar.cpr.digest import digest_of
from instar.cpr.errors import TargetError
from instar.cpr.target import Target


def script(folder, name="program", line="#!/bin/sh\n", mode=0o755):
    path = folder / name
    path.write_text(line)
    path.chmod(mode)
    return str(path)


def refusal(program, **options):
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(TargetError) as caught:
        Target.open(program, **options)
    assert sorted(os.listdir("/proc/self/fd")) == before
    return str(caught.value)


def test_open_elf_program_by_path():
    target = Target.open(os.path.realpath(sys.executable))
    assert (target.script, os.get_inheritable(target.fd)) == (False, False)
    target.close()
    target.close()


def test_open_script_knows_that_it_is_one(tmp_path):
    target = Target.open(script(tmp_path))
    assert target.script
    target.close()


def test_open_number_is_high_so_that_it_is_not_soon_used_again(tmp_path):
    target = Target.open(script(tmp_path))
    assert target.fd >= 200
    target.close()


def test_open_name_is_looked_up_in_order(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        script(tmp_path / name)
    target = Target.open("program", search=f"{tmp_path}/none:{tmp_path}/b:{tmp_path}/a")
    assert target.path == f"{tmp_path}/b/program"
    target.close()


def test_open_name_in_empty_folder_means_the_current_one(tmp_path, monkeypatch):
    script(tmp_path)
    monkeypatch.chdir(tmp_path)
    target = Target.open("program", search="")
    assert target.path == f"{tmp_path}/program"
    target.close()


def test_open_missing_program_says_what_execvp_says():
    text = "execvp /nonexistent/qemu failed: No such file or directory"
    assert refusal("/nonexistent/qemu") == text


@pytest.mark.parametrize("program", ["", "no-such-name", "a\0b", "/etc/passwd/x"])
def test_open_name_that_is_nowhere_is_refused(program):
    assert refusal(program, search="/bin").endswith("failed: No such file or directory")


def test_open_directory_is_refused(tmp_path):
    assert refusal(str(tmp_path)) == f"execvp {tmp_path} failed: Permission denied"


def test_open_file_without_execute_permission_is_refused(tmp_path):
    path = script(tmp_path, mode=0o644)
    assert refusal(path) == f"execvp {path} failed: Permission denied"


def test_open_fifo_is_refused_and_does_not_wait(tmp_path):
    path = str(tmp_path / "fifo")
    os.mkfifo(path, 0o755)
    assert refusal(path) == f"execvp {path} failed: Permission denied"


def test_open_script_without_interpreter_is_refused(tmp_path):
    path = script(tmp_path, line="#!/no/such/interpreter -x\n")
    assert refusal(path) == f"execvp {path} failed: No such file or directory"


def test_open_script_with_an_empty_first_line_is_refused(tmp_path):
    assert "No such file" in refusal(script(tmp_path, line="#!\n"))


def test_open_script_with_interpreter_that_is_not_executable_is_refused(tmp_path):
    inner = script(tmp_path, "inner", mode=0o644)
    path = script(tmp_path, line=f"#!{inner}\n")
    assert refusal(path) == f"execvp {path} failed: Permission denied"


def test_open_text_that_is_no_script_is_refused(tmp_path):
    path = script(tmp_path, line="hello\n")
    assert refusal(path) == f"execvp {path} failed: Exec format error"


def test_open_elf_program_without_its_loader_is_refused(tmp_path):
    whole = bytearray(Path("/bin/sh").read_bytes())
    at = whole.index(b"/lib")
    whole[at : at + 4] = b"/xib"
    path = tmp_path / "program"
    path.write_bytes(whole)
    path.chmod(0o755)
    assert refusal(str(path)) == f"execvp {path} failed: No such file or directory"


def test_open_elf_program_with_a_hostile_head_is_judged_by_exec(tmp_path):
    with open(sys.executable, "rb") as file:
        machine = file.read(20)[18:]
    for tail in (b"\2\1" + b"\xff" * 58, b"\1\1" + bytes(58), b"\2\1" + bytes(58)):
        path = tmp_path / f"program{tail[:3].hex()}"
        path.write_bytes(b"\x7fELF" + tail[:14] + machine + tail[16:])
        path.chmod(0o755)
        Target.open(str(path)).close()


def test_open_on_noexec_mount_is_refused(tmp_path, monkeypatch):
    path = script(tmp_path)
    monkeypatch.setattr(target_module.os, "fstatvfs", lambda _: SimpleNamespace(f_flag=8))
    assert refusal(path) == f"execvp {path} failed: Permission denied"


def test_open_other_error_of_the_host_is_passed_on(monkeypatch):
    def fail(_):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(target_module, "_open", fail)
    assert refusal("/bin/sh") == "execvp /bin/sh failed: Too many open files"


def test_refusal_carries_a_hint(tmp_path):
    with pytest.raises(TargetError) as caught:
        Target.open(str(tmp_path))
    assert caught.value.__notes__ == ["hint: it is not a regular file"]


def test_check_after_permission_was_taken_is_refused(tmp_path):
    path = script(tmp_path)
    target = Target.open(path)
    os.chmod(path, 0o600)
    with pytest.raises(TargetError, match="Permission denied"):
        target.check()
    target.close()


def test_digest_is_of_the_open_file_whatever_the_path_says(tmp_path):
    path = script(tmp_path, line="#!/bin/sh\necho old\n")
    target = Target.open(path)
    os.unlink(path)
    script(tmp_path, line="#!/bin/sh\necho new\n")
    assert digest_of(target.fd, "", lambda: False) == (
        "sha256:" + hashlib.sha256(b"#!/bin/sh\necho old\n").hexdigest()
    )
    target.close()


def elf_of(machine):
    with open(sys.executable, "rb") as file:
        head = bytearray(file.read(4096))
    head[18:20] = machine.to_bytes(2, "little")
    return bytes(head)


def test_open_program_of_another_architecture_names_both(tmp_path, monkeypatch):
    monkeypatch.setattr(target_module, "_BINFMT", str(tmp_path / "none"))
    path = tmp_path / "program"
    path.write_bytes(elf_of(8))
    path.chmod(0o755)
    with pytest.raises(TargetError, match="Exec format error") as caught:
        Target.open(str(path))
    assert "it is a program for machine 8, this host executes" in caught.value.__notes__[0]


def test_open_program_of_another_architecture_that_an_interpreter_takes_is_allowed(
    tmp_path, monkeypatch
):
    entry = (
        "enabled\ninterpreter /usr/bin/qemu\nflags: F\noffset 0\nmagic 7f454c46\nmask ffffffff\n"
    )
    (tmp_path / "qemu").write_text(entry)
    (tmp_path / "off").write_text("disabled\nmagic 7f\n")
    monkeypatch.setattr(target_module, "_BINFMT", str(tmp_path))
    path = tmp_path / "program"
    path.write_bytes(elf_of(8))
    path.chmod(0o755)
    Target.open(str(path)).close()
