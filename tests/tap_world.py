"""Run in a network namespace of its own: a guest on a tap interface, updated while a TCP connection carries data.

The test tests/guest/test_update_tap.py starts it; what it prints is JSON.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
import sys

from conftest import Debian
from harness import Vm
from net_guest import booted, shell, stream_through_updates

HOST, GUEST = "10.9.0.1", "10.9.0.2"
SIOCSIFADDR, SIOCSIFNETMASK, SIOCSIFFLAGS = 0x8916, 0x891C, 0x8914
IFF_UP = 1
TUNSETIFF, TAP_NO_PI_VNET_HDR = 0x4004_54CA, 0x2 | 0x1000 | 0x4000


def configure(name: str, address: str) -> None:
    """Give an interface an address and bring it up."""
    raw = name.encode()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for request, value in ((SIOCSIFADDR, address), (SIOCSIFNETMASK, "255.255.255.0")):
            packed = struct.pack("16sHH4s8x", raw, socket.AF_INET, 0, socket.inet_aton(value))
            fcntl.ioctl(control, request, packed)
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH14x", raw, IFF_UP))


def open_tap(name: str) -> int:
    """Return a tap that somebody else has made."""
    fd = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), TAP_NO_PI_VNET_HDR))
    os.set_inheritable(fd, True)
    return fd


def main() -> None:
    form = sys.argv[1]
    options = {"ifname": "ifname=it0", "plain": "ifname=it0,vnet_hdr=off"}.get(form, "")
    passed: tuple[int, ...] = ()
    if form == "fd":
        passed = (open_tap("it0"),)
        options = f"fd={passed[0]}"
    with Vm(
        *Debian().arguments("console=ttyS0 quiet"), "-netdev", f"tap,id=n0,{options}",
        "-device", "virtio-net-device,netdev=n0", size=256, pass_fds=passed,
    ) as vm:  # fmt: skip
        configure("lo", "127.0.0.1")
        configure("it0", HOST)
        booted(vm, f"ip addr add {GUEST}/24 dev eth0; ip link set eth0 up")
        server, back, seen = stream_through_updates(vm, HOST, HOST)
        features = shell(vm.console, "cat /sys/bus/virtio/devices/virtio*/features")
        result = {
            "exact": server.exact,
            "back": server.digest.hexdigest() in back,
            "seen": seen,
            "received": server.received,
            "features": features.split("\r\n")[1],
            "said": vm.said(),
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
