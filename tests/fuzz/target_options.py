"""The command line: words give a machine, a text, or one sentence; a machine's words give that machine again."""

import fuzz_paths  # noqa: F401

from instar.cli.options import Config, parse, to_argv
from instar.cli.options.entries import OPTIONS
from instar.errors import ConfigError

EXAMPLES = [
    "-machine virt,memory-backend=ram0 -object memory-backend-memfd,id=ram0,size=16M -m 16M -smp 2",
    "-chardev socket,id=c,path=/s,server=on,wait=off -serial chardev:c -mon chardev=c,mode=control",
    "-drive file=disk.img,format=raw,if=none,id=d -device virtio-blk-device,drive=d,serial=x",
    "-blockdev driver=file,filename=/a,,b,node-name=n -device virtio-blk-device,drive=n",
    "-netdev stream,id=n,addr.type=unix,addr.path=/s -device virtio-net-device,netdev=n,mac=52:54:00:12:34:56",
    "-device vhost-user-blk-device,chardev=c -chardev socket,id=c,path=/s",
    "-device virtio-rng-device -device virtio-balloon-device -icount shift=2,sleep=off -rtc base=utc",
    "-qmp unix:/s,server=on,wait=off -monitor stdio -incoming defer -S -no-reboot",
    '-blockdev {"driver":"raw","node-name":"d","file":{"driver":"file","filename":"/a"}}',
]


def fuzz(data: bytes) -> None:
    """Words are separated by zero bytes."""
    argv = [word.decode("utf-8", "surrogateescape") for word in data.split(b"\0")]
    try:
        made = parse(argv)
    except ConfigError as error:
        assert "\n" not in str(error)
        return
    if isinstance(made, Config):
        assert parse(to_argv(made)) == made


def seeds() -> list[bytes]:
    """Examples, and every option with every key."""
    lines = [line.replace(" ", "\0").encode() for line in EXAMPLES]
    for option in OPTIONS:
        for kind, keys in ({"": option.keys} | option.variants).items():
            words = ",".join([kind, *(f"{key.name}=1" for key in keys)])
            lines.append(f"-{option.name}\0{words}".encode())
    return lines
