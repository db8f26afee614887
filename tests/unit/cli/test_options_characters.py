"""Character devices, serial port, monitors and the defaults without a display."""

from __future__ import annotations

import pytest

from instar.cli.options import ChardevConfig, Config, MonitorConfig, parse
from instar.errors import ConfigError


def config(line: str) -> Config:
    result = parse(line.split())
    assert isinstance(result, Config)
    return result


def users(line: str) -> tuple[list[str], str, list[str]]:
    made = config(line)
    kinds = [f"{chardev.id}:{chardev.kind}" for chardev in made.chardevs]
    return kinds, made.serial, [f"{monitor.chardev}:{monitor.mode}" for monitor in made.monitors]


@pytest.mark.parametrize("line", ["", "-nographic", "-display none"])
def test_defaults_share_the_terminal_between_serial_port_and_monitor(line: str) -> None:
    made = config(line)
    assert made.chardevs == [ChardevConfig(kind="stdio", ident="serial0", mux=True, signal=False)]
    assert made.monitors == [MonitorConfig(chardev="serial0", ident="serial0")]
    assert made.serial == "serial0"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("-nodefaults", ([], "", [])),
        (
            "-monitor stdio",
            (["compat_monitor0:stdio", "serial0:null"], "serial0", ["compat_monitor0:readline"]),
        ),
        (
            "-monitor unix:/m,server=on,wait=off",
            (["compat_monitor0:socket", "serial0:stdio"], "serial0", ["compat_monitor0:readline"]),
        ),
        (
            "-serial file:out",
            (["serial0:file", "compat_monitor0:stdio"], "serial0", ["compat_monitor0:readline"]),
        ),
        ("-serial stdio", (["serial0:stdio"], "serial0", [])),
        ("-monitor none", (["serial0:stdio"], "serial0", [])),
        ("-serial none -monitor none", ([], "", [])),
        (
            "-qmp unix:/q,server=on",
            (["compat_monitor0:socket", "serial0:stdio"], "serial0", ["compat_monitor0:control"]),
        ),
        (
            "-serial mon:unix:/s,server=on -qmp stdio",
            (
                ["serial0:socket", "compat_monitor0:stdio"],
                "serial0",
                ["serial0:readline", "compat_monitor0:control"],
            ),
        ),
        (
            "-chardev stdio,id=c,mux=on -mon c -serial chardev:c",
            (["c:stdio"], "c", ["c:readline"]),
        ),
        (
            "-chardev null,id=c -monitor chardev:c -serial null",
            (["c:null", "serial0:null"], "serial0", ["c:readline"]),
        ),
        ("-chardev stdio,id=c", (["c:stdio", "serial0:null"], "serial0", [])),
    ],
)
def test_users_of_character_devices_get_what_was_asked_or_the_defaults(
    line: str, expected: tuple[list[str], str, list[str]]
) -> None:
    assert users(line) == expected


def test_unix_short_form_waits_for_a_connection_as_qemu_does() -> None:
    chardev = config("-serial unix:/s,server=on -monitor none").chardevs[0]
    assert (chardev.path, chardev.server, chardev.wait) == ("/s", True, True)


def test_unix_short_form_with_a_doubled_comma_keeps_one_in_the_path() -> None:
    assert config("-serial unix:/a,,b -monitor none").chardevs[0].path == "/a,b"


def test_file_short_form_takes_commas_as_they_are() -> None:
    assert config("-serial file:/a,b -monitor none").chardevs[0].path == "/a,b"


def test_stdio_of_a_monitor_alone_leaves_interrupt_to_the_monitor() -> None:
    assert config("-monitor stdio").chardevs[0].signal


def test_mon_in_control_mode_is_a_qmp_monitor() -> None:
    made = config("-chardev socket,id=c,path=/q -mon chardev=c,id=m,mode=control,pretty=on")
    assert made.monitors == [MonitorConfig(chardev="c", mode="control", pretty=True, ident="m")]


def test_monitors_without_an_id_get_different_ones() -> None:
    made = config("-chardev null,id=c,mux=on -mon c -mon c -mon c,id=c-2")
    assert [monitor.id for monitor in made.monitors] == ["c", "c-3", "c-2"]


def test_chardev_that_nobody_uses_is_a_warning() -> None:
    assert config("-chardev null,id=c").warnings == ["chardev 'c' is used by nothing"]


