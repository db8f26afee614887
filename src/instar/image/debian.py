"""The images ``debian`` and ``debian-amd64``: Debian's stock kernel and busybox, with our start script.

Source: own.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NamedTuple

from instar.errors import HostError
from instar.image import apt, initramfs
from instar.image.kmodules import ModuleTree
from instar.image.manifest import Manifest, Part

if TYPE_CHECKING:
    from instar.image.apt import Progress
    from instar.image.store import Store, StoreWriter

SUITE = "trixie"
BUSYBOX = "busybox-static"
_VIRTIO = (
    "virtio_blk",
    "virtio_rng",
    "virtio_net",
    "vsock",
    "vmw_vsock_virtio_transport",
    "virtio_balloon",
)


class Edition(NamedTuple):
    """An image for one architecture.

    Attributes:
        name: Of the image.
        architecture: As Debian names it.
        kernel: The package that depends on the current kernel's package.
        package: What the current kernel's package is called.
        file: What its kernel's name begins with, before the release.
        at_boot: Modules that are loaded always.
        modules: Those and the others, which are loaded when there is a device or a file system for them.
    """

    name: str
    architecture: str
    kernel: str
    package: re.Pattern[str]
    file: str
    at_boot: tuple[str, ...]
    modules: tuple[str, ...]


RISCV64 = Edition(
    name="debian",
    architecture="riscv64",
    kernel="linux-image-riscv64",
    package=re.compile(r"linux-image-\d[a-z0-9.+~-]*-riscv64"),
    file="vmlinux",
    at_boot=("virtio_mmio",),
    modules=("virtio_mmio", *_VIRTIO, "sunxi_wdt", "ext4"),
)
AMD64 = Edition(
    name="debian-amd64",
    architecture="amd64",
    kernel="linux-image-cloud-amd64",  # a kernel for guests: virtio, no drivers of hardware
    package=re.compile(r"linux-image-\d[a-z0-9.+~-]*-cloud-amd64"),
    file="vmlinuz",
    at_boot=("virtio_mmio", "button", "evdev"),
    modules=("virtio_mmio", "button", "evdev", *_VIRTIO, "pvpanic_mmio", "ext4"),
)
EDITIONS = {edition.architecture: edition for edition in (RISCV64, AMD64)}
NAME = RISCV64.name


def pull(
    store: Store, progress: Progress, *, refresh: bool, edition: Edition = RISCV64
) -> tuple[Manifest, bool]:
    """Bring an image into ``store`` unless it is there.

    Args:
        store: Where to.
        progress: Told what happens.
        refresh: Fetch again even if the image is there.
        edition: Which image.

    Returns:
        The image, and whether anything was done.

    Raises:
        ConfigError: apt's tools or Debian's keyring are missing.
        HostError: it could not be fetched, verified or written. The images are as before in each case.
    """
    with store.writing(lambda: progress("waiting for another pull", 0.0)) as writer:
        old = None if refresh else _usable(store, edition)
        if (
            old is not None
            and old.recipe == initramfs.recipe(edition.at_boot)
            and store.intact(old.initrd)
        ):
            return old, False
        manifest = (
            _fetch(writer, progress, edition) if old is None else _rebuild(writer, old, edition)
        )
        writer.publish(manifest)
        if refresh:
            writer.sweep()
        return manifest, True


def _usable(store: Store, edition: Edition) -> Manifest | None:
    """Return the stored image if what was fetched for it is there, whole, and still what we want."""
    if edition.name not in store.names():
        return None
    manifest = store.find(edition.name)
    if manifest is None or manifest.wanted != edition.modules:
        return None
    fetched = [manifest.kernel, *(part.blob for part in manifest.parts)]
    return manifest if all(store.intact(blob) for blob in fetched) else None


def _rebuild(writer: StoreWriter, old: Manifest, edition: Edition) -> Manifest:
    """Make the initrd again from the files that are here; needs no network."""
    parts: list[tuple[str, int, bytes]] = []
    for part in old.parts:
        with open(writer.store.blob_path(part.blob), "rb") as stream:
            parts.append((part.path, part.permissions, stream.read()))
    return Manifest(
        name=edition.name,
        packages=old.packages,
        recipe=initramfs.recipe(edition.at_boot),
        wanted=old.wanted,
        kernel=old.kernel,
        initrd=writer.add_bytes(initramfs.build(parts, edition.at_boot)),
        parts=old.parts,
    )


def _fetch(writer: StoreWriter, progress: Progress, edition: Edition) -> Manifest:
    apt.tools()
    with writer.workspace() as folder:
        for name in ("apt", "debs", "files"):
            os.mkdir(os.path.join(folder, name))
        files = os.path.join(folder, "files")
        debs = _download(folder, progress, edition)
        for number, deb in enumerate(debs.values()):
            progress("unpacking packages", 100.0 * number / len(debs))
            apt.unpack(deb, files)
        progress("building the initramfs", 0.0)
        release = _only(os.path.join(files, "usr/lib/modules"))
        modules = ModuleTree(os.path.join(files, "usr/lib/modules", release)).load_order(
            edition.modules
        )
        with open(os.path.join(files, "usr/bin/busybox"), "rb") as stream:
            parts = [("bin/busybox", 0o755, stream.read())]
        parts += [
            (f"lib/modules/{release}/{module.name}.ko", 0o644, module.data) for module in modules
        ]
        manifest = Manifest(
            name=edition.name,
            packages={package: _version(deb) for package, deb in debs.items()},
            recipe=initramfs.recipe(edition.at_boot),
            wanted=edition.modules,
            kernel=writer.add_file(os.path.join(files, "boot", f"{edition.file}-{release}")),
            initrd=writer.add_bytes(initramfs.build(parts, edition.at_boot)),
            parts=tuple(Part(path, mode, writer.add_bytes(data)) for path, mode, data in parts),
        )
        progress("building the initramfs", 100.0)
        return manifest


def _download(folder: str, progress: Progress, edition: Edition) -> dict[str, str]:
    source = apt.PrivateApt(os.path.join(folder, "apt"), edition.architecture, progress)
    source.update(SUITE, apt.mirrors())
    kernels = [name for name in source.depends(edition.kernel) if edition.package.fullmatch(name)]
    if not kernels:
        raise HostError(
            f"Debian {SUITE}'s {edition.kernel} depends on no kernel package; the images are as before"
        )
    return source.download([kernels[0], BUSYBOX], os.path.join(folder, "debs"))


def _version(deb: str) -> str:
    """Return the version in a package file's name, where apt writes a colon as %3a."""
    return os.path.basename(deb).split("_")[1].replace("%3a", ":")


def _only(folder: str) -> str:
    names = sorted(os.listdir(folder))
    if len(names) != 1:
        raise HostError(
            f"the kernel package has {len(names)} module folders, 1 expected; the images are as before"
        )
    return names[0]
