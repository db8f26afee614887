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


SYNC = HostError("E: Failed to fetch it  File has unexpected size. Mirror sync in progress?")


class Apt(apt.PrivateApt):
    """apt whose answers are given: an error, or the codename in the release file that came."""

    def __init__(self, folder, **answers) -> None:
        super().__init__(str(folder), "riscv64", lambda _phase, _percent: None)
        self.folder, self.answers, self.asked = folder, answers, []

    def _fetch(self, words, what, **_more) -> None:
        name = what.split()[-1]
        self.asked.append(name)
        if isinstance(self.answers[name], HostError):
            raise self.answers[name]
        release = self.folder / "lists" / f"mirror_debian_dists_{name}_InRelease"
        release.write_text(f"Suite: {name}\nCodename: {self.answers[name]}\n")


def test_update_from_a_mirror_out_of_step_takes_the_suite_by_its_other_name(tmp_path):
    source = Apt(tmp_path, trixie=SYNC, stable="trixie")
    assert source.update("trixie", ["http://a/debian"]) == "http://a/debian"
    assert source.asked == ["trixie", "stable"]


@pytest.mark.parametrize("other", ["forky", HostError("no such file")])
def test_update_where_the_other_name_is_no_help_says_what_was_wrong_first(tmp_path, other):
    source = Apt(tmp_path, trixie=SYNC, stable=other)
    with pytest.raises(HostError, match="Mirror sync in progress"):
        source.update("trixie", ["http://a/debian"])


def test_update_that_fails_otherwise_tries_no_other_name(tmp_path):
    source = Apt(tmp_path, trixie=HostError("E: cannot be resolved"))
    with pytest.raises(HostError, match="cannot be resolved"):
        source.update("trixie", ["http://a/debian", "http://b/debian"])
    assert source.asked == ["trixie", "trixie"]
