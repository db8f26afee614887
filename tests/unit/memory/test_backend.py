"""Memory back ends: what each kind gives, what is refused, what an update finds again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from instar.errors import ConfigError, HostError
from instar.memory import BackendSpec, open_backend

SIZE = 1 << 16


class Table:
    def __init__(self, **found: int) -> None:
        self.found = found
        self.saved: list[tuple[str, int, int]] = []

    def find(self, name: str, ident: int) -> int:
        return self.found.get(name.rpartition("/")[2], -1) if ident == 0 else -1

    def save(self, name: str, ident: int, fd: int, *, kind: str, owner: str) -> None:
        self.saved.append((name, ident, fd))


def test_memfd_is_shared_named_and_found_again_with_its_bytes() -> None:
    table = Table()
    block = open_backend(BackendSpec("memfd", "ram0", SIZE, share=True), table)
    assert table.saved == [("memory/ram0", 0, block.fd)]
    assert not os.get_inheritable(block.fd)
    block.view[5] = 42
    again = open_backend(
        BackendSpec("memfd", "ram0", SIZE, share=True, prealloc=True), Table(ram0=block.fd)
    )
    assert (again.view[5], again.adopted, again.share) == (42, True, True)
    os.close(block.fd)


def test_private_ram_has_no_descriptor_and_is_not_named() -> None:
    table = Table()
    block = open_backend(BackendSpec("ram", "ram0", SIZE, share=False, prealloc=True), table)
    assert (block.fd, block.share, table.saved) == (-1, False, [])


def test_shared_ram_is_a_memfd() -> None:
    block = open_backend(BackendSpec("ram", "ram0", SIZE, share=True), Table())
    assert block.fd >= 0
    os.close(block.fd)


def test_file_is_made_with_the_size_and_keeps_writes(tmp_path: Path) -> None:
    path = tmp_path / "ram"
    block = open_backend(BackendSpec("file", "ram0", SIZE, share=True, path=str(path)), Table())
    block.view[:4] = b"abcd"
    assert path.stat().st_size == SIZE
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_bytes()[:4] == b"abcd"
    os.close(block.fd)


def test_file_in_a_directory_leaves_no_name(tmp_path: Path) -> None:
    block = open_backend(
        BackendSpec("file", "ram0", SIZE, share=False, path=str(tmp_path)), Table()
    )
    assert (list(tmp_path.iterdir()), block.share) == ([], False)
    os.close(block.fd)


def test_clear_makes_all_bytes_zero() -> None:
    block = open_backend(BackendSpec("memfd", "ram0", SIZE, share=True), Table())
    block.view[100] = 1
    block.clear()
    assert not any(block.view)
    os.close(block.fd)


def test_page_given_back_of_a_private_memfd_takes_no_memory_again() -> None:
    block = open_backend(BackendSpec("memfd", "ram0", SIZE, share=False), Table())
    block.view[:] = b"x" * SIZE
    block.give_back(0, SIZE)
    smaps = Path("/proc/self/smaps").read_text().split("ram0")
    private = [line for line in smaps[-1].splitlines() if line.startswith("Private_Dirty:")]
    assert private[0].split()[1] == "0"
    assert not any(block.view)
    os.close(block.fd)


def test_page_given_back_of_a_private_file_is_zero_not_what_the_file_has(tmp_path: Path) -> None:
    path = tmp_path / "ram"
    path.write_bytes(b"x" * SIZE)
    block = open_backend(BackendSpec("file", "ram0", SIZE, share=False, path=str(path)), Table())
    block.give_back(0, SIZE)
    assert not any(block.view)
    os.close(block.fd)


@pytest.mark.parametrize("size", [0, 100, 4097, 1 << 50])
def test_impossible_size_is_refused(size: int) -> None:
    with pytest.raises(ConfigError, match="memory backend ram0: size"):
        open_backend(BackendSpec("memfd", "ram0", size, share=True), Table())


def test_file_too_small_is_refused_and_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "ram"
    path.write_bytes(b"x" * 100)
    with pytest.raises(ConfigError, match="has 100 bytes"):
        open_backend(BackendSpec("file", "ram0", SIZE, share=True, path=str(path)), Table())
    assert path.read_bytes() == b"x" * 100


def test_file_that_cannot_be_opened_is_a_host_error(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="No such file"):
        open_backend(
            BackendSpec("file", "r", SIZE, share=True, path=str(tmp_path / "no" / "x")), Table()
        )


def test_inherited_block_of_another_size_is_refused() -> None:
    fd = os.memfd_create("small")
    with pytest.raises(ConfigError, match="too small"):
        open_backend(BackendSpec("memfd", "ram0", SIZE, share=True), Table(ram0=fd))
    os.close(fd)


def test_huge_pages_have_to_divide_the_size() -> None:
    spec = BackendSpec("memfd", "ram0", SIZE, share=True, huge=2 << 20)
    with pytest.raises(ConfigError, match="size 65536 bytes is not a multiple of hugetlbsize"):
        open_backend(spec, Table())


def test_huge_pages_that_the_host_lacks_are_refused_with_a_hint() -> None:
    spec = BackendSpec("memfd", "ram0", 1 << 40, share=True, huge=2 << 20)
    with pytest.raises(HostError, match="memory backend ram0: ") as e:
        open_backend(spec, Table())
    assert (
        "nothing was created" in str(e.value) or "huge pages of 2048 KiB" in e.value.__notes__[0]
    )
