"""The host's end of the guest's card: pings the guest every 2 ms when asked, and keeps the moments of its answers."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import time

from update_guest import ADDRESS, MAC, PEER_ADDRESS, PEER_MAC

EVERY_S = 0.002


class Ping:
    """Pings through a unix datagram socket, a frame a datagram, until closed.

    Args:
        own: Path of the socket, made here.
        guest: Path of the monitor's socket; while nobody has it, pings are lost.
    """

    def __init__(self, own: str, guest: str) -> None:
        self.answers: list[int] = []  # host monotonic nanoseconds
        self._guest = guest
        self._own = own
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(own)
        self._over = threading.Event()
        self._resting = True
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begin, at rest."""
        self._thread.start()

    def rest(self, *, wanted: bool) -> None:
        """Send no pings, or go on."""
        self._resting = wanted

    def close(self) -> None:
        """End it."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
        self._socket.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._own)

    def _run(self) -> None:
        number = 0
        due = time.monotonic()
        while not self._over.is_set():
            number = (number + 1) & 0xFFFF
            if self._resting:
                self._over.wait(0.05)
                continue
            with contextlib.suppress(OSError):  # full, or nobody there for a moment
                self._socket.sendto(request(number), socket.MSG_DONTWAIT, self._guest)
            due = max(due + EVERY_S, time.monotonic())
            while (left := due - time.monotonic()) > 0:
                self._socket.settimeout(left)
                with contextlib.suppress(TimeoutError):
                    if answers(self._socket.recv(2048)):
                        self.answers.append(time.monotonic_ns())


def request(number: int) -> bytes:
    """Return an Ethernet frame with an ICMP echo request to the guest.

    Source: RFC 791, 792.
    """
    echo = struct.pack("!BBHHH", 8, 0, 0, 1, number)
    echo = struct.pack("!BBHHH", 8, 0, checksum(echo), 1, number)
    ends = socket.inet_aton(PEER_ADDRESS) + socket.inet_aton(ADDRESS)
    head = struct.pack("!BBHHHBBH8s", 0x45, 0, 20 + len(echo), number, 0, 64, 1, 0, ends)
    head = head[:10] + struct.pack("!H", checksum(head)) + head[12:]
    ethernet = bytes.fromhex((MAC + PEER_MAC).replace(":", "")) + b"\x08\x00"
    return (ethernet + head + echo).ljust(60, b"\0")


def answers(frame: bytes) -> bool:
    """Say whether a frame is an echo reply."""
    return len(frame) >= 42 and frame[12:14] == b"\x08\x00" and frame[23] == 1 and frame[34] == 0


def checksum(data: bytes) -> int:
    """Return the Internet checksum of data of even length.

    Source: RFC 1071.
    """
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF
