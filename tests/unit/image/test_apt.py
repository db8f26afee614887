"""Which mirrors are tried, and what never reaches apt. What apt does is tested in tests/guest/test_image_pull.py."""

import pytest

from instar.errors import ConfigError, HostError
from instar.image import apt

DEB822 = """\
# a comment
Types: deb
URIs: http://mirror.example/debian
  http://second.example/debian/
Suites: bookworm

Types: deb
Enabled: no
URIs: http://off.example/debian

Types: deb-src
URIs: http://source.example/debian

Types: deb
URIs: http://mirror.example/debian-security
"""
ONE_LINE = """\
deb [arch=amd64 signed-by=/a.gpg] https://one.example/debian bookworm main
# deb http://comment.example/debian bookworm main
deb-src http://source.example/debian bookworm main
deb cdrom:[Debian]/ bookworm main
deb https://vendor.example/apt stable main
"""


def sources(tmp_path, **files):
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    for name, text in files.items():
        (parts / name.replace("_", ".")).write_text(text)
    return str(tmp_path)


def test_mirrors_of_stanzas_are_the_enabled_debian_ones_then_the_default(tmp_path):
    assert apt.mirrors(sources(tmp_path, debian_sources=DEB822)) == [
        "http://mirror.example/debian",
        "http://second.example/debian",
        apt.DEFAULT_MIRROR,
    ]


def test_mirrors_of_lines_are_the_debian_ones_then_the_default(tmp_path):
    (tmp_path / "sources.list").write_text(ONE_LINE)
    assert apt.mirrors(str(tmp_path)) == ["https://one.example/debian", apt.DEFAULT_MIRROR]


def test_mirrors_of_a_machine_without_lists_are_the_default(tmp_path):
    assert apt.mirrors(str(tmp_path)) == [apt.DEFAULT_MIRROR]


def test_mirrors_of_many_lists_are_three(tmp_path):
    text = "".join(f"deb http://{n}.example/debian bookworm main\n" for n in range(9))
    assert len(apt.mirrors(sources(tmp_path, many_list=text))) == 3


@pytest.mark.parametrize(
    "uri", ["http://x/debian[trusted=yes]", "ftp://x/debian", "http://x/ubuntu", "debian"]
)
def test_mirrors_that_could_change_the_list_file_are_left_out(tmp_path, uri):
    text = f"Types: deb\nURIs: {uri}\n"
    assert apt.mirrors(sources(tmp_path, a_sources=text)) == [apt.DEFAULT_MIRROR]


@pytest.mark.parametrize(
    "name", ["--allow-unauthenticated", "a", "../a", "A_b", "./local.deb", "x y"]
)
def test_download_of_what_is_no_package_name_is_refused(tmp_path, name):
    source = apt.PrivateApt(str(tmp_path), "riscv64", lambda _phase, _percent: None)
    with pytest.raises(HostError, match="is no Debian package name; nothing was fetched"):
        source.download([name], str(tmp_path))


def test_tools_without_the_keyring_name_its_package(monkeypatch):
    monkeypatch.setattr(apt.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(apt, "KEYRING", "/nowhere/keyring.gpg")
    with pytest.raises(
        ConfigError, match=r"/nowhere/keyring\.gpg is not .* \(package debian-archive-keyring\)"
    ):
        apt.tools()


def test_tools_without_apt_name_the_program_and_its_package(monkeypatch):
    monkeypatch.setattr(apt.shutil, "which", lambda _name: None)
    with pytest.raises(ConfigError, match="'apt-get' is not on this machine"):
        apt.tools()
