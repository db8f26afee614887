"""Make ``.venv`` and find a compiler, as any user (``tools/bootstrap`` runs this).

What is missing on the machine is brought into private folders: pip and Python's headers from Debian by apt's own
tools, with verification; a C compiler from the package index. Run again, it does only what is still to be done.

Usage: ``tools/bootstrap build`` (for ``make build``) or ``tools/bootstrap test`` (for ``make test`` too).
"""

from __future__ import annotations

import glob
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "src"))

from debian_packages import CACHE, unpacked, unpacked_with_needs  # noqa: E402  # the path comes first

from instar.errors import HostError, InstarError  # noqa: E402

VENV = os.path.join(ROOT, ".venv")
PYTHON = os.path.join(VENV, "bin", "python")
BUILD_ENV = os.path.join(CACHE, "build.env")
PEERS_BIN = os.path.join(CACHE, "peers")
PEERS = {
    "dtc": "device-tree-compiler",
    "passt": "passt",
    "qemu-riscv64": "qemu-user",
    "qemu-storage-daemon": "qemu-system-common",
    "qemu-system-x86_64": "qemu-system-x86",
    "riscv64-linux-gnu-objdump": "binutils-riscv64-linux-gnu",
}
PROBE = """\
#include <Python.h>
#include <fenv.h>
#include <math.h>
double probe(double x) { return Py_IsInitialized() ? sqrt(x) : fegetround(); }
"""
# Floating point must do what the source says on any machine: no fused operations, no newer instructions.
ZIG_FLAGS = "-fno-sanitize=undefined -ffp-contract=off -mcpu=baseline"


def main(words: list[str]) -> int:
    """Run one of the two uses; returns the exit status (0, 2 wrong use, 3 the host refused)."""
    if words not in (["build"], ["test"]):
        print("usage: tools/bootstrap build|test", file=sys.stderr)
        return 2
    os.makedirs(CACHE, exist_ok=True)
    try:
        make_venv()
        if words == ["build"]:
            install("requirements-build.txt")
            find_compiler()
        else:
            install("requirements-dev.txt")
            find_peers()
    except InstarError as exc:
        print("\n".join([f"bootstrap: {exc}", *getattr(exc, "__notes__", [])]), file=sys.stderr)
        return 3
    return 0


def say(text: str) -> None:
    """Tell the person what happens."""
    print(f"bootstrap: {text}", flush=True)


def run(command: list[str], what: str) -> None:
    """Run a command whose output the person sees.

    Raises:
        HostError: it failed.
    """
    status = subprocess.run(command, cwd=ROOT, check=False, stdin=subprocess.DEVNULL).returncode
    if status:
        raise HostError(
            f"{what} failed (status {status}); its reason stands above, and 'make' goes on from here"
        )


# --- the environment -------------------------------------------------------------------------------------------------


def make_venv() -> None:
    """Make ``.venv`` with pip in it unless both are there and run."""
    if not works([PYTHON, "-c", "import sys"]):
        say(f"making .venv with Python {platform.python_version()}")
        shutil.rmtree(VENV, ignore_errors=True)
        run([sys.executable, "-m", "venv", "--without-pip", VENV], "making .venv")
    if works([PYTHON, "-m", "pip", "--version"]):
        return
    if importlib.util.find_spec("ensurepip") is not None and works([PYTHON, "-m", "ensurepip"]):
        return
    folder = unpacked("python3-pip-whl")
    wheels = glob.glob(f"{folder}/usr/share/python-wheels/pip-*.whl")
    if not wheels:
        raise HostError(
            "Debian's python3-pip-whl has no wheel of pip; install python3-venv as root"
        )
    run(
        [PYTHON, f"{wheels[0]}/pip", "install", "--quiet", "--no-index", wheels[0]],
        "installing pip",
    )


def install(requirements: str) -> None:
    """Install the pinned packages of a requirements file into ``.venv``."""
    say(f"installing {requirements}")
    quiet = ["--quiet", "--disable-pip-version-check", "--no-input"]
    run([PYTHON, "-m", "pip", "install", *quiet, "-r", requirements], f"installing {requirements}")


def works(command: list[str]) -> bool:
    """Return whether a command can be run and succeeds."""
    try:
        return (
            subprocess.run(
                command, check=False, capture_output=True, stdin=subprocess.DEVNULL
            ).returncode
            == 0
        )
    except OSError:
        return False


