"""Packages of this machine's own Debian release, fetched with apt's verification and unpacked into ``.cache/debian``.

Nothing is installed and no root is needed; what is there already is not fetched again.
"""

from __future__ import annotations

import os
import platform
import subprocess
import tempfile
from typing import TYPE_CHECKING

from instar.errors import ConfigError
from instar.image import apt

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CACHE = os.path.join(ROOT, ".cache")
INSTALLED = "/var/lib/dpkg/status"


def unpacked(name: str) -> str:
    """Return the folder with the files of the package ``name`` alone.

    Raises:
        ConfigError: this is no Debian, or apt's tools or Debian's keyring are missing.
        HostError: it could not be fetched. Nothing is left in both cases.
    """
    return _unpacked(name, lambda source, into: source.download([name], into))


def unpacked_with_needs(label: str, names: list[str]) -> str:
    """Return the folder with the files of ``names`` and of all that they need and that is not installed.

    Args:
        label: Name of the folder.
        names: Package names.

    Raises:
        ConfigError, HostError: as :func:`unpacked`.
    """
    return _unpacked(label, lambda source, into: source.download_missing(names, into))


def _unpacked(label: str, fetch: Callable[[apt.PrivateApt, str], dict[str, str]]) -> str:
    folder = os.path.join(CACHE, "debian", label)
    if os.path.isdir(folder):
        return folder
    release = platform.freedesktop_os_release()
    if release.get("ID") != "debian" or "VERSION_CODENAME" not in release:
        system = release.get("PRETTY_NAME", "this system")
        raise ConfigError(
            f"'{label}' can be fetched on a Debian release only, and this is {system}"
        ).hint(f"install what it is for as root (on Debian it would be {label})")
    apt.tools()
    print(f"fetching {label} from Debian {release['VERSION_CODENAME']}, into .cache", flush=True)
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as work:
        debs, files = os.path.join(work, "debs"), os.path.join(work, "files")
        os.mkdir(debs)
        os.mkdir(files)
        source = apt.PrivateApt(work, architecture(), lambda _phase, _percent: None, INSTALLED)
        source.update(release["VERSION_CODENAME"], apt.mirrors())
        for deb in fetch(source, debs).values():
            apt.unpack(deb, files)
        os.rename(files, folder)
    return folder


def architecture() -> str:
    """Return Debian's name of this machine's architecture."""
    done = subprocess.run(
        ["dpkg", "--print-architecture"], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()
