"""``throttling.*`` of ``-drive``."""

from __future__ import annotations

import pytest

from instar.block.limits import Limits
from instar.cli.options import Config, parse
from instar.cli.options.render import to_argv
from instar.errors import ConfigError

ALL = (
    "throttling.bps-read=1000,throttling.bps-read-max=2000,throttling.bps-read-max-length=3,"
    "throttling.bps-write=4000,throttling.iops-total=50,throttling.iops-total-max=60,"
    "throttling.iops-size=4096,throttling.group=slow"
)


def config(keys: str) -> Config:
    result = parse(["-drive", f"file=a.img{keys}"])
    assert isinstance(result, Config)
    return result


def test_drive_without_limits_has_none() -> None:
    (block,) = config("").blocks
    assert block.limits == Limits()
    assert not block.limits.limiting


def test_limits_of_a_drive_are_read() -> None:
    (block,) = config(f",{ALL}").blocks
    assert block.limits == Limits(
        (0, 1000, 4000, 50, 0, 0), (0, 2000, 0, 60, 0, 0), (1, 3, 1, 1, 1, 1), iops_size=4096
    )
    assert block.throttle_group == "slow"


def test_limits_survive_being_written_as_a_command_line() -> None:
    first = config(f",{ALL}")
    again = parse(to_argv(first))
    assert isinstance(again, Config)
    assert again.blocks == first.blocks


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        (
            "bps-total=1,throttling.bps-read=1",
            "bps-total and bps-read or bps-write cannot be used",
        ),
        ("bps-total-max=1", "bps-total-max requires bps-total"),
        ("iops-read=2,throttling.iops-read-max=1", "iops-read-max=1 is lower than iops-read=2"),
        ("iops-size=512", "iops-size requires an iops limit"),
    ],
)
def test_limits_that_do_not_go_together_are_refused(keys: str, text: str) -> None:
    with pytest.raises(ConfigError, match=f"^-drive.*: throttling: {text}"):
        config(f",throttling.{keys}")


@pytest.mark.parametrize(
    "keys",
    ["bps-total=1000000000000001", "bps-total=-1", "bps-total=1M", "iops-read-max-length=0"],
)
def test_limit_out_of_range_is_refused(keys: str) -> None:
    with pytest.raises(ConfigError, match="a whole number from"):
        config(f",throttling.{keys}")


def test_group_without_a_limit_is_told() -> None:
    made = config(",id=d,throttling.group=g")
    assert made.warnings == ["drive 'd' has no limit of its own and is not in throttling.group=g"]
    assert not made.blocks[0].limits.limiting
