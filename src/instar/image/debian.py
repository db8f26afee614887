"""The image ``debian``: Debian's stock riscv64 kernel and busybox, with our start script.

Source: own.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from instar.errors import HostError
from instar.image import apt, initramfs
from instar.image.kmodules import ModuleTree
from instar.image.manifest import Manifest, Part

if TYPE_CHECKING:
    from instar.image.apt import Progress
    from instar.image.store import Store, StoreWriter

NAME = "debian"
SUITE = "trixie"
ARCHITECTURE = "riscv64"
KERNEL = "linux-image-riscv64"  # depends on the current kernel's package
BUSYBOX = "busybox-static"
BOOT_MODULES = (
    "virtio_mmio",
)  # loaded always; the others when there is a device or a file system for them
MODULES = (
    *BOOT_MODULES,
    "virtio_blk",
    "virtio_rng",
    "virtio_net",
    "vsock",
    "vmw_vsock_virtio_transport",
    "virtio_balloon",
    "sunxi_wdt",
    "ext4",
)
IMAGE_PACKAGE = re.compile(r"linux-image-\d[a-z0-9.+~-]*-riscv64")


def pull(store: Store, progress: Progress, *, refresh: bool) -> tuple[Manifest, bool]:
    """Bring the image into ``store`` unless it is there.

    Args:
        store: Where to.
        progress: Told what happens.
        refresh: Fetch again even if the image is there.

    Returns:
        The image, and whether anything was done.

    Raises:
        ConfigError: apt's tools or Debian's keyring are missing.
        HostError: it could not be fetched, verified or written. The images are as before in each case.
    """
    with store.writing(lambda: progress("waiting for another pull", 0.0)) as writer:
        old = None if refresh else _usable(store)
        if (
            old is not None
            and old.recipe == initramfs.recipe(BOOT_MODULES)
            and store.intact(old.initrd)
        ):
            return old, False
        manifest = _fetch(writer, progress) if old is None else _rebuild(writer, old)
        writer.publish(manifest)
        if refresh:
            writer.sweep()
        return manifest, True


def _usable(store: Store) -> Manifest | None:
    """Return the stored image if what was fetched for it is there, whole, and still what we want."""
    if NAME not in store.names():
        return None
    manifest = store.find(NAME)
    if manifest is None or manifest.wanted != MODULES:
        return None
    fetched = [manifest.kernel, *(part.blob for part in manifest.parts)]
    return manifest if all(store.intact(blob) for blob in fetched) else None


def _rebuild(writer: StoreWriter, old: Manifest) -> Manifest:
    """Make the initrd again from the files that are here; needs no network."""
    parts: list[tuple[str, int, bytes]] = []
    for part in old.parts:
        with open(writer.store.blob_path(part.blob), "rb") as stream:
            parts.append((part.path, part.permissions, stream.read()))
    return Manifest(
        name=NAME,
        packages=old.packages,
        recipe=initramfs.recipe(BOOT_MODULES),
        wanted=old.wanted,
        kernel=old.kernel,
        initrd=writer.add_bytes(initramfs.build(parts, BOOT_MODULES)),
        parts=old.parts,
    )


def _fetch(writer: StoreWriter, progress: Progress) -> Manifest:
    apt.tools()
    with writer.workspace() as folder:
        for name in ("apt", "debs", "files"):
            os.mkdir(os.path.join(folder, name))
        files = os.path.join(folder, "files")
        debs = _download(os.path.join(folder, "apt"), os.path.join(folder, "debs"), progress)
        for number, deb in enumerate(debs.values()):
            progress("unpacking packages", 100.0 * number / len(debs))
            apt.unpack(deb, files)
        progress("building the initramfs", 0.0)
        release = _only(os.path.join(files, "usr/lib/modules"))
        modules = ModuleTree(os.path.join(files, "usr/lib/modules", release)).load_order(MODULES)
        with open(os.path.join(files, "usr/bin/busybox"), "rb") as stream:
            parts = [("bin/busybox", 0o755, stream.read())]
        parts += [
            (f"lib/modules/{release}/{module.name}.ko", 0o644, module.data) for module in modules
        ]
        manifest = Manifest(
            name=NAME,
            packages={package: _version(deb) for package, deb in debs.items()},
            recipe=initramfs.recipe(BOOT_MODULES),
            wanted=MODULES,
            kernel=writer.add_file(os.path.join(files, "boot", f"vmlinux-{release}")),
            initrd=writer.add_bytes(initramfs.build(parts, BOOT_MODULES)),
            parts=tuple(Part(path, mode, writer.add_bytes(data)) for path, mode, data in parts),
        )
        progress("building the initramfs", 100.0)
        return manifest


def _download(private: str, into: str, progress: Progress) -> dict[str, str]:
    source = apt.PrivateApt(private, ARCHITECTURE, progress)
    source.update(SUITE, apt.mirrors())
    kernels = [name for name in source.depends(KERNEL) if IMAGE_PACKAGE.fullmatch(name)]
    if not kernels:
        raise HostError(
            f"Debian {SUITE}'s {KERNEL} depends on no kernel package; the images are as before"
        )
    return source.download([kernels[0], BUSYBOX], into)


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
