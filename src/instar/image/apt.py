"""Fetch Debian packages with apt's own tools and verification, in private folders, as any user.

Nothing of the system's apt is changed, and nothing unverified is ever taken: apt checks each release file against the
machine's Debian keyring and each package against the release file.

Source: apt.conf(5), sources.list(5), apt-get(8); APT::Status-Fd as in apt's README.progress-reporting.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

from instar.errors import ConfigError, HostError

if TYPE_CHECKING:
    from collections.abc import Callable

    Progress = Callable[[str, float], None]  # what happens now; per cent done, 0 to 100

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
DEFAULT_MIRROR = "http://deb.debian.org/debian"
SOURCES = "/etc/apt"
MIRRORS = 3  # tried before giving up: each may take minutes to fail
PACKAGE_NAME = re.compile(r"[a-z0-9][a-z0-9+.\-]{1,127}")
MIRROR_URI = re.compile(
    r"(?:https?|file):/[!-Z^-~]*/debian/?"
)  # no space, no bracket: it goes into a list file
OUT_OF_STEP = re.compile(r"Mirror sync in progress|Hash Sum mismatch")
# Mirrors and caches before them have files of their own under each of these; the release file says which it is.
OTHER_NAMES = {"trixie": "stable", "bookworm": "oldstable"}
# What the system's configuration may not turn off.
STRICT = (
    "Acquire::AllowInsecureRepositories=false",
    "Acquire::AllowWeakRepositories=false",
    "Acquire::AllowDowngradeToInsecureRepositories=false",
    "APT::Get::AllowUnauthenticated=false",
    "APT::Update::Error-Mode=any",
)


def tools() -> None:
    """Check that apt's tools and Debian's keyring are on this machine.

    Raises:
        ConfigError: one is missing; the sentence names the package.
    """
    for program, package in (("apt-get", "apt"), ("apt-cache", "apt"), ("dpkg-deb", "dpkg")):
        if shutil.which(program) is None:
            raise ConfigError(
                f"'{program}' is not on this machine (package {package}); nothing was fetched"
            )
    if not os.path.exists(KEYRING):
        raise ConfigError(
            f"{KEYRING} is not on this machine (package debian-archive-keyring), "
            "so nothing from Debian can be verified; nothing was fetched"
        )


def mirrors(folder: str = SOURCES) -> list[str]:
    """Return Debian mirrors to try, at most 3: those the machine's apt uses, then Debian's own.

    Args:
        folder: Where ``sources.list`` and ``sources.list.d`` are.

    Source: sources.list(5), both formats.
    """
    uris: list[str] = []
    for path in _source_files(folder):
        try:
            with open(path, encoding="utf-8", errors="replace") as stream:
                text = stream.read()
        except OSError:
            continue  # a list that only root may read: the other lists and the default remain
        uris += _deb822_uris(text) if path.endswith(".sources") else _one_line_uris(text)
    usable = [uri.rstrip("/") for uri in uris if MIRROR_URI.fullmatch(uri)]
    first = list(dict.fromkeys(usable))[: MIRRORS - 1]
    return list(dict.fromkeys([*first, DEFAULT_MIRROR]))


def _source_files(folder: str) -> list[str]:
    parts = os.path.join(folder, "sources.list.d")
    try:
        names = sorted(os.listdir(parts))
    except OSError:
        names = []
    files = [os.path.join(parts, name) for name in names if name.endswith((".list", ".sources"))]
    return [
        path for path in (os.path.join(folder, "sources.list"), *files) if os.path.isfile(path)
    ]


def _deb822_uris(text: str) -> list[str]:
    uris: list[str] = []
    for stanza in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        key = ""
        for line in stanza.splitlines():
            if line.startswith("#"):
                continue
            if line[:1] in (" ", "\t"):
                fields[key] = f"{fields.get(key, '')} {line}"
            else:
                key, _, value = line.partition(":")
                key = key.strip().lower()
                fields[key] = value
        if (
            "deb" in fields.get("types", "").split()
            and fields.get("enabled", "yes").strip().lower() != "no"
        ):
            uris += fields.get("uris", "").split()
    return uris


def _one_line_uris(text: str) -> list[str]:
    found = re.finditer(r"^[ \t]*deb[ \t]+(?:\[[^\]\n]*\][ \t]+)?(\S+)", text, re.MULTILINE)
    return [match[1] for match in found]


class PrivateApt:
    """apt with its lists and cache in a folder of ours.

    Args:
        folder: An existing folder that belongs to us.
        architecture: Debian's name of the packages' architecture.
        progress: Called while something is fetched.
        installed: dpkg's status file, so that :meth:`download_missing` knows what is there; by default nothing is.

    Source: own.
    """

    def __init__(
        self, folder: str, architecture: str, progress: Progress, installed: str = ""
    ) -> None:
        self._folder = folder
        self._progress = progress
        self._options = [
            f"APT::Architecture={architecture}",
            f"APT::Architectures={architecture}",
            f"Dir::State::Lists={folder}/lists",
            f"Dir::State::status={installed or f'{folder}/status'}",
            f"Dir::Cache={folder}/cache",
            "Dir::Cache::pkgcache=",
            f"Dir::Etc::SourceList={folder}/sources.list",
            "Dir::Etc::SourceParts=/dev/null",
            "APT::Sandbox::User=root",  # root reads these folders, no other user could; others never switch
            "Acquire::Languages=none",
            "Acquire::Retries=3",
            "Acquire::http::Timeout=60",
            "Acquire::https::Timeout=60",
            "Quiet::NoUpdate=true",
            *STRICT,
        ]

    def update(self, suite: str, candidates: list[str]) -> str:
        """Fetch and verify the package list of ``suite`` from the first of ``candidates`` that works.

        Returns:
            The mirror that worked; later calls use it.

        Raises:
            HostError: none worked; the sentence has apt's reason for the last one.
        """
        for folder in ("lists/partial", "cache/archives/partial"):
            os.makedirs(os.path.join(self._folder, folder), exist_ok=True)
        _write(os.path.join(self._folder, "status"), "")
        failure: HostError | None = None
        for mirror in candidates:
            try:
                self._update(suite, mirror)
            except HostError as exc:
                failure = exc
            else:
                return mirror
            if OUT_OF_STEP.search(str(failure)) and self._update_by_other_name(suite, mirror):
                return mirror
        raise failure or HostError("there is no Debian mirror to try; nothing was fetched")

    def _update(self, name: str, mirror: str) -> None:
        options = f"signed-by={KEYRING} target=Packages"
        _write(
            os.path.join(self._folder, "sources.list"), f"deb [{options}] {mirror} {name} main\n"
        )
        self._fetch(["apt-get", "update"], f"package lists of Debian {name}")

    def _update_by_other_name(self, suite: str, mirror: str) -> bool:
        """Try the lists that a mirror in the middle of a change has under another name of the suite."""
        name = OTHER_NAMES.get(suite, "")
        if not name:
            return False
        try:
            self._update(name, mirror)
        except HostError:
            return False  # what went wrong with the suite's own name is the better reason
        return self._codename(name) == suite

    def _codename(self, name: str) -> str:
        """Return whose lists are here under this name, as the signed release file says."""
        lists = os.path.join(self._folder, "lists")
        for file in os.listdir(lists):
            if file.endswith(f"_dists_{name}_InRelease"):
                with open(os.path.join(lists, file), encoding="utf-8", errors="replace") as stream:
                    found = re.search(r"^Codename: (\S+)$", stream.read(), re.MULTILINE)
                return found[1] if found else ""
        return ""

    def depends(self, package: str) -> list[str]:
        """Return the names that ``package`` depends on, in apt's order.

        Raises:
            HostError: apt does not know ``package``.
        """
        output = self._run(["apt-cache", "depends", "--important", _checked(package)])
        names = re.findall(r"^ +Depends: (\S+)", output, re.MULTILINE)
        return [name for name in names if PACKAGE_NAME.fullmatch(name)]

    def download(self, packages: list[str], into: str) -> dict[str, str]:
        """Fetch and verify packages.

        Args:
            packages: Names known from :meth:`update`.
            into: An existing empty folder.

        Returns:
            Package name to path of its ``.deb``.

        Raises:
            HostError: apt refused or could not; ``into`` may hold some of the packages.
        """
        names = [_checked(name) for name in packages]
        self._fetch(["apt-get", "download", *names], "packages", cwd=into)
        found = _debs(into)
        missing = [name for name in names if name not in found]
        if missing:
            raise HostError(f"apt-get download brought no {missing[0]}")
        return found

    def download_missing(self, packages: list[str], into: str) -> dict[str, str]:
        """Fetch and verify packages with all that they need and that is not installed; nothing gets installed.

        Args:
            packages: Names known from :meth:`update`.
            into: An existing empty folder.

        Returns:
            Package name to path of its ``.deb``.

        Raises:
            HostError: apt refused or could not; ``into`` may hold some of the packages.
        """
        names = [_checked(name) for name in packages]
        os.makedirs(os.path.join(into, "partial"), exist_ok=True)
        extra = (
            f"Dir::Cache::archives={into}",
            "Debug::NoLocking=true",
            "APT::Install-Recommends=false",
        )
        self._fetch(
            ["apt-get", "--yes", "--download-only", "install", *names], "packages", extra=extra
        )
        return _debs(into)

    def _command(self, words: list[str], extra: tuple[str, ...] = ()) -> list[str]:
        options = [word for option in (*self._options, *extra) for word in ("-o", option)]
        return [words[0], "-q", *options, *words[1:]]

    def _run(self, words: list[str]) -> str:
        return _capture(self._command(words), words)

    def _fetch(
        self, words: list[str], what: str, *, cwd: str | None = None, extra: tuple[str, ...] = ()
    ) -> None:
        """Run one of apt-get's fetching commands and pass its progress on."""
        reader, writer = os.pipe()
        said = os.path.join(self._folder, "said")
        with open(reader, encoding="utf-8", errors="replace") as lines, open(said, "wb") as log:
            try:
                process = subprocess.Popen(  # noqa: S603  # our own words, as in _capture
                    self._command(words, (*extra, f"APT::Status-Fd={writer}")),
                    cwd=cwd,
                    env=_environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(writer,),
                )
            finally:
                os.close(writer)
            try:
                for line in lines:
                    self._report(line, what)
                status = process.wait()
            except BaseException:
                process.terminate()
                process.wait()
                raise
        if status:
            with open(said, encoding="utf-8", errors="replace") as log:
                raise _refusal(words, status, log.read())

    def _report(self, line: str, what: str) -> None:
        kind, _, rest = line.partition(":")
        words = rest.split(":")
        if kind == "dlstatus" and len(words) >= 2:
            try:
                self._progress(f"fetching {what}", float(words[1]))
            except ValueError:
                return  # a line of another apt; progress is for show