# --- the compiler ----------------------------------------------------------------------------------------------------


def find_compiler() -> None:
    """Write ``.cache/build.env``: shell assignments under which extensions can be built here."""
    headers: list[str] = []
    if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
        headers = fetch_headers()
    flags = " ".join(f"-I{folder}" for folder in headers)
    compiler = os.environ.get("CC", "cc")
    if compiles(compiler, flags):
        settings = {"CFLAGS": flags}
    else:
        compiler = fetch_compiler()
        if not compiles(compiler, flags):
            raise HostError(
                "no C compiler works here; install the package gcc as root, then run 'make' again"
            )
        settings = {"CFLAGS": flags, "CC": compiler, "LDSHARED": f"{compiler} -shared"}
        settings["ZIG_GLOBAL_CACHE_DIR"] = os.path.join(CACHE, "zig")
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in settings.items() if value]
    with open(BUILD_ENV, "w", encoding="utf-8") as stream:
        stream.write("# made by tools/bootstrap\n" + "".join(lines))


def compiles(compiler: str, flags: str) -> bool:
    """Return whether ``compiler`` makes a Python extension of a program with the headers that ours need."""
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        source = os.path.join(folder, "probe.c")
        with open(source, "w", encoding="utf-8") as stream:
            stream.write(PROBE)
        include = f"-I{sysconfig.get_path('include')}"
        words = [*shlex.split(compiler), "-shared", "-fPIC", "-O2", include, *shlex.split(flags)]
        return works([*words, source, "-o", os.path.join(folder, "probe.so"), "-lm"])


def fetch_compiler() -> str:
    """Install a C compiler into ``.venv`` and return its command."""
    say("fetching a C compiler (there is no working cc here)")
    install("requirements-compiler.txt")
    os.environ["ZIG_GLOBAL_CACHE_DIR"] = os.path.join(CACHE, "zig")
    return f"{shlex.quote(PYTHON)} -m ziglang cc {ZIG_FLAGS}"


def fetch_headers() -> list[str]:
    """Fetch Python's headers from Debian and return the folders to search."""
    package = f"libpython{sys.version_info.major}.{sys.version_info.minor}-dev"
    folder = unpacked(package)
    inner = os.path.join(
        folder, "usr", "include", f"python{sys.version_info.major}.{sys.version_info.minor}"
    )
    if not os.path.exists(os.path.join(inner, "Python.h")):
        raise HostError(f"Debian's {package} has no Python.h; install Python's headers as root")
    return [inner, os.path.dirname(inner)]


# --- other people's programs that tests compare with -----------------------------------------------------------------


def show_what_is_installed(root: str) -> None:
    """Let a QEMU that was fetched find beside it what was not, because this machine has it: modules and firmware."""
    for place in (f"lib/{platform.machine()}-linux-gnu/qemu", "share/qemu", "share/seabios"):
        link, there = os.path.join(root, "usr", place), os.path.join("/usr", place)
        if os.path.isdir(there) and not os.path.lexists(link):
            os.makedirs(os.path.dirname(link), exist_ok=True)
            os.symlink(there, link)


def find_peers() -> None:
    """Make the programs that tests in tests/peers use callable from ``.cache/peers``, where the machine has none.

    A machine where they cannot be had is no failure: those tests then say that they were not run, and why.
    """
    os.makedirs(PEERS_BIN, exist_ok=True)
    missing = {
        program: package for program, package in PEERS.items() if shutil.which(program) is None
    }
    if not missing:
        return
    binaries = os.path.join(CACHE, "debian", "peers", "usr", "bin")
    if not all(os.path.exists(os.path.join(binaries, program)) for program in missing):
        shutil.rmtree(
            os.path.join(CACHE, "debian", "peers"), ignore_errors=True
        )  # of a shorter list
    try:
        root = unpacked_with_needs("peers", sorted(missing.values()))
    except InstarError as exc:
        say(f"tests that need {', '.join(sorted(missing.values()))} will not run: {exc}")
        return
    libraries = f"{root}/usr/lib/{platform.machine()}-linux-gnu"
    show_what_is_installed(root)
    for program in missing:
        path = os.path.join(PEERS_BIN, program)
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(
                f"#!/bin/sh\nLD_LIBRARY_PATH='{libraries}' exec '{root}/usr/bin/{program}' \"$@\"\n"
            )
        os.chmod(path, 0o755)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
