"""Kernel and initramfs of the lab's machine, from Debian's packages, verified by apt; kept by a hash of their recipe.

It is Debian's full kernel: the cloud kernel has no 9p, by which the machine gets its root, the host's own.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from typing import TYPE_CHECKING, NamedTuple

from debian_packages import CACHE

from instar.errors import HostError
from instar.image import apt, cpio
from instar.image.kmodules import ModuleTree

if TYPE_CHECKING:
    from collections.abc import Callable

    Progress = Callable[[str, float], None]

LAYOUT = 2  # raised when this module makes something else of the same files
SUITE = "trixie"
ARCHITECTURE = "amd64"
BUSYBOX = "busybox-static"
KERNEL = "linux-image-amd64"
MODULES = (
    "virtio_pci",
    "9p",
    "9pnet_virtio",
    "overlay",
    "kvm_amd",
    "tun",
    "vhost_net",
    "vhost_vsock",
)
FOLDERS = ("bin", "dev", "proc", "host", "memory", "root", "modules")
HERE = os.path.dirname(os.path.abspath(__file__))


class Images(NamedTuple):
    """Paths of what boots.

    Attributes:
        kernel: Debian's.
        initrd: busybox, modules, and our scripts.
    """

    kernel: str
    initrd: str


def bring(progress: Progress) -> Images:
    """Return the images, made now if they are not here.

    Args:
        progress: Told what happens, and how many per cent of it are done.

    Raises:
        ConfigError: apt's tools or Debian's keyring are missing.
        HostError: the packages could not be fetched, verified or kept. Nothing half made is left in both cases.
    """
    folder = os.path.join(CACHE, "lab", recipe()[:16])
    images = Images(*(os.path.join(folder, name) for name in Images._fields))
    if os.path.isdir(folder):
        return images
    apt.tools()
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    with tempfile.TemporaryDirectory(dir=os.path.dirname(folder)) as work:
        _make(work, progress)
        try:
            os.rename(os.path.join(work, "made"), folder)
        except OSError as exc:
            if not os.path.isdir(folder):  # nobody else was faster
                raise HostError(f"{folder} cannot be made: {exc.strerror}") from exc
    return images


def recipe() -> str:
    """Return a digest of everything of ours that shapes the images."""
    plan = {
        "layout": LAYOUT,
        "suite": SUITE,
        "packages": [KERNEL, BUSYBOX],
        "modules": MODULES,
        "scripts": [_script(name).decode() for name in ("init", "supervise")],
    }
    return hashlib.sha256(json.dumps(plan).encode()).hexdigest()


def initrd(busybox: bytes, modules: list[tuple[str, bytes]]) -> bytes:
    """Return the machine's initramfs.

    Args:
        busybox: A static one.
        modules: Name and contents, in the order in which they are to be loaded.
    """
    return cpio.archive(
        [
            *(cpio.directory(path) for path in FOLDERS),
            cpio.character_device("dev/console", 5, 1),
            cpio.file("bin/busybox", busybox, 0o755),
            cpio.file("init", _script("init"), 0o755),
            cpio.file("supervise", _script("supervise")),
            *(
                cpio.file(f"modules/{number:03}-{name}.ko", data)
                for number, (name, data) in enumerate(modules)
            ),
        ]
    )


def _make(work: str, progress: Progress) -> None:
    """Fetch the packages and write the images into ``work``/made."""
    folders = {name: os.path.join(work, name) for name in ("apt", "debs", "files", "made")}
    for folder in folders.values():
        os.mkdir(folder)
    source = apt.PrivateApt(folders["apt"], ARCHITECTURE, progress)
    source.update(SUITE, apt.mirrors())
    package = _kernel_package(source)
    debs = source.download([package, BUSYBOX], folders["debs"])
    for number, deb in enumerate(debs.values()):
        progress("unpacking packages", 100.0 * number / len(debs))
        apt.unpack(deb, folders["files"])
    release = package.removeprefix("linux-image-")
    tree = ModuleTree(os.path.join(folders["files"], "usr/lib/modules", release))
    modules = [(module.name, module.data) for module in tree.load_order(MODULES)]
    made = {
        "kernel": _read(folders["files"], f"boot/vmlinuz-{release}"),
        "initrd": initrd(_read(folders["files"], "usr/bin/busybox"), modules),
    }
    for name, data in made.items():
        with open(os.path.join(folders["made"], name), "wb") as stream:
            stream.write(data)


def _kernel_package(source: apt.PrivateApt) -> str:
    found = [package for package in source.depends(KERNEL) if package.startswith("linux-image-")]
    if not found:
        raise HostError(f"Debian {SUITE}'s {KERNEL} depends on no kernel package")
    return found[0]


def _script(name: str) -> bytes:
    return _read(HERE, name)


def _read(folder: str, path: str) -> bytes:
    with open(os.path.join(folder, path), "rb") as stream:
        return stream.read()
