"""``-sandbox on``: what this program leaves itself, from its configuration; done once, inherited by all that follow.

Everything that the options name is open by then, and the guest has not run. What is listed here is for what comes
later: updates (the interpreter, its library, the release and those that ``-exec-allow`` names), the end (removing
socket files and the pid file), and disks and memory, which rehearsals open anew.

Not on the resume path. Source: own; docs/reference/security.md.
"""

from __future__ import annotations

import os
import sys
from struct import Struct

from instar import log
from instar.cpr.errors import TargetError
from instar.cpr.own import OwnProgram
from instar.errors import HostError
from instar.sandbox import confined, landlock, seccomp
from instar.sandbox.notice import note_confined

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final

    from instar.cli.options import Config

_LIBRARIES: Final = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib")
_SETTINGS: Final = (
    "/etc/ld.so.cache", "/etc/ld.so.preload", "/etc/localtime", "/etc/hosts", "/etc/host.conf", "/etc/resolv.conf",
    "/etc/nsswitch.conf", "/etc/gai.conf", "/etc/services", "/etc/ssl", "/usr/share/zoneinfo", "/usr/share/locale",
    "/proc", "/sys/devices/system/cpu",
)  # fmt: skip
_DEVICES: Final = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_ELF64: Final = Struct("<16xHHIQQQIHHHHHH")
_SEGMENT: Final = Struct("<IIQQQQQQ")
_PT_INTERP: Final = 3
_HEAD: Final = 1 << 16  # bytes that are looked at for the name of a loader
_DEPTH: Final = 4  # as the kernel: interpreters of interpreters


def confine(config: Config) -> None:
    """Confine this process and everything that it will start or become.

    Raises:
        HostError: The kernel cannot; the program must end, for it was asked not to run without.
    """
    try:
        layer = landlock.Layer(scope_signals=not config.children)
        _allow_programs(layer, config)
        _allow_what_options_name(layer, config)
        # The filter first: it sets no_new_privs, which Landlock asks for, and forbids nothing that Landlock needs.
        seccomp.install(confined.RULES, all_threads=True)
        layer.enforce()
    except (OSError, LookupError) as e:
        why = (e.strerror or e) if isinstance(e, OSError) else e
        raise HostError(f"-sandbox on: {why}; nothing was started") from e
    note_confined()


def check_still_confined() -> None:
    """Say so if the program before this one was confined and this one is not: nobody should rely on it."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        rows = {name: value.strip() for name, _, value in (line.partition(":") for line in file)}
    if rows.get("Seccomp") != "2" or rows.get("NoNewPrivs") != "1":
        log.error(
            "-sandbox on: the program before this one handed over a process that is not confined"
        )


def _allow_programs(layer: landlock.Layer, config: Config) -> None:
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    prefixes = {sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix} - {"/", "/usr"}
    library = os.path.dirname(os.path.abspath(os.__file__))
    paths = [path for path in sys.path if path]
    layer.allow([*_LIBRARIES, *_SETTINGS, *prefixes, library, package, *paths], landlock.READ)
    layer.allow(_DEVICES, landlock.READ | landlock.WRITE_FILE | landlock.IOCTL_DEV)
    programs = [*config.exec_allow, sys.executable, os.path.realpath("/proc/self/exe")]
    try:
        own = OwnProgram.find()
    except TargetError as e:
        log.warning(f"{e}; an update of this program has no way back")
    else:
        programs.append(own.target.path)
        own.target.close()
    for path in programs:
        layer.allow(_with_interpreters(path), landlock.READ | landlock.EXECUTE)
        # What a program needs is usually beside the folder that it is in: /opt/x/bin/program, /opt/x/lib.
        beside = os.path.dirname(os.path.dirname(os.path.realpath(path)))
        if beside not in ("/", "/usr") and not os.path.isdir(path):
            layer.allow([beside], landlock.READ)


def _with_interpreters(path: str) -> Iterator[str]:
    """Yield a program and what the kernel starts for it: interpreter, loader."""
    for _ in range(_DEPTH):
        yield path
        if not os.path.isfile(path):
            return
        with open(path, "rb") as file:
            head = file.read(_HEAD)
        path = _interpreter(head)
        if not path:
            return


def _interpreter(head: bytes) -> str:
    if head.startswith(b"#!"):
        words = head[2:].split(b"\n", 1)[0].split()
        return os.fsdecode(words[0]) if words else ""
    if not head.startswith(b"\x7fELF\x02\x01") or len(head) < _ELF64.size:
        return ""
    table, size, count = (_ELF64.unpack_from(head)[n] for n in (4, 8, 9))
    rows = head[table : table + size * count]
    if size != _SEGMENT.size or len(rows) != size * count:
        return ""
    for kind, _, offset, _, _, length, _, _ in _SEGMENT.iter_unpack(rows):
        if kind == _PT_INTERP:
            return os.fsdecode(head[offset : offset + length].rstrip(b"\0"))
    return ""


def _allow_what_options_name(layer: landlock.Layer, config: Config) -> None:
    layer.allow(config.sandbox.read, landlock.READ)
    layer.allow(config.sandbox.write, landlock.WRITE)
    layer.allow([config.kernel or "/dev/null", config.initrd or "/dev/null"], landlock.READ)
    layer.allow([creds.folder for creds in config.tls_creds], landlock.READ)
    layer.allow([rng.filename for rng in config.rngs if rng.filename], landlock.READ)
    if config.incoming.startswith("file:"):
        layer.allow([config.incoming[5:].partition(",")[0]], landlock.READ)
        _allow_marks(layer, config)
    change = landlock.READ | landlock.WRITE_FILE | landlock.TRUNCATE
    files = [backend.mem_path for backend in config.memory_backends if backend.mem_path]
    files += [chardev.path for chardev in config.chardevs if chardev.kind in ("file", "pipe")]
    files += [block.filename for block in config.blocks if not block.read_only]
    layer.allow(files, change)
    layer.allow([block.filename for block in config.blocks if block.read_only], landlock.READ)
    # A socket's file is removed at the end, and one that is opened again is made again: rights of its folder.
    layer.allow(
        [os.path.dirname(os.path.abspath(path)) for path in _sockets(config)],
        landlock.MAKE_SOCK | landlock.REMOVE_FILE,
    )
    if config.pidfile:
        layer.allow([os.path.dirname(os.path.abspath(config.pidfile))], landlock.REMOVE_FILE)


def _allow_marks(layer: landlock.Layer, config: Config) -> None:
    """Who goes on with memory that was left in a file takes its mark away."""
    from instar.migration.left_memory import SUFFIX  # noqa: PLC0415 - only for a confined start

    for backend in config.memory_backends:
        mark = os.path.abspath(backend.mem_path) + SUFFIX
        if backend.mem_path and os.path.isfile(mark):
            layer.allow([mark], landlock.READ)
            layer.allow([os.path.dirname(mark)], landlock.REMOVE_FILE | landlock.READ_DIR)


def _sockets(config: Config) -> Iterator[str]:
    if config.incoming.startswith("unix:"):
        yield config.incoming[5:]
    for chardev in config.chardevs:
        if chardev.kind == "socket" and chardev.server and chardev.path:
            yield chardev.path
    for device in config.devices:
        if path := getattr(device, "uds_path", ""):
            yield str(path)
    for netdev in config.netdevs:
        for name in ("addr.path", "local.path"):
            if path := netdev.options.get(name):
                yield path
