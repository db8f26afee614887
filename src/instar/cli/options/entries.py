"""The options themselves, in the order of the help text: one table for parser, help and reference documentation."""

from __future__ import annotations

from instar.block.policy import READ_RULES, WRITE_RULES
from instar.cli.options.config import BOARDS, MAX_CPUS, PANIC_ACTIONS, WATCHDOG_ACTIONS
from instar.cli.options.confine_entries import EXEC_ALLOW_OPTION, SANDBOX_OPTION
from instar.cli.options.daemon_entries import (
    CHILD_OPTION,
    DRAIN_KEY,
    VHOST_BLK_KEYS,
    VHOST_FS_KEYS,
)
from instar.cli.options.network_entries import NET_DEVICE_KEYS, NETDEV_OPTION
from instar.cli.options.table import Key, Option
from instar.cli.options.throttle_entries import THROTTLE_KEYS
from instar.cli.options.tls import TLS_CHARDEV_KEYS, TLS_CREDS, TLS_CREDS_KEYS

_MIN_RAM = 1 << 20
_MAX_RAM = 1 << 40
MAX_RECONNECT_MS = 3_600_000


def _id(what: str, *, required: bool = True) -> Key:
    return Key("id", "id", f"name of this {what}", required=required)


def _ref(name: str, what: str, *, required: bool = False, default: str = "") -> Key:
    return Key(name, "id", f"id of {what}", required=required, default=default)


def _path(name: str, what: str, *, required: bool = True, default: str = "") -> Key:
    return Key(name, "text", what, low=1, high=4095, required=required, default=default)


_BUS = Key(
    "bus", "text", "slot, virtio-mmio-bus.0 to virtio-mmio-bus.7", default="lowest free one"
)
_MUX = Key("mux", "flag", "several front ends share it; Ctrl-A c switches", default="off")
_BACKEND_KEYS = (
    _id("memory"),
    Key("size", "size", "bytes, a multiple of 4096", low=4096, high=_MAX_RAM, required=True),
)
_PORT_KEYS = (
    _ref("chardev", "a -chardev", required=True),
    Key("name", "text", "name in the guest's /sys/class/virtio-ports", low=1, high=128),
    _id("port", required=False),
)  # fmt: skip
_PREALLOC = Key("prealloc", "flag", "touch every page at the start", default="off")
_READ_ONLY = "the guest cannot write"
_DISCARD = Key(
    "discard", "choice", "what the guest's discards do to the file",
    choices=("ignore", "off", "unmap", "on"), default="ignore",
)  # fmt: skip
_ERROR_RULES = (
    Key("rerror", "choice", "after a failed read: tell the guest, say nothing, or stop and try again on cont",
        choices=READ_RULES, default="report"),
    Key("werror", "choice", "after any other failed request; enospc: stop if the host is full, else report",
        choices=WRITE_RULES, default="enospc"),
)  # fmt: skip

_ACCEL = Key("accel", "text", "interpreter, tcg or kvm, or several with colons between them", low=1, high=64,
    default="what can run the board")  # fmt: skip

