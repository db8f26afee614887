"""The store: whole or not at all, by content, nothing left behind."""

import hashlib
import os

import pytest

from instar.errors import ConfigError, HostError
from instar.image.manifest import Blob, Manifest
from instar.image.store import Store, default_root


def never():
    raise AssertionError


def image(writer, name, data=b"kernel"):
    blob = writer.add_bytes(data)
    writer.publish(
        Manifest(name=name, packages={}, recipe="", wanted=(), kernel=blob, initrd=blob, parts=())
    )
    return blob


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "cache"))


def everything(store):
    return sorted(
        os.path.relpath(os.path.join(folder, file), store.root)
        for folder, _, files in os.walk(store.root)
        for file in files
    )


def test_add_bytes_keeps_them_under_their_digest(store):
    with store.writing(never) as writer:
        blob = writer.add_bytes(b"abc")
    assert blob == Blob(hashlib.sha256(b"abc").hexdigest(), 3)
    assert store.intact(blob)
    with open(store.blob_path(blob), "rb") as stream:
        assert stream.read() == b"abc"


def test_intact_of_a_changed_file_of_the_same_length_is_false(store):
    with store.writing(never) as writer:
        blob = writer.add_bytes(b"abc")
    os.chmod(store.blob_path(blob), 0o600)
    with open(store.blob_path(blob), "wb") as stream:
        stream.write(b"abd")
    assert (store.present(blob), store.intact(blob)) == (True, False)


def test_find_of_nothing_is_none_and_names_are_empty(store):
    assert store.find("debian") is None
    assert store.names() == []


def test_find_of_an_impossible_name_is_refused(store):
    with pytest.raises(ConfigError, match="can be no image's name"):
        store.find("../debian")


def test_publish_makes_the_image_appear(store):
    with store.writing(never) as writer:
        blob = image(writer, "debian")
    assert store.names() == ["debian"]
    assert store.find("debian").kernel == blob


def test_remove_takes_what_no_other_image_needs(store):
    with store.writing(never) as writer:
        shared = image(writer, "one", b"shared")
        image(writer, "two", b"shared")
        alone = image(writer, "three", b"alone")
        writer.remove("three")
        writer.remove("one")
    assert (store.present(shared), store.present(alone)) == (True, False)


def test_remove_of_an_absent_image_is_refused(store):
    with store.writing(never) as writer, pytest.raises(ConfigError, match="no image 'debian'"):
        writer.remove("debian")


def interrupt_in_workspace(writer):
    with writer.workspace() as folder:
        assert os.listdir(os.path.dirname(folder)) == [os.path.basename(folder)]
        raise KeyboardInterrupt


def test_workspace_is_gone_after_a_failure_and_clears_what_a_killed_one_left(store):
    with store.writing(never) as writer:
        os.makedirs(os.path.join(store.root, "tmp", "stale", "deep"))
        with pytest.raises(KeyboardInterrupt):
            interrupt_in_workspace(writer)
    assert everything(store) == ["lock"]


def test_writing_where_a_file_is_in_the_way_is_the_hosts_fault(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(HostError, match="cannot be written"),
        Store(str(tmp_path / "file")).writing(never),
    ):
        never()


def test_default_root_follows_the_environment(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.delenv("INSTAR_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative is ignored")
    roots = [default_root()]
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    roots.append(default_root())
    monkeypatch.setenv("INSTAR_CACHE", "/own")
    roots.append(default_root())
    assert roots == ["/home/somebody/.cache/instar", "/xdg/instar", "/own"]
