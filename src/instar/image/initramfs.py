"""Make the initramfs: busybox, kernel modules, and our own start script.

Not compressed: unpacking would cost the guest more than the host saves, and the bytes then depend on nothing but the
files that went in. Source: own.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, NamedTuple

from instar.image import cpio
from instar.image.kmodules import canonical, modinfo, needs

if TYPE_CHECKING:
    from collections.abc import Sequence

LAYOUT = 2  # of the initramfs; raised when this module makes another one of the same files
FOLDERS = (
    "bin",
    "dev",
    "etc",
    "lib",
    "lib/modules",
    "mnt",
    "proc",
    "root",
    "run",
    "sbin",
    "sys",
    "tmp",
    "usr",
)
LINKS = ("bin/sh", "sbin/modprobe")  # needed before /init has made all of busybox's names
SCRIPTS = ("init", "diskverify", "logverify", "work")  # ours, beside this module in guest/


def scripts() -> dict[str, bytes]:
    """Return our scripts, name to text."""
    here = os.path.join(os.path.dirname(os.path.abspath(__file__)), "guest")
    found: dict[str, bytes] = {}
    for name in SCRIPTS:
        with open(os.path.join(here, name), "rb") as stream:
            found[name] = stream.read()
    return found


def recipe(at_boot: Sequence[str]) -> str:
    """Return a digest of everything of ours that shapes an initramfs."""
    digest = hashlib.sha256(f"{LAYOUT} {' '.join(at_boot)}\n".encode())
    for name, text in scripts().items():
        digest.update(b"%s %d\n" % (name.encode(), len(text)) + text)
    return digest.hexdigest()


def build(parts: Sequence[tuple[str, int, bytes]], at_boot: Sequence[str]) -> bytes:
    """Return the initramfs; the same files give the same bytes.

    Modules that are not loaded at boot are found by the kernel itself when it needs them (a file system to mount), so
    the tables of modprobe(8) are made too.

    Args:
        parts: Path, permissions and contents of the foreign files: ``bin/busybox``, and below ``lib/modules/RELEASE/``
            the modules, each after those that it needs.
        at_boot: Names of the modules to load at boot, with all that they need.

    Raises:
        ConfigError: a module is damaged.

    Source: own; tables as in modules.dep(5) and kmod's modules.alias.
    """
    modules = [
        Found(path, canonical_stem(path), modinfo(data))
        for path, _, data in parts
        if path.endswith(".ko")
    ]
    ours = scripts()
    boot = [f"/{module.path}\n" for module in modules if module.name in _closure(modules, at_boot)]
    entries = [
        *(
            cpio.directory(path)
            for path in (*FOLDERS, *sorted({os.path.dirname(module.path) for module in modules}))
        ),
        cpio.character_device("dev/console", 5, 1),
        cpio.character_device("dev/null", 1, 3),
        *(cpio.file(path, data, permissions) for path, permissions, data in parts),
        *_tables(modules),
        cpio.file("etc/modules-at-boot", "".join(boot).encode()),
        cpio.file(
            "etc/filesystems", b"ext4\n"
        ),  # what mount tries; the kernel then asks for the module
        *(cpio.link(path, "/bin/busybox") for path in LINKS),
        cpio.file("init", ours["init"], 0o755),
        *(cpio.file(f"bin/{name}", ours[name], 0o755) for name in SCRIPTS if name != "init"),
    ]
    return cpio.archive(entries)


class Found(NamedTuple):
    """A module in the initramfs: path, canonical name, what it says of itself."""

    path: str
    name: str
    info: dict[str, list[str]]


def canonical_stem(path: str) -> str:
    """Return the module name in a path."""
    return canonical(os.path.basename(path).removesuffix(".ko"))


def _closure(modules: Sequence[Found], names: Sequence[str]) -> set[str]:
    """Return ``names`` and all that they need; ``modules`` come after what they need, so one pass back is enough."""
    needed = {canonical(name) for name in names}
    for module in reversed(modules):
        if module.name in needed:
            needed.update(canonical(name) for name in needs(module.info))
    return needed


def _tables(modules: Sequence[Found]) -> list[cpio.Entry]:
    """Return modules.dep and modules.alias of the one folder that the modules are in."""
    if not modules:
        return []
    folder = os.path.dirname(modules[0].path)
    files = {module.name: os.path.basename(module.path) for module in modules}
    dep: list[str] = []
    for module in modules:
        needed = _closure(modules, [module.name]) - {module.name}
        before = [
            files[name] for name in reversed(files) if name in needed
        ]  # modprobe loads from the right
        dep.append(f"{' '.join([files[module.name] + ':', *before])}\n")
    alias = [
        f"alias {text} {module.name}\n"
        for module in modules
        for text in module.info.get("alias", [])
    ]
    return [
        cpio.file(f"{folder}/modules.dep", "".join(dep).encode()),
        cpio.file(f"{folder}/modules.alias", "".join(alias).encode()),
    ]