MACHINE_OPTIONS = (
    Option(
        "machine", "keys", "the board", group="Machine", aliases=("M",), metavar="[type=]BOARD",
        repeat="merge", implied="type",
        keys=(
            Key("type", "choice", "board: virt is riscv64, microvm is x86-64", choices=tuple(BOARDS), default="virt"),
            _ref("memory-backend", "the -object memory-backend-* that is the RAM"),
            Key("aux-ram-share", "flag", "keep memory besides the RAM in memfds, as updates need",
                default="off"),
            Key("x-update-bridge", "flag", "let the vCPUs run on in a helper while an update replaces the monitor",
                default="off"),
            _ACCEL,
            Key("pit", "flag", "an i8254 in the kernel (microvm)", default="on, off with kernel-irqchip=split"),
        ),
    ),
    Option(
        "accel", "keys",
        "what runs the guest's instructions, by preference: the first that can run this board; tcg is another name for "
        "interpreter", group="Machine", metavar="[accel=]NAME[:NAME...]", repeat="list", implied="accel",
        keys=(
            _ACCEL,
            Key("kernel-irqchip", "choice", "kvm: all interrupt controllers in the kernel, or not the IOAPIC",
                choices=("on", "split"), default="on"),
            Key("x-pause-shown", "flag", "kvm: the guest's clocks show how long it stood still", default="off"),
            Key("x-bare-guest", "flag", "kvm: the guest has only integer instructions; any KVM will do", default="off"),
            Key("thread", "choice", "all harts take turns in one thread", choices=("single",),
                default="single"),
        ),
    ),
    Option(
        "cpu", "keys", "the CPU model", group="Machine", metavar="[model=]MODEL[,+FEATURE,-FEATURE]", repeat="merge",
        implied="model", signed="features",
        keys=(
            Key("model", "text", "virt: rv64; microvm: host, or a model that hosts of a fleet have in common", low=1,
                high=64, default="rv64 or host"),
            Key("features", "text", "microvm: what the guest sees besides (+) or does not see (-) of the CPU",
                default="none"),
            Key("sstc", "flag", "virt: supervisor timer registers (extension Sstc)", default="on"),
            Key("x-flush-everything", "flag",
                "virt: forget every cached translation at once, to test the caches (slow)", default="off"),
        ),
    ),
    Option(
        "smp", "keys", "harts and their topology", group="Machine", metavar="[cpus=]N",
        repeat="merge", implied="cpus",
        keys=(
            Key("cpus", "int", "harts", low=1, high=MAX_CPUS, default="1"),
            Key("maxcpus", "int", "the product of the topology", low=1, high=MAX_CPUS, default="cpus"),
            Key("sockets", "int", "sockets", low=1, high=MAX_CPUS, default="1"),
            Key("cores", "int", "cores of a socket", low=1, high=MAX_CPUS, default="the rest"),
            Key("threads", "int", "threads of a core", low=1, high=MAX_CPUS, default="1"),
        ),
    ),
    Option(
        "m", "keys", "RAM size; MiB when there is no suffix", group="Machine",
        metavar="[size=]SIZE", repeat="merge", implied="size",
        keys=(
            Key("size", "size", "RAM, a multiple of 4 KiB", low=_MIN_RAM, high=_MAX_RAM, unit="M",
                default="128M, or the memory backend's size"),
        ),
    ),
    Option("name", "keys", "name of the VM", group="Machine", metavar="[guest=]NAME",
        repeat="merge", implied="guest",
        keys=(
            Key("guest", "text", "shown by info name and query-name"),
            Key("process", "text", "the process's name on the host", low=1, high=15),
        ),
    ),
    Option("uuid", "text", "UUID of the VM, 8-4-4-4-12 hexadecimal digits; its state is taken by no other",
        group="Machine", metavar="UUID"),
    Option("seed", "text", "seed of every random choice of the machine, 0 to 2^64-1",
        group="Machine", metavar="N"),
    Option("rtc", "keys", "the guest's date", group="Machine", metavar="KEYS", repeat="merge",
        keys=(
            Key("base", "text", "utc, localtime or a date such as 2026-01-31T12:00:00", low=1,
                high=19, default="utc"),
            Key("clock", "choice", "vm stands still while the VM is stopped",
                choices=("host", "vm"), default="host"),
        ),
    ),
    Option("icount", "keys", "count instructions for a clock: runs are deterministic",
        group="Machine", metavar="[shift=]N|auto", repeat="merge", implied="shift",
        keys=(
            Key("shift", "choice", "an instruction takes 2^N ns of virtual time; auto is 3",
                choices=(*map(str, range(11)), "auto"), required=True),
            Key("sleep", "flag", "idle time passes in real time; off: it is skipped", default="on"),
            Key("align", "choice", "the virtual clock is never held back to real time",
                choices=("off",), default="off"),
        ),
    ),
)  # fmt: skip

BOOT_OPTIONS = (
    Option("kernel", "text", "kernel: a Linux image (virt: Image, microvm: bzImage) or an ELF file", group="Boot",
        metavar="FILE"),
    Option("initrd", "text", "initial RAM disk", group="Boot", metavar="FILE"),
    Option("append", "text", "kernel command line", group="Boot", metavar="TEXT"),
    Option("S", "none", "do not start the CPUs; the monitor's cont does", group="Boot"),
    Option("incoming", "text",
        "wait for a VM's state: file:PATH[,offset=N], memfd:, defer (until migrate_incoming), or a "
        "channel as JSON or dotted keys (main,addr.transport=file,addr.filename=PATH); with a second one, "
        "cpr,addr.transport=socket,addr.type=unix,addr.path=PATH: unix:PATH or tcp:HOST:PORT (cpr-transfer)",
        group="Boot", metavar="URI", repeat="list"),
    Option("no-reboot", "none", "quit when the guest asks for a reboot", group="Boot"),
    Option("action", "keys", "what happens to a guest in trouble", group="Boot", metavar="EVENT=ACTION",
        repeat="merge",
        keys=(
            Key("panic", "choice", "it has panicked (and has a pvpanic driver)", choices=PANIC_ACTIONS,
                default="shutdown"),
            Key("watchdog", "choice", "it has started the watchdog and forgot it", choices=WATCHDOG_ACTIONS,
                default="reset"),
        ),
    ),
    Option("no-shutdown", "none", "stop instead of quitting when the guest powers off",
        group="Boot"),
)  # fmt: skip

