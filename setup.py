"""Build what is compiled: the software CPU (its source is made from the tables), virtqueues, and parts of updates."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from types import ModuleType

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
RV64 = ROOT / "src/instar/cpu/rv64"
MADE = ROOT / "build/rv64"
RINGS = ROOT / "src/instar/virtio/compiled"
KEEPER = "src/instar/cpr/compiled/keeper.c"
DESCRIPTORS = "src/instar/cpr/compiled/descriptors.c"
KVM_RUN = "src/instar/cpu/kvm/compiled/run.c"
FLAGS = ["-O2", "-g0", "-fwrapv", "-fno-strict-aliasing", "-ffp-contract=off"]
# As in the header of the generated core.
DIRECTIVES = {
    "language_level": "3",
    "boundscheck": False,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": False,
    "infer_types": False,
}


def import_packages_without_running_them() -> None:
    """Make ``instar.cpu.rv64.*`` importable before its extension module exists."""
    for name in ("instar", "instar.cpu", "instar.cpu.rv64"):
        if name not in sys.modules:
            module = ModuleType(name)
            module.__path__ = [str(ROOT / "src" / name.replace(".", "/"))]
            sys.modules[name] = module


class BuildCore(build_ext):
    """``build_ext`` that makes the C source first."""

    def finalize_options(self) -> None:
        import_packages_without_running_them()
        from instar.cpu.rv64.gen import generate  # noqa: PLC0415 - the packages are importable from here on

        source = generate(RV64 / "core", MADE)
        core = Extension(
            "instar.cpu.rv64._core", [str(source.relative_to(ROOT))], extra_compile_args=FLAGS
        )
        rings = Extension(
            "instar.virtio.queue",
            [str((RINGS / "queue.py").relative_to(ROOT))],
            extra_compile_args=FLAGS,
        )
        self.distribution.ext_modules = [
            *cythonize([core], include_path=[str(MADE)], build_dir=None),
            *cythonize(
                [rings],
                include_path=[str(RINGS)],
                build_dir="build",
                compiler_directives=DIRECTIVES,
            ),
            # Optional: an update works without, with a longer pause.
            Extension(
                "instar.cpr._keeper",
                [KEEPER],
                extra_compile_args=["-O2", "-g0", "-fno-stack-protector"],
                optional=True,
            ),
            Extension(
                "instar.cpr._descriptors",
                [DESCRIPTORS],
                extra_compile_args=["-O2", "-g0"],
                optional=True,
            ),
        ]
        if sys.platform == "linux" and platform.machine() == "x86_64":
            self.distribution.ext_modules.append(
                Extension("instar.cpu.kvm._run", [KVM_RUN], extra_compile_args=["-O2", "-g0"])
            )
        super().finalize_options()


setup(
    cmdclass={"build_ext": BuildCore},
    # Named here so that the wheel is one for this platform; BuildCore replaces it by the real one.
    ext_modules=[Extension("instar.cpu.rv64._core", [])],
    package_data={
        "instar.cpu.kvm": ["_run.pyi"],
        "instar.cpu.rv64": ["_core.pyi"],
        "instar.virtio": ["queue.pyi"],
        "instar.cpr": ["_descriptors.pyi", "_keeper.pyi"],
    },
)
