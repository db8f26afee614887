"""``parse(to_argv(c)) == c``: a Config can become a command line again."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.cli.options import Config, parse, to_argv

_TEXT = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=8
)
_FLAG = st.sampled_from(["on", "off"])


def parsed(argv: list[str]) -> Config:
    result = parse(argv)
    assert isinstance(result, Config)
    return result


def doubled(text: str) -> str:
    return text.replace(",", ",,")


@st.composite
def machine_words(draw: st.DrawFn) -> list[str]:
    harts, size = draw(st.integers(1, 8)), draw(st.integers(1, 1000)) * 4096 + (1 << 20)
    words = ["-M", f"virt,aux-ram-share={draw(_FLAG)}", "-smp", str(harts), "-m", f"{size}b"]
    words += ["-cpu", f"rv64,sstc={draw(_FLAG)},x-flush-everything={draw(_FLAG)}"]
    words += [
        "-kernel",
        draw(_TEXT),
        "-append",
        draw(_TEXT),
        "-name",
        f"guest={doubled(draw(_TEXT))}",
    ]
    words += ["-rtc", f"base={draw(st.sampled_from(['utc', 'localtime', '1999-12-31']))},clock=vm"]
    words += [
        "-seed",
        str(draw(st.integers(0, (1 << 64) - 1))),
        "-incoming",
        f"file:{draw(_TEXT)},offset=7",
    ]
    words += draw(st.lists(st.sampled_from(["-S", "-no-reboot", "-no-shutdown", "-nographic"])))
    return [*words, "-icount", f"{draw(st.integers(0, 10))},sleep={draw(_FLAG)}"]


@st.composite
def object_words(draw: st.DrawFn) -> list[str]:
    words: list[str] = []
    for n, kind in enumerate(
        draw(st.lists(st.sampled_from(["memfd", "ram", "file"]), max_size=2))
    ):
        path = f",mem-path={doubled(draw(_TEXT))}" * (kind == "file")
        words += ["-object", f"memory-backend-{kind},id=m{n},size=8k,share={draw(_FLAG)}{path}"]
    for n, kind in enumerate(draw(st.lists(st.sampled_from(["builtin", "random"]), max_size=2))):
        words += ["-object", f"rng-{kind},id=r{n}", "-device", f"virtio-rng-device,rng=r{n}"]
    return words


@st.composite
def disk_words(draw: st.DrawFn) -> list[str]:
    words: list[str] = []
    for n, kind in enumerate(
        draw(st.lists(st.sampled_from(["drive", "blockdev", "auto"]), max_size=4))
    ):
        path, switch = doubled(draw(_TEXT)), draw(_FLAG)
        words += {
            "drive": ["-drive", f"if=none,id=d{n},file={path},readonly={switch}"],
            "blockdev": ["-blockdev", f"file,node-name=d{n},filename={path},read-only={switch}"],
            "auto": ["-drive", f"file={path},discard=unmap"],
        }[kind]
        serial = doubled(draw(st.text("ab,=", max_size=4)))
        device = f"virtio-blk-device,drive=d{n},serial={serial}"
        words += ["-device", device] * (kind != "auto")
    return words


@st.composite
def character_words(draw: st.DrawFn) -> list[str]:
    path = doubled(draw(_TEXT))
    form = draw(
        st.sampled_from(
            [
                [],
                ["-nodefaults"],
                ["-serial", "mon:stdio"],
                ["-serial", f"mon:unix:{path},server=on"],
                ["-serial", "null", "-monitor", "stdio"],
                ["-monitor", f"unix:{path},server,nowait", "-qmp", "unix:/q"],
                ["-chardev", f"file,id=c,path={path},append=on,mux=on", "-serial", "chardev:c"],
                ["-chardev", f"socket,id=c,path={path}", "-mon", "c,mode=control,pretty=on,id=m"],
            ]
        )
    )
    return list(form)


@settings(max_examples=150)
@given(machine_words(), object_words(), disk_words(), character_words())
def test_to_argv_of_any_config_parses_to_an_equal_one(
    machine: list[str], objects: list[str], disks: list[str], characters: list[str]
) -> None:
    config = parsed(machine + objects + disks + characters)
    again = parsed(to_argv(config))
    assert again == config
    assert to_argv(again) == to_argv(config)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "-object memory-backend-memfd,id=ram0,size=1G,prealloc=on -M memory-backend=ram0",
        "-uuid 12345678-9abc-def0-1234-56789abcdef0 -pidfile /p -name process=x",
        "-smp 2,maxcpus=8,sockets=2 -incoming defer",
        "-blockdev raw,node-name=d,file=f,discard=unmap -blockdev file,node-name=f,filename=x,discard=on",
        "-rtc base=2038-01-19T03:14:08 -initrd i -kernel k",
    ],
)
def test_to_argv_of_a_command_line_parses_to_an_equal_config(line: str) -> None:
    config = parsed(line.split())
    assert parsed(to_argv(config)) == config


def test_to_argv_writes_out_what_the_guest_can_see() -> None:
    words = to_argv(parsed(["-nodefaults"]))
    assert words == [
        "-nodefaults", "-machine", "virt,aux-ram-share=off", "-accel", "interpreter",
        "-cpu", "rv64,sstc=on,x-flush-everything=off",
        "-smp", "cpus=1,maxcpus=1,sockets=1,cores=1,threads=1", "-m", "size=134217728b",
        "-rtc", "base=utc,clock=host",
    ]  # fmt: skip
