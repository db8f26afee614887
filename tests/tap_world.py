"""Run in a network namespace of its own: a guest on a tap interface, updated while a TCP connection carries data.

The test tests/guest/test_update_tap.py starts it; what it prints is JSON.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import struct
import sys
import time

from conftest import Debian
from harness import Vm
from net_guest import PATIENCE, booted, echoes, shell, stream_through_updates
from netns import configure

HOST, GUEST = "10.9.0.1", "10.9.0.2"
TUNSETIFF, TAP_NO_PI_VNET_HDR, MULTI_QUEUE = 0x4004_54CA, 0x2 | 0x1000 | 0x4000, 0x100
PING_MS = 10


def open_tap(name: str, more: int = 0) -> int:
    """Return a tap that somebody else has made."""
    fd = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), TAP_NO_PI_VNET_HDR | more))
    os.set_inheritable(fd, True)
    return fd


def lost_pings(vm: Vm) -> int:
    """Return how many echo requests had no reply, once the last ones had their time."""
    shell(vm.console, "killall -INT ping")
    deadline = time.monotonic() + PATIENCE / 10
    while True:
        sent, answered = echoes(vm.console)
        if sent == answered or time.monotonic() > deadline:
            return sent - answered


def add_and_keep(vm: Vm) -> str:
    """Return what is known of a tap with three queues that was added and then kept through an update."""
    vm.qmp.command("netdev_add", type="tap", id="n1", ifname="it1", queues=3)
    vm.update()
    return vm.qmp.command("human-monitor-command", command_line="info network")


def main() -> None:
    form = sys.argv[1]
    options = {"ifname": "ifname=it0", "plain": "ifname=it0,vnet_hdr=off"}.get(form, "")
    passed: tuple[int, ...] = ()
    card = "virtio-net-device,netdev=n0"
    if form == "fds":
        passed = (open_tap("it0", MULTI_QUEUE), open_tap("it0", MULTI_QUEUE))
        options = f"fds={passed[0]}:{passed[1]}"
        card += ",mq=on"
    if form == "fd":
        passed = (open_tap("it0"),)
        options = f"fd={passed[0]}"
    with Vm(
        *Debian().arguments("console=ttyS0 quiet"), "-netdev", f"tap,id=n0,{options}",
        "-device", card, "-smp", "2" if form == "fds" else "1", size=256, pass_fds=passed,
    ) as vm:  # fmt: skip
        configure("lo", "127.0.0.1")
        configure("it0", HOST)
        booted(vm, f"ip addr add {GUEST}/24 dev eth0; ip link set eth0 up")
        shell(vm.console, f"ping -c 1 {HOST}; ping -i {PING_MS / 1000} {HOST} > /dev/null &")
        server, back, seen = stream_through_updates(vm, HOST, HOST)
        features = shell(vm.console, "cat /sys/bus/virtio/devices/virtio*/features")
        result = {
            "exact": server.exact,
            "back": server.digest.hexdigest() in back,
            "seen": seen,
            "received": server.received,
            "lost_ms": lost_pings(vm) * PING_MS,
            "pause_ms": server.pause_ms,
            "queues": re.findall(
                "[rt]x-[0-9]", shell(vm.console, "ls /sys/class/net/eth0/queues")
            ),
            "added": add_and_keep(vm) if form == "fds" else "",
            "features": features.split("\r\n")[1],
            "said": vm.said(),
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
