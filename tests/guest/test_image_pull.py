"""``instar image``: nothing half, nothing unverified, nothing twice. Real processes; the network is not used.

Debian's packages are taken from the cache that ``make`` filled before; apt-get is replaced where it must fail.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from instar.errors import HostError
from instar.image.apt import PrivateApt
from instar.image.store import Store, default_root

PROGRAM = Path(sys.executable).parent / "instar"
FAILS = "#!/bin/sh\necho 'E: Failed to fetch it  Hash Sum mismatch' >&2\nexit 100\n"
HANGS = "#!/bin/sh\necho started > {mark}\nexec sleep 600\n"


def instar(cache, *words, path=None):
    environment = {
        **os.environ,
        "INSTAR_CACHE": str(cache),
        "PATH": f"{path}:{os.environ['PATH']}",
    }
    # A shell that runs the tests in the background has SIGINT ignored, and so would what it starts.
    return subprocess.Popen(
        ["env", "--default-signal=INT", PROGRAM, *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process):
    output, errors = process.communicate(timeout=120)
    return process.returncode, output, errors


def files(cache):
    return sorted(str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file())


@pytest.fixture
def apt_that(tmp_path):
    """Returns a function that makes a folder for PATH in which apt-get is the given script."""

    def make(script):
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        (folder / "apt-get").write_text(script)
        (folder / "apt-get").chmod(0o755)
        return folder

    return make


@pytest.fixture
def filled(tmp_path):
    """A copy of the cache with the image in it."""
    cache = tmp_path / "filled"
    shutil.copytree(default_root(), cache)
    store = Store(str(cache))
    assert "debian" in store.names(), "run 'make test-guest', which fetches the image first"
    with store.writing(lambda: None) as writer:
        for name in set(store.names()) - {"debian"}:
            writer.remove(name)
    return cache


def test_pull_of_what_is_here_does_nothing(filled, apt_that):
    before = files(filled)
    status, output, _ = finished(
        instar(filled, "image", "pull", "debian", "--json", path=apt_that(FAILS))
    )
    done = json.loads(output.splitlines()[-1])
    assert (status, done["event"], done["changed"]) == (0, "done", False)
    assert files(filled) == before


def test_pull_that_apt_refuses_is_a_sentence_and_leaves_nothing(tmp_path, apt_that):
    cache = tmp_path / "cache"
    status, output, errors = finished(
        instar(cache, "image", "pull", "debian", path=apt_that(FAILS))
    )
    assert (status, output) == (3, "")
    assert errors.splitlines()[-1] == (
        "instar: apt-get update failed (status 100): E: Failed to fetch it  Hash Sum mismatch"
    )
    assert files(cache) == ["lock"]


def test_refresh_that_fails_leaves_the_image_as_it_was(filled, apt_that):
    before = files(filled)
    refresh = ("image", "pull", "debian", "--refresh")
    assert finished(instar(filled, *refresh, path=apt_that(FAILS)))[0] == 3
    assert files(filled) == before


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_pull_that_is_interrupted_leaves_no_image_and_the_next_one_cleans_up(
    tmp_path, apt_that, number, status
):
    cache, mark = tmp_path / "cache", tmp_path / "mark"
    os.mkfifo(mark)
    process = instar(cache, "image", "pull", "debian", path=apt_that(HANGS.format(mark=mark)))
    assert mark.read_text() == "started\n"
    process.send_signal(number)
    finished(process)
    assert process.returncode == status
    assert Store(str(cache)).names() == []
    finished(instar(cache, "image", "pull", "debian", path=apt_that(FAILS)))
    assert files(cache) == ["lock"]


def test_two_pulls_at_once_make_the_lost_initrd_again_from_what_is_here(filled, apt_that):
    store = Store(str(filled))
    before = store.find("debian")
    os.unlink(store.blob_path(before.initrd))
    path = apt_that(FAILS)
    both = [instar(filled, "image", "pull", "debian", path=path) for _ in range(2)]
    assert [finished(process)[0] for process in both] == [0, 0]
    assert store.find("debian") == before
    assert store.intact(before.initrd)


def test_path_and_list_and_remove_agree(filled):
    kernel = finished(instar(filled, "image", "path", "debian", "kernel"))[1].strip()
    initrd = finished(instar(filled, "image", "path", "debian", "initrd"))[1].strip()
    (listed,) = finished(instar(filled, "image", "list", "--json"))[1].splitlines()
    assert (json.loads(listed)["kernel"], json.loads(listed)["initrd"]) == (kernel, initrd)
    assert Path(initrd).read_bytes()[:6] == b"070701"
    assert finished(instar(filled, "image", "remove", "debian"))[0] == 0
    assert files(filled) == ["lock"]
    status, _, errors = finished(instar(filled, "image", "path", "debian", "kernel"))
    assert status == 2
    assert errors.startswith(f"instar: there is no image 'debian' in {filled}\nhint: ")


@pytest.mark.parametrize(
    "line",
    [
        "image pull ubuntu",
        "image pull debian --arch mips",
        "image path debian dtb",
        "image",
        "frobnicate",
        "",
    ],
)
def test_command_line_that_is_wrong_is_one_sentence_and_status_2(tmp_path, line):
    status, output, errors = finished(instar(tmp_path, *line.split()))
    assert (status, output) == (2, "")
    assert errors.startswith("instar: ")
    assert errors.splitlines()[1].startswith("hint: 'instar")


def test_packages_that_nobody_signed_are_refused_whatever_the_machine_allows(
    tmp_path, monkeypatch
):
    release = tmp_path / "debian" / "dists" / "trixie"
    (release / "main" / "binary-riscv64").mkdir(parents=True)
    (release / "main" / "binary-riscv64" / "Packages").write_text("")
    (release / "Release").write_text(
        "Suite: trixie\nCodename: trixie\nArchitectures: riscv64\nComponents: main\n"
    )
    lax = tmp_path / "lax.conf"
    lax.write_text(
        'Acquire::AllowInsecureRepositories "true";\nAPT::Get::AllowUnauthenticated "true";\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(lax))
    private = tmp_path / "private"
    private.mkdir()
    source = PrivateApt(str(private), "riscv64", lambda _phase, _percent: None)
    with pytest.raises(HostError, match="is not signed"):
        source.update("trixie", [f"file:{tmp_path}/debian"])
