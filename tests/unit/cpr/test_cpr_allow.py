"""Which programs an update may execute."""

import os

import pytest

from instar.cpr.allow import check_allowed
from instar.cpr.errors import TargetError
from instar.cpr.target import Target


@pytest.fixture
def target(tmp_path):
    path = tmp_path / "releases" / "2" / "program"
    path.parent.mkdir(parents=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    target = Target.open(str(path))
    yield target
    target.close()


@pytest.mark.parametrize(
    "allowed", [[], ["releases/2/program"], ["releases"], ["none", "releases/2"]]
)
def test_allowed_are_the_file_and_the_folders_above_it(tmp_path, target, allowed):
    check_allowed(target, [str(tmp_path / path) for path in allowed])


def test_allowed_is_the_file_by_any_name(tmp_path, target):
    os.link(target.path, tmp_path / "other")
    check_allowed(target, [str(tmp_path / "other")])


@pytest.mark.parametrize("allowed", ["release", "releases/1", "releases/2/program2", "none"])
def test_allowed_is_nothing_else(tmp_path, target, allowed):
    with pytest.raises(TargetError, match="is not what -exec-allow names"):
        check_allowed(target, [str(tmp_path / allowed)])


def test_allowed_is_not_a_file_that_was_swapped_after_it_was_opened(tmp_path, target):
    os.rename(target.path, tmp_path / "away")
    (tmp_path / "releases" / "2" / "program").write_text("#!/bin/true\n")
    with pytest.raises(TargetError):
        check_allowed(target, [str(tmp_path / "releases")])
