"""What tells two machines apart is told for people; what does no harm is a note."""

import pytest

from instar.cli.options import Config, parse
from instar.cli.options.compare import changes, differences

BLK = "virtio-blk-device,drive=d0"
WORDS = [
    "-m", "64M", "-nodefaults", "-object", "memory-backend-memfd,id=ram0,size=64M",
    "-machine", "virt,memory-backend=ram0",
    "-blockdev", "driver=file,node-name=d0,filename=/x/disk", "-device", "virtio-blk-device,drive=d0",
    "-chardev", "socket,id=con,path=/x/con,server=on,wait=off", "-serial", "chardev:con",
    "-netdev", "stream,id=n0,server=on,addr.type=unix,addr.path=/x/net", "-device", "virtio-net-device,netdev=n0",
    "-child", "name=c,command=sleep 1", "-kernel", "/x/kernel", "-append", "quiet",
]  # fmt: skip


def config(*words: str) -> Config:
    made = parse([*words])
    assert isinstance(made, Config)
    return made


def changed(old: str, new: str) -> Config:
    return config(*[word.replace(old, new) for word in WORDS])


def test_same_words_are_the_same_machine() -> None:
    assert differences(config(*WORDS), config(*WORDS)) == []
    assert changes(config(*WORDS), config(*WORDS)) == []


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (changed("64M", "128M"), "-m: the machine has 64 MiB, the command line 128 MiB"),
        (changed("64M", "128M"), "-object memory-backend ram0: size is 64 MiB, on the command line 128 MiB"),
        (changed(BLK, BLK + ",serial=a"), "serial is none, on the command line a"),
        (changed(BLK, "virtio-balloon-device"), "it is a virtio-blk-device, on the command line a virtio-b"),
        (changed("/x/disk", "/x/other"), "drive d0: its file is /x/disk, on the command line /x/other"),
        (changed("/x/con", "/x/other"), "-chardev con: path is /x/con, on the command line /x/other"),
        (changed("con", "com"), "-chardev con: the command line lacks it"),
        (changed("addr.path=/x/net", "addr.path=/x/n"), "-netdev n0: options"),
        (changed("name=c", "name=d"), "-child c: the command line lacks it"),
        (config(*WORDS, "-device", "virtio-rng-device"), "the machine has none"),
        (config(*WORDS, "-name", "other"), "-name: the machine has none, the command line other"),
        (config(*WORDS, "-rtc", "clock=vm"), "-rtc: clock is host, on the command line vm"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_difference_that_the_guest_sees_is_told(wanted: Config, text: str) -> None:
    assert any(text in row for row in [*differences(config(*WORDS), wanted), ""] if row)


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        (changed("quiet", "loud"), "-append: it differs, and takes effect when the program is started anew"),
        (config(*WORDS, "-no-reboot"), "-no-reboot: the machine has off, the command line on"),
        (config(*WORDS, "-S"), "-S: the guest will stand still after the update"),
        (changed("sleep 1", "sleep 2"), "-child c: command is sleep 1, on the command line sleep 2"),
        (config(*WORDS, "-child", "name=d,command=true"), "-child d: it will be started"),
        (changed("wait=off", "wait=on"), "-chardev con: wait is off, on the command line on"),
        (changed(BLK, BLK + ",werror=stop"), "werror is auto, on the command line stop"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_difference_without_harm_is_a_note(wanted: Config, text: str) -> None:
    running = config(*WORDS)
    assert differences(running, wanted) == []
    assert any(text in row for row in changes(running, wanted))


def test_what_was_added_at_run_time_is_no_difference() -> None:
    more = config(*WORDS, "-chardev", "null,id=late")
    assert differences(config(*WORDS), more) == ["-chardev late: the machine has none"]
    assert differences(config(*WORDS), more, {("chardevs", "late")}) == []
    assert differences(more, config(*WORDS), {("chardevs", "late")}) == []