BACKEND_OPTIONS = (
    Option("object", "typed", "memory, entropy and certificates for other options to name", group="Back ends",
        metavar="[qom-type=]TYPE,id=ID", repeat="list", implied="qom-type", json=True,
        variants={
            "memory-backend-memfd": (*_BACKEND_KEYS, _PREALLOC,
                Key("hugetlb", "flag", "of the host's huge pages, which are reserved at the start", default="off"),
                Key("hugetlbsize", "size", "bytes of such a page; default 2M", low=1 << 16, high=1 << 34),
                Key("share", "flag", "shared mapping: crosses an update", default="on")),
            "memory-backend-ram": (*_BACKEND_KEYS, _PREALLOC,
                Key("share", "flag", "shared mapping: crosses an update", default="off")),
            "memory-backend-file": (*_BACKEND_KEYS, _PREALLOC,
                _path("mem-path", "file, or a directory for an unnamed one"),
                Key("share", "flag", "writes reach the file", default="off")),
            "rng-builtin": (_id("source"),),
            "rng-random": (_id("source"),
                _path("filename", "device or file to read", required=False,
                    default="/dev/urandom")),
            TLS_CREDS: TLS_CREDS_KEYS,
        },
    ),
    Option("drive", "keys", "a disk image (raw)", group="Back ends", metavar="file=FILE",
        repeat="list",
        keys=(
            _path("file", "image file"),
            Key("if", "choice", "none: for a -device; virtio: makes the device, too",
                choices=("virtio", "none"), default="virtio"),
            _id("drive", required=False),
            Key("format", "choice", "image format", choices=("raw",), default="raw"),
            Key("readonly", "flag", _READ_ONLY, default="off"),
            Key("cache", "choice", "the host caches, the guest's flush reaches the disk",
                choices=("writeback",), default="writeback"),
            _DISCARD,
            *_ERROR_RULES,
            *THROTTLE_KEYS,
        ),
    ),
    Option("blockdev", "typed", "a disk image in block graph terms", group="Back ends",
        metavar="[driver=]DRIVER,node-name=ID", repeat="list", implied="driver", json=True,
        variants={
            "raw": (
                Key("node-name", "id", "name of this node", required=True),
                _ref("file", "a file node (or give file.driver and file.filename)"),
                Key("file.driver", "choice", "what the image is in", choices=("file",)),
                _path("file.filename", "image file", required=False),
                Key("read-only", "flag", _READ_ONLY, default="off"),
                _DISCARD,
            ),
            "file": (
                Key("node-name", "id", "name of this node", required=True),
                _path("filename", "image file"),
                Key("read-only", "flag", _READ_ONLY, default="off"),
                _DISCARD,
            ),
        },
    ),
    NETDEV_OPTION,
    Option("device", "typed", "a device of the guest", group="Back ends",
        metavar="[driver=]DRIVER", repeat="list", implied="driver", json=True,
        variants={
            "vhost-user-blk-device": (*VHOST_BLK_KEYS, _id("device", required=False), _BUS),
            "vhost-user-fs-device": (*VHOST_FS_KEYS, _id("device", required=False), _BUS),
            "virtio-blk-device": (
                _ref("drive", "a -drive or -blockdev", required=True),
                _id("device", required=False),
                Key("serial", "text", "serial number the guest reads, ASCII", high=20),
                Key("rerror", "choice", "as rerror= of -drive; auto is what that says",
                    choices=("auto", *READ_RULES), default="auto"),
                Key("werror", "choice", "as werror= of -drive; auto is what that says",
                    choices=("auto", *WRITE_RULES), default="auto"),
                DRAIN_KEY,
                _BUS,
            ),
            "virtio-net-device": (*NET_DEVICE_KEYS, _id("device", required=False), _BUS),
            "virtio-rng-device": (
                _ref("rng", "an -object rng-*", default="built in"),
                _id("device", required=False),
                _BUS,
            ),
            "virtio-balloon-device": (
                Key("deflate-on-oom", "flag", "the guest may take pages back when it has no others", default="off"),
                Key("free-page-reporting", "flag", "the guest reports pages that it does not use now", default="off"),
                _id("device", required=False),
                _BUS,
            ),
            "virtio-serial-device": (_id("device", required=False), _BUS),
            "virtconsole": _PORT_KEYS,
            "virtserialport": _PORT_KEYS,
            "virtio-vsock-device": (
                Key("guest-cid", "int", "the guest's address", low=3, high=0xFFFF_FFFE, required=True),
                Key("uds-path", "text",
                    "unix socket where programs of the host send CONNECT PORT and a newline; the guest reaches host "
                    "port P at UDS-PATH_P", low=1, high=96, required=True),
                _id("device", required=False),
                _BUS,
            ),
        },
    ),
)  # fmt: skip

