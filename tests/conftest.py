"""Fixtures that all kinds of tests share."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from harness import VIRT
from needs import NEEDS, bare_guests_cannot_run
from tickers import Ticker, on_kvm, on_software


@pytest.fixture(scope="session")
def ticker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bare-metal guest of the software CPU as a kernel file."""
    return on_software(tmp_path_factory.mktemp("guest"), TICK_EVERY=10).kernel  # ten a second


@pytest.fixture(scope="session")
def ticker_for_kvm(tmp_path_factory: pytest.TempPathFactory) -> Ticker:
    """The same for KVM."""
    return on_kvm(tmp_path_factory.mktemp("guest"), TICK_EVERY=10)


@pytest.fixture(params=["software", "kvm"])
def backend(request: pytest.FixtureRequest) -> str:
    """Each CPU back end that this host can run a bare guest with."""
    if request.param == "kvm" and (why := bare_guests_cannot_run()):
        pytest.skip(why)
    return request.param


@pytest.fixture
def guest(backend: str, request: pytest.FixtureRequest) -> Ticker:
    """The bare-metal guest on each CPU back end."""
    if backend == "kvm":
        return request.getfixturevalue("ticker_for_kvm")
    return Ticker(VIRT, request.getfixturevalue("ticker"))


class Debian:
    """A pulled image of Debian: stock kernel, initramfs with busybox."""

    def __init__(self, image: str = "debian") -> None:
        self.kernel, self.initrd = (image_path(image, kind) for kind in ("kernel", "initrd"))

    def arguments(self, append: str = "console=ttyS0 quiet") -> list[str]:
        return ["-kernel", self.kernel, "-initrd", self.initrd, "-append", append]


def image_path(image: str, kind: str) -> str:
    command = [Path(sys.executable).parent / "instar", "image", "path", image, kind]
    return subprocess.check_output(command, text=True).strip()


@pytest.fixture(scope="session")
def debian() -> Debian:
    """Debian's riscv64 kernel and our initramfs; ``make test`` has pulled them."""
    return Debian()


@pytest.fixture(scope="session")
def debian_amd64() -> Debian:
    """Debian's cloud kernel for x86-64 and our initramfs; ``make test-kvm`` has pulled them."""
    return Debian("debian-amd64")


HERE = Path(__file__).resolve().parent
NOT_RUN = pytest.StashKey[dict[str, str]]()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out a module that cannot run here."""
    path = collection_path.relative_to(HERE)
    name = path.as_posix()
    why = NEEDS.get(name, NEEDS.get(f"{path.parent}/", str))()
    if why:
        config.stash.setdefault(NOT_RUN, {})[name] = why
        return True
    return None


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say what was left out."""
    for name, why in sorted(config.stash.get(NOT_RUN, {}).items()):
        terminalreporter.write_line(f"not run: tests/{name}: {why}")
