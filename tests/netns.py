"""What is needed in a network namespace of its own: an address for an interface."""

from __future__ import annotations

import fcntl
import os
import socket
import struct

SIOCSIFADDR, SIOCSIFNETMASK, SIOCSIFFLAGS = 0x8916, 0x891C, 0x8914
IFF_UP = 1
NAMESPACE = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-r", "-n"]


def configure(name: str, address: str) -> None:
    """Give an interface an address and bring it up."""
    raw = name.encode()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for request, value in ((SIOCSIFADDR, address), (SIOCSIFNETMASK, "255.255.255.0")):
            packed = struct.pack("16sHH4s8x", raw, socket.AF_INET, 0, socket.inet_aton(value))
            fcntl.ioctl(control, request, packed)
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH14x", raw, IFF_UP))
