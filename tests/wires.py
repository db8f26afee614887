"""The host's end of a guest's network card, frame by frame: ARP requests whose answers tell lost and doubled ones."""

from __future__ import annotations

import socket
import struct

from harness import PATIENCE

PEER = bytes.fromhex("525400000099")
_ARP = 0x0806
_REQUEST = struct.pack("!HHHBBH", _ARP, 1, 0x0800, 6, 4, 1)
ADDRESSES = (  # for the guest's shell: the card whose address ends with n gets 10.0.n.1
    "for c in /sys/class/net/eth*; do n=$(cut -d: -f6 $c/address); "
    "ip addr add 10.0.$((0x$n)).1/24 dev ${c##*/}; ip link set ${c##*/} up; done"
)


def card(number: int) -> list[str]:
    """Arguments for the card whose back end is ``n<number>``."""
    return ["-device", f"virtio-net-device,netdev=n{number},mac=52:54:00:00:00:{number:02x}"]


def request(network: int, sequence: int) -> bytes:
    """An ARP request for 10.0.<network>.1, asked by 10.0.<network>.<100 + sequence>."""
    asker, asked = bytes((10, 0, network, 100 + sequence)), bytes((10, 0, network, 1))
    return b"\xff" * 6 + PEER + _REQUEST + PEER + asker + bytes(6) + asked


class StreamWire:
    """Frames behind their lengths; one is begun before an update and finished after it."""

    def __init__(self, network: int, connection: socket.socket) -> None:
        self.network = network
        self.socket = connection
        self.socket.settimeout(PATIENCE)

    def begin(self, sequence: int) -> None:
        self._rest = struct.pack("!I", 42) + request(self.network, sequence)
        cut = 1 + 7 * sequence % 45
        self.socket.sendall(self._rest[:cut])
        self._rest = self._rest[cut:]

    def finish(self) -> None:
        self.socket.sendall(self._rest)

    def frame(self) -> bytes:
        (length,) = struct.unpack("!I", self._exactly(4))
        assert 14 <= length <= 1514, "the stream has lost its frames"
        return self._exactly(length)

    def reply(self, kind: int) -> bytes:
        """The next frame of an Ethernet type; others are skipped."""
        while True:
            frame = self.frame()
            if frame[12:14] == kind.to_bytes(2, "big"):
                return frame

    def answered(self) -> int:
        """Which request the guest answers next."""
        while True:
            frame = self.reply(_ARP)
            if frame[21] == 2:
                return frame[41] - 100

    def exchange(self, sequence: int) -> bool:
        """Whether the guest answers a request, and it alone."""
        self.begin(sequence)
        self.finish()
        return self.answered() == sequence

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            data += self.socket.recv(size - len(data)) or self._ended()
        return data

    @staticmethod
    def _ended() -> bytes:
        raise EOFError("the VM hung up")


class DgramWire(StreamWire):
    """A frame a datagram; it waits for the new program."""

    def begin(self, sequence: int) -> None:
        self.socket.send(request(self.network, sequence))

    def finish(self) -> None:
        pass

    def frame(self) -> bytes:
        return self.socket.recv(2048)