def unpack(deb: str, folder: str) -> None:
    """Unpack a package's files into an existing folder.

    Raises:
        HostError: dpkg-deb could not; ``folder`` may hold some of the files.
    """
    _capture(["dpkg-deb", "-x", deb, folder], ["dpkg-deb", "-x"])


def _capture(command: list[str], said_as: list[str]) -> str:
    """Run a command to its end and return its output; ``said_as`` names it if it fails."""
    done = subprocess.run(  # noqa: S603  # our own words; names from outside passed _checked
        command,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        raise _refusal(said_as, done.returncode, done.stderr)
    return done.stdout


def _debs(folder: str) -> dict[str, str]:
    """Return the packages in a folder, name to path."""
    files = sorted(file for file in os.listdir(folder) if file.endswith(".deb"))
    return {file.partition("_")[0]: os.path.join(folder, file) for file in files}


def _checked(name: str) -> str:
    """Return ``name``: one that could be an option or a path never reaches apt."""
    if not PACKAGE_NAME.fullmatch(name):
        raise HostError(f"{name!r} is no Debian package name; nothing was fetched")
    return name


def _environment() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}


def _refusal(words: list[str], status: int, said: str) -> HostError:
    """Return the error that quotes apt's own last reason."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    reasons = [line for line in lines if line.startswith(("E:", "dpkg-deb: error"))]
    reasons += [line for line in lines if line.startswith("Err:")] or lines
    reason = reasons[0] if reasons else "it gave no reason"
    return HostError(f"{' '.join(words[:2])} failed (status {status}): {reason[:300]}")


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(text)