CHARACTER_OPTIONS = (
    Option("chardev", "typed", "a character device for -serial, -mon and others to name",
        group="Consoles and monitors", metavar="[backend=]KIND,id=ID", repeat="list",
        implied="backend",
        variants={
            "null": (_id("chardev"), _MUX),
            "stdio": (_id("chardev"),
                Key("signal", "flag", "Ctrl-C interrupts the monitor, not the guest", default="on"),
                _MUX),
            "socket": (_id("chardev"),
                Key("path", "text", "unix socket (or give port)", low=1, high=107),
                Key("host", "text", "name or address for TCP", low=0, high=255, default="localhost"),
                Key("port", "int", "TCP port; 0: any that is free", high=65535),
                Key("ipv4", "flag", "take IPv4 addresses of the host", default="on, off if ipv6=on alone is given"),
                Key("ipv6", "flag", "take IPv6 addresses of the host", default="on, off if ipv4=on alone is given"),
                Key("nodelay", "flag", "TCP: send small pieces at once", default="off"),
                Key("server", "flag", "listen there", default="off"),
                Key("wait", "flag", "do not start before somebody connected (with server=on)",
                    default="on"),
                Key("reconnect-ms", "int", "a client tries again after so many ms; 0: it connects once",
                    high=MAX_RECONNECT_MS, default="0"),
                *TLS_CHARDEV_KEYS,
                _MUX),
            "pty": (_id("chardev"), _MUX),
            "pipe": (_id("chardev"), _path("path", "named pipes PATH.in and PATH.out, or one for both"), _MUX),
            "ringbuf": (_id("chardev"),
                Key("size", "size", "bytes kept, a power of 2", low=1, high=8 << 20, default="64K"), _MUX),
            "file": (_id("chardev"), _path("path", "file to write"),
                Key("append", "flag", "keep what is in the file", default="off"), _MUX),
        },
    ),
    Option("serial", "text",
        "the guest's serial port: stdio, mon:stdio (shared with the monitor), "
        "unix:PATH,server=on,wait=off, tcp:HOST:PORT,server=on,wait=off, pty, pipe:PATH, file:PATH, null, none "
        "or chardev:ID",
        group="Consoles and monitors", metavar="DEV", repeat="list"),
    Option("monitor", "text", "a monitor for people (HMP) there; words as for -serial, but no mon:",
        group="Consoles and monitors", metavar="DEV", repeat="list"),
    Option("qmp", "text", "a monitor for programs (QMP) there; words as for -serial, but no mon:",
        group="Consoles and monitors", metavar="DEV", repeat="list"),
    Option("mon", "keys", "a monitor on a -chardev", group="Consoles and monitors",
        metavar="[chardev=]ID", repeat="list", implied="chardev",
        keys=(
            _ref("chardev", "the -chardev", required=True),
            Key("mode", "choice", "readline is HMP, control is QMP",
                choices=("readline", "control"), default="readline"),
            Key("pretty", "flag", "indent QMP replies", default="off"),
            Key("id", "id", "name of this monitor", default="the chardev's id"),
        ),
    ),
    Option("nographic", "none", "accepted: there is no display, this is how it always is",
        group="Consoles and monitors"),
    Option("display", "text", "only none: there is no display", group="Consoles and monitors",
        metavar="none"),
)  # fmt: skip

PROCESS_OPTIONS = (
    Option("add-fd", "keys", "put an inherited descriptor into a set: /dev/fdset/SET names it; updates keep it",
        group="Process", metavar="fd=FD,set=SET", repeat="list",
        keys=(
            Key("fd", "int", "descriptor", low=3, high=(1 << 31) - 1, required=True),
            Key("set", "int", "number of the set", high=(1 << 31) - 1, required=True),
            Key("opaque", "text", "what query-fdsets shows of it", high=255),
        ),
    ),
    CHILD_OPTION,
    EXEC_ALLOW_OPTION,
    SANDBOX_OPTION,
    Option("pidfile", "text", "write the process id there", group="Process", metavar="FILE"),
    Option("nodefaults", "none", "no serial port back end and no monitor unless asked for",
        group="Process"),
    Option("no-user-config", "none", "accepted: no configuration file is ever read",
        group="Process"),
    Option("help", "none", "show this text; OPTION help lists the choices of many options",
        group="Process", aliases=("h",)),
    Option("version", "none", "show the version", group="Process"),
)  # fmt: skip

OPTIONS = (
    *MACHINE_OPTIONS,
    *BOOT_OPTIONS,
    *BACKEND_OPTIONS,
    *CHARACTER_OPTIONS,
    *PROCESS_OPTIONS,
)
BY_NAME = {name: option for option in OPTIONS for name in (option.name, *option.aliases)}
