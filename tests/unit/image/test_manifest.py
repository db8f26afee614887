"""Manifests: what is written reads back; anything else is refused by name."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.errors import ConfigError
from instar.image.manifest import Blob, Manifest, Part, is_image_name

BLOB = Blob("a" * 64, 3)
MANIFEST = Manifest(
    name="debian",
    packages={"busybox-static": "1:1.37"},
    recipe="r",
    wanted=("virtio_blk",),
    kernel=BLOB,
    initrd=Blob("b" * 64, 4),
    parts=(Part("bin/busybox", 0o755, Blob("c" * 64, 5)),),
)
DOCUMENT = json.loads(MANIFEST.render())


def test_manifest_reads_back_as_written():
    assert Manifest.parse("debian", MANIFEST.render()) == MANIFEST


def test_blobs_of_a_manifest_are_all_its_files():
    assert [blob.size for blob in MANIFEST.blobs()] == [3, 4, 5]


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"kernel": {"sha256": "../../../etc/passwd", "size": 1}},
        {"kernel": {"sha256": "a" * 64, "size": -1}},
        {"kernel": {"sha256": "a" * 64, "size": True}},
        {"initrd": None},
        {"packages": []},
        {"recipe": 1},
        {"parts": [{}]},
    ],
    ids=str,
)
def test_manifest_with_a_wrong_field_is_refused_with_a_way_out(change):
    with pytest.raises(ConfigError, match="manifest of image 'debian' is damaged") as caught:
        Manifest.parse("debian", json.dumps({**DOCUMENT, **change}).encode())
    assert caught.value.__notes__ == ["hint: 'instar image pull --refresh debian' makes it anew"]


@settings(max_examples=50)
@given(
    raw=st.binary(max_size=40)
    | st.recursive(st.integers() | st.text(), st.lists).map(lambda v: json.dumps(v).encode())
)
def test_manifest_of_anything_else_is_refused(raw):
    with pytest.raises(ConfigError):
        Manifest.parse("debian", raw)


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "A", "a" * 64, "a\n"])
def test_name_that_is_no_image_name_is_not_one(name):
    assert not is_image_name(name)