def chardev(line: str) -> ChardevConfig:
    return config(line).chardevs[0]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("-serial pty -monitor none", ChardevConfig(kind="pty", ident="serial0")),
        ("-serial pipe:/p,x", ChardevConfig(kind="pipe", ident="serial0", path="/p,x")),
        (
            "-serial tcp::4444,server=on,wait=off,nodelay=on",
            ChardevConfig(
                kind="socket",
                ident="serial0",
                host="localhost",
                port=4444,
                server=True,
                nodelay=True,
            ),
        ),
        (
            "-serial tcp:[::1]:1,reconnect-ms=50",
            ChardevConfig(kind="socket", ident="serial0", host="::1", port=1, reconnect_ms=50),
        ),
        (
            "-serial unix:/s,reconnect-ms=50",
            ChardevConfig(kind="socket", ident="serial0", path="/s", reconnect_ms=50),
        ),
        (
            "-chardev socket,id=c,host=h,port=1,ipv4=on",
            ChardevConfig(kind="socket", ident="c", host="h", port=1, family="ipv4"),
        ),
        (
            "-chardev socket,id=c,host=h,port=1,ipv4=off",
            ChardevConfig(kind="socket", ident="c", host="h", port=1, family="ipv6"),
        ),
        (
            "-chardev socket,id=c,host=h,port=1,ipv4=on,ipv6=on",
            ChardevConfig(kind="socket", ident="c", host="h", port=1),
        ),
        ("-chardev ringbuf,id=c", ChardevConfig(kind="ringbuf", ident="c", size=65536)),
        ("-chardev ringbuf,id=c,size=1M", ChardevConfig(kind="ringbuf", ident="c", size=1 << 20)),
        ("-chardev pipe,id=c,path=/p", ChardevConfig(kind="pipe", ident="c", path="/p")),
    ],
)
def test_kinds_of_character_devices(line: str, expected: ChardevConfig) -> None:
    assert chardev(line) == expected


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("-chardev null,id=c -chardev null,id=c", "two character devices have the id 'c'"),
        ("-chardev null,id=serial0 -serial null", "two character devices have the id 'serial0'"),
        ("-chardev stdio,id=c -serial stdio", "stdio is taken by another"),
        ("-chardev null,id=c -mon c -serial chardev:c", "used 2 times .-mon, -serial.; limit 1"),
        ("-chardev null,id=c,mux=on -mon c -mon c -mon c -mon c -mon c", "limit 4"),
        ("-serial chardev:c", "-serial: there is no character device with the id 'c'"),
        ("-mon c", "-mon: there is no character device with the id 'c'"),
        ("-serial null -serial null", "-serial was given 2 times; the board has one serial port"),
        ("-serial vc", "-serial 'vc' is not known; allowed are stdio"),
        ("-serial mon:none", "not known"),
        ("-serial tcp:4444", "HOST:PORT is needed"),
        ("-serial tcp:h:99999", "port"),
        ("-serial tcp:h:1,path=/x", "only ipv4=, ipv6=, nodelay=, reconnect-ms=, server=, wait="),
        ("-serial tcp:h:0", "port=0 is for server=on"),
        ("-chardev socket,id=c,path=/x,nodelay=on", "nodelay= is for TCP"),
        ("-chardev socket,id=c,path=/x,server=on,reconnect-ms=5", "is for clients"),
        ("-chardev socket,id=c,port=1,ipv4=off,ipv6=off", "leave no addresses"),
        ("-chardev ringbuf,id=c,size=3", "size=3 is not a power of 2"),
        ("-serial unix:", "not known"),
        ("-monitor mon:stdio", "belongs to -serial"),
        ("-monitor unix:/m,srever=on", "-monitor 'unix:/m,srever=on': -chardev socket has no key"),
        ("-monitor unix:/m,id=x", "only reconnect-ms=, server=, wait= may follow"),
        ("-monitor unix:/m,help", "only reconnect-ms=, server=, wait= may follow"),
        ("-monitor unix:/m,wait=off", "wait= needs server=on"),
        ("-chardev socket,id=c", "path= .unix. or port= .TCP. is needed"),
        ("-chardev socket,id=c,path=" + "x" * 108, "allowed is a text of 1 to 107 bytes"),
        ("-chardev null,id=c,mux=on -mon c,id=m -mon c,id=m", "two monitors have the id 'm'"),
        ("-chardev null,id=c -mon c,pretty=on", "pretty=on is for mode=control only"),
    ],
)
def test_character_devices_with_a_mistake_are_refused(line: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        parse(line.split())
