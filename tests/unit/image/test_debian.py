"""The images that can be pulled: for each board one, by name or by architecture."""

from __future__ import annotations

import pytest

from instar.cli.tool import _edition, parser
from instar.errors import ConfigError
from instar.image import debian


def chosen(line: str) -> str:
    return _edition(parser().parse_args(["image", "pull", *line.split()])).name


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("debian", "debian"),
        ("debian --arch riscv64", "debian"),
        ("debian --arch amd64", "debian-amd64"),
        ("debian-amd64", "debian-amd64"),
        ("debian-amd64 --arch amd64", "debian-amd64"),
    ],
)
def test_image_is_chosen_by_name_or_by_architecture(line, name):
    assert chosen(line) == name


def test_image_of_another_architecture_is_refused():
    with pytest.raises(ConfigError, match="'debian-amd64' is not for riscv64"):
        chosen("debian-amd64 --arch riscv64")


@pytest.mark.parametrize(
    ("edition", "package", "fits"),
    [
        (debian.AMD64, "linux-image-6.12.117+deb13-cloud-amd64", True),
        (debian.AMD64, "linux-image-6.12.117+deb13-amd64", False),
        (debian.AMD64, "linux-image-cloud-amd64", False),
        (debian.RISCV64, "linux-image-6.12.107+deb13-riscv64", True),
        (debian.RISCV64, "linux-image-riscv64", False),
    ],
)
def test_kernel_package_is_the_one_with_a_version(edition, package, fits):
    assert bool(edition.package.fullmatch(package)) == fits


def test_modules_loaded_at_boot_are_in_the_image():
    for edition in debian.EDITIONS.values():
        assert set(edition.at_boot) <= set(edition.modules)
