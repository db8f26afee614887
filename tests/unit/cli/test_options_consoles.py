"""Ports of virtio-serial: numbers, names and whose device they belong to."""

from __future__ import annotations

import pytest

from instar.cli.options import Config, parse, to_argv
from instar.cli.options.config import VirtioSerialConfig
from instar.errors import ConfigError

CHARDEVS = " ".join(f"-chardev null,id=c{n}" for n in range(9))
BUS = "-device virtio-serial-device"


def config(line: str) -> Config:
    made = parse(f"-nodefaults {CHARDEVS} {line}".split())
    assert isinstance(made, Config)
    return made


def ports(line: str) -> list[list[tuple[int, bool, str]]]:
    return [
        [(port.number, port.console, port.name) for port in device.ports]
        for device in config(line).devices
        if isinstance(device, VirtioSerialConfig)
    ]


def test_terminals_begin_at_0_and_channels_at_1() -> None:
    line = f"{BUS} -device virtserialport,chardev=c0,name=a"
    line += " -device virtconsole,chardev=c1 -device virtconsole,chardev=c2"
    assert ports(line) == [[(1, False, "a"), (0, True, ""), (2, True, "")]]


def test_ports_belong_to_the_device_before_them() -> None:
    line = f"{BUS} -device virtconsole,chardev=c0 {BUS} -device virtconsole,chardev=c1"
    assert ports(line) == [[(0, True, "")], [(0, True, "")]]
    assert parse(to_argv(config(line))) == config(line)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("-device virtconsole,chardev=c0", "no -device virtio-serial-device before it"),
        (f"{BUS} -device virtconsole,chardev=no", "no character device with the id 'no'"),
        (f"{BUS} -device virtconsole,chardev=c0 -serial chardev:c0", "used 2 times"),
        (
            f"{BUS} -device virtserialport,chardev=c0,name=a -device virtserialport,chardev=c1,name=a",
            "two ports have the name 'a'",
        ),
        (
            " ".join([BUS, *(f"-device virtserialport,chardev=c{n}" for n in range(7))]),
            "has 7 ports, which is the limit",
        ),
    ],
)
def test_ports_that_cannot_be_are_refused(line: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        config(line)
