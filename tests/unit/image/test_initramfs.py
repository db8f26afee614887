"""The initramfs: same files same bytes, modules found at boot and on demand."""

from test_cpio import read
from test_kmodules import elf

from instar.image import initramfs

FOLDER = "lib/modules/6.1-riscv64"
PARTS = [
    ("bin/busybox", 0o755, b"busybox"),
    (f"{FOLDER}/virtio_mmio.ko", 0o644, elf(b"alias=of:virtio,mmio\0")),
    (f"{FOLDER}/jbd2.ko", 0o644, elf(b"depends=\0")),
    (f"{FOLDER}/ext4.ko", 0o644, elf(b"depends=jbd2\0alias=fs-ext4\0")),
]


def files(at_boot):
    return {name: data for name, _, data, _ in read(initramfs.build(PARTS, at_boot))}


def test_build_of_the_same_files_gives_the_same_bytes():
    assert initramfs.build(PARTS, ["virtio_mmio"]) == initramfs.build(PARTS, ["virtio_mmio"])


def test_build_loads_at_boot_what_is_asked_for_and_what_that_needs():
    assert files(["ext4"])["etc/modules-at-boot"].decode().split() == [
        f"/{FOLDER}/jbd2.ko",
        f"/{FOLDER}/ext4.ko",
    ]
    assert files(["virtio-mmio"])["etc/modules-at-boot"].decode() == f"/{FOLDER}/virtio_mmio.ko\n"


def test_build_makes_the_tables_that_modprobe_reads():
    made = files([])
    assert (
        made[f"{FOLDER}/modules.dep"].decode() == "virtio_mmio.ko:\njbd2.ko:\next4.ko: jbd2.ko\n"
    )
    assert (
        made[f"{FOLDER}/modules.alias"].decode()
        == "alias of:virtio,mmio virtio_mmio\nalias fs-ext4 ext4\n"
    )


def test_build_puts_folders_before_what_is_in_them():
    seen = {""}
    order = [name for name, *_ in read(initramfs.build(PARTS, []))]
    orphans = []
    for name in order:
        orphans += [name] * (name.rpartition("/")[0] not in seen)
        seen.add(name)
    assert orphans == []


def test_build_has_our_scripts_and_the_shell_they_need():
    made = files([])
    assert made["init"].startswith(b"#!/bin/sh\n")
    assert made["bin/sh"] == made["sbin/modprobe"] == b"/bin/busybox"
    assert {"bin/work", "bin/diskverify", "dev/console", "dev/null"} <= made.keys()
