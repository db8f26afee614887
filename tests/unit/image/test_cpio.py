"""The initramfs format, read back by a reader written from its description alone."""

import stat
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.image import cpio


def read(archive: bytes) -> list[tuple[str, int, bytes, tuple[int, int]]]:
    """Every entry before the trailer: name, mode, contents, device."""
    found, at = [], 0
    while True:
        assert archive[at : at + 6] == b"070701"
        fields = [int(archive[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        name_at = at + 110
        name = archive[name_at : name_at + fields[11] - 1].decode()
        data_at = -(-(name_at + fields[11]) // 4) * 4
        data = archive[data_at : data_at + fields[6]]
        if name == "TRAILER!!!":
            return found
        found.append((name, fields[1], data, (fields[9], fields[10])))
        at = -(-(data_at + fields[6]) // 4) * 4


names = st.text(string.ascii_lowercase, min_size=1, max_size=20)


@settings(max_examples=40)
@given(files=st.dictionaries(names, st.binary(max_size=30), max_size=6))
def test_archive_of_any_files_reads_back(files):
    archive = cpio.archive([cpio.file(name, data) for name, data in files.items()])
    assert read(archive) == [
        (name, stat.S_IFREG | 0o644, data, (0, 0)) for name, data in files.items()
    ]
    assert len(archive) % 512 == 0


def test_archive_of_each_kind_keeps_mode_target_and_device():
    archive = cpio.archive(
        [
            cpio.directory("dev"),
            cpio.character_device("dev/null", 1, 3),
            cpio.link("sh", "/bin/busybox"),
        ]
    )
    assert read(archive) == [
        ("dev", stat.S_IFDIR | 0o755, b"", (0, 0)),
        ("dev/null", stat.S_IFCHR | 0o600, b"", (1, 3)),
        ("sh", stat.S_IFLNK | 0o777, b"/bin/busybox", (0, 0)),
    ]


@pytest.mark.parametrize("paths", [("a", "a"), ("/a",)])
def test_archive_of_a_bad_path_is_refused(paths):
    with pytest.raises(ValueError, match="absolute or there twice"):
        cpio.archive([cpio.file(path, b"") for path in paths])
