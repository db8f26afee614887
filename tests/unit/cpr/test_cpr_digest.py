"""What a digest covers."""

import hashlib
import os

import pytest

from instar.cpr.digest import digest_of, normal
from instar.cpr.errors import TargetError

HEX = "ab" * 32


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def digest(path, package="", *, stopped=False):
    fd = os.open(path, os.O_RDONLY)
    try:
        return digest_of(fd, str(package), lambda: stopped)
    finally:
        os.close(fd)


def test_digest_of_a_program_is_what_sha256sum_says(tmp_path):
    (tmp_path / "program").write_bytes(b"\x7fELF")
    assert digest(tmp_path / "program") == "sha256:" + sha256(b"\x7fELF")


def test_digest_of_a_script_is_of_what_sha256sum_prints_for_all_of_its_package(tmp_path):
    (tmp_path / "program").write_bytes(b"#!")
    for name in ("b.py", "a/x.so", "a/notes.txt"):
        (tmp_path / "p" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "p" / name).write_bytes(name.encode())
    lines = [(b"#!", "program"), (b"a/x.so", "a/x.so"), (b"b.py", "b.py")]
    text = "".join(f"{sha256(data)}  {name}\n" for data, name in lines)
    assert digest(tmp_path / "program", tmp_path / "p") == "sha256:" + sha256(text.encode())


def test_digest_that_nobody_waits_for_is_not_finished(tmp_path):
    (tmp_path / "program").write_bytes(b"#!")
    with pytest.raises(TargetError, match="nobody waits"):
        digest(tmp_path / "program", stopped=True)


@pytest.mark.parametrize(
    ("given", "meant"),
    [("", ""), (HEX, "sha256:" + HEX), ("SHA256:" + HEX.upper(), "sha256:" + HEX)],
)
def test_normal_digest_has_one_form(given, meant):
    assert normal(given) == meant


@pytest.mark.parametrize("text", ["x", "sha256:" + HEX + "0", "md5:" + HEX, HEX[:-1] + "g"])
def test_normal_of_what_is_no_digest_is_refused(text):
    with pytest.raises(ValueError, match="64 hexadecimal digits"):
        normal(text)
