"""A vhost-user-blk daemon of our own, with a list of requests that outlives it: for tests, with ways to misbehave.

    blk_daemon.py SOCKET FILE [queues=N] [die-at=N] [mute-at=N] [journal=FILE]

It offers MQ, CONFIG, BACKEND_REQ, REPLY_ACK and INFLIGHT_SHMFD. It dies, or falls silent, when it has taken its N-th
request and done the work, but not said so. SIGUSR1: look at the file's size again and tell; SIGUSR2: speak again.
The journal has a line for each request: ring, what happened (t taken, r resubmitted, u used), position, head.

Source: QEMU docs/interop/vhost-user; virtio 1.2, 2.7 and 5.2.
"""

from __future__ import annotations

import mmap
import os
import select
import signal
import socket
import struct
import sys

HEADER = struct.Struct("<III")
U64 = struct.Struct("<Q")
STATE = struct.Struct("<II")
ADDR = struct.Struct("<IIQQQQ")
REGION = struct.Struct("<QQQQ")
INFLIGHT = struct.Struct("<QQHH4x")
DESC = struct.Struct("<QIHH")
REQUEST = struct.Struct("<IIQ")
# One ring's part of the list: features, version, size, last head, used index; then for each head: in flight, counter.
LIST_HEAD = struct.Struct("<QHHHH")
LIST_ENTRY = struct.Struct("<B5xHQ")
FEATURES = (
    1 << 32 | 1 << 30 | 1 << 28 | 1 << 12 | 1 << 9 | 1 << 6 | 1 << 2
)  # 1, F_PROTOCOL, INDIRECT, MQ, FLUSH...
PROTOCOL = 1 << 0 | 1 << 3 | 1 << 5 | 1 << 9 | 1 << 12
CONFIG = 60  # bytes
NEXT, WRITE, INDIRECT = 1, 2, 4


class Ring:
    def __init__(self, index: int) -> None:
        self.index = index
        self.size = self.taken = self.used = self.counter = 0
        self.kick = self.call = -1
        self.address = (0, 0, 0)
        self.on = False
        self.entries: memoryview | None = None  # of the list of requests


class Daemon:
    def __init__(self, path: str, file: str, options: dict[str, str]) -> None:
        self.file = os.open(file, os.O_RDWR)
        self.rings = [Ring(n) for n in range(int(options.get("queues", "1")))]
        self.left = int(options.get("die-at", options.get("mute-at", "0")))
        self.dies = "die-at" in options
        self.mute = False
        self.journal = os.open(
            options.get("journal", "/dev/null"), os.O_WRONLY | os.O_APPEND | os.O_CREAT
        )
        self.regions: list[tuple[int, int, memoryview]] = []
        self.requests: socket.socket | None = None
        listener = socket.socket(socket.AF_UNIX)
        if os.path.exists(path):
            os.unlink(path)
        listener.bind(path)
        listener.listen()
        self.connection, _ = listener.accept()
        self.wake, wake = socket.socketpair()
        wake.setblocking(False)
        signal.set_wakeup_fd(wake.fileno())
        for number in (signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, lambda *_: None)
        self.wake_end = wake

    # --- messages

    def serve(self) -> None:
        poll = select.poll()
        for fd in (self.connection.fileno(), self.wake.fileno()):
            poll.register(fd, select.POLLIN)
        kicks: dict[int, Ring] = {}
        while True:
            for ring in self.rings:
                if ring.kick >= 0 and ring.kick not in kicks:
                    kicks[ring.kick] = ring
                    poll.register(ring.kick, select.POLLIN)
            for fd, _ in poll.poll():
                if fd == self.connection.fileno():
                    self.message()
                elif fd == self.wake.fileno():
                    self.signalled(self.wake.recv(64))
                else:
                    os.eventfd_read(fd)
                    self.work(kicks[fd])
            for fd in [fd for fd, ring in kicks.items() if ring.kick != fd]:
                poll.unregister(fd)
                os.close(fd)
                del kicks[fd]

    def signalled(self, numbers: bytes) -> None:
        if signal.SIGUSR1 in numbers and self.requests is not None:
            self.requests.sendall(HEADER.pack(2, 1, 0))
        if signal.SIGUSR2 in numbers:
            self.mute = False
            for ring in self.rings:
                if ring.on:
                    self.resubmit(ring)
                    self.work(ring)

    def message(self) -> None:
        header, fds, _, _ = socket.recv_fds(self.connection, HEADER.size, 8, socket.MSG_WAITALL)
        if not header:
            sys.exit(0)
        number, flags, size = HEADER.unpack(header)
        body = self.connection.recv(size, socket.MSG_WAITALL) if size else b""
        handler = getattr(self, f"on_{number}", None)
        reply = handler(body, fds) if handler else None
        if reply is not None:
            data, gifts = reply
        elif flags & 8:
            data, gifts = U64.pack(0), []
        else:
            return
        socket.send_fds(self.connection, [HEADER.pack(number, 5, len(data)) + data], gifts)

    def on_1(self, _body, _fds):  # GET_FEATURES
        return U64.pack(FEATURES if len(self.rings) > 1 else FEATURES & ~(1 << 12)), []

    def on_15(self, _body, _fds):  # GET_PROTOCOL_FEATURES
        return U64.pack(PROTOCOL), []

    def on_17(self, _body, _fds):  # GET_QUEUE_NUM
        return U64.pack(len(self.rings)), []

    def on_21(self, _body, fds):  # SET_BACKEND_REQ_FD
        self.requests = socket.socket(fileno=fds[0])

    def on_5(self, body, fds):  # SET_MEM_TABLE
        for n, fd in enumerate(fds):
            gpa, size, _, offset = REGION.unpack_from(body, 8 + n * REGION.size)
            self.regions.append((gpa, size, memoryview(mmap.mmap(fd, size, offset=offset))))
            os.close(fd)

    def on_8(self, body, _fds):  # SET_VRING_NUM
        index, size = STATE.unpack(body)
        self.rings[index].size = size

    def on_9(self, body, _fds):  # SET_VRING_ADDR
        index, _, desc, used, avail, _ = ADDR.unpack(body)
        self.rings[index].address = (desc, avail, used)

    def on_10(self, body, _fds):  # SET_VRING_BASE
        index, base = STATE.unpack(body)
        self.rings[index].taken = base

    def on_11(self, body, _fds):  # GET_VRING_BASE
        ring = self.rings[STATE.unpack(body)[0]]
        ring.on = False
        ring.kick = -1
        return STATE.pack(ring.index, ring.taken), []

    def on_12(self, body, fds):  # SET_VRING_KICK: the ring begins
        ring = self.rings[U64.unpack(body)[0] & 0xFF]
        ring.kick = fds[0]
        ring.used = self.used_index(ring)
        self.resubmit(ring)

    def on_13(self, body, fds):  # SET_VRING_CALL
        ring = self.rings[U64.unpack(body)[0] & 0xFF]
        if ring.call >= 0:
            os.close(ring.call)
        ring.call = fds[0]

    def on_18(self, body, _fds):  # SET_VRING_ENABLE
        index, on = STATE.unpack(body)
        self.rings[index].on = bool(on)

    def on_24(self, body, _fds):  # GET_CONFIG
        config = U64.pack(os.fstat(self.file).st_size // 512) + struct.pack("<II", 0, 126)
        config = config.ljust(34, b"\0") + len(self.rings).to_bytes(2, "little")
        return body[:12] + config.ljust(CONFIG, b"\0"), []

    def on_31(self, body, _fds):  # GET_INFLIGHT_FD
        _, _, count, size = INFLIGHT.unpack(body)
        each = LIST_HEAD.size + size * LIST_ENTRY.size
        fd = os.memfd_create("inflight")
        os.ftruncate(fd, count * each)
        return INFLIGHT.pack(count * each, 0, count, size), [fd]

    def on_32(self, body, fds):  # SET_INFLIGHT_FD
        length, offset, count, size = INFLIGHT.unpack(body)
        view = memoryview(mmap.mmap(fds[0], length, offset=offset))
        os.close(fds[0])
        each = LIST_HEAD.size + size * LIST_ENTRY.size
        for n in range(count):
            part = view[n * each : (n + 1) * each]
            self.rings[n].entries = part
            if not LIST_HEAD.unpack_from(part)[1]:
                LIST_HEAD.pack_into(part, 0, 0, 1, size, 0, 0)

    # --- memory

    def at(self, gpa: int, length: int) -> memoryview:
        for base, size, view in self.regions:
            if base <= gpa and gpa + length <= base + size:
                return view[gpa - base : gpa - base + length]
        raise SystemExit(f"no memory at {gpa:#x}, {length} bytes")

    def used_index(self, ring: Ring) -> int:
        return int.from_bytes(self.at(ring.address[2] + 2, 2), "little")

    def chain(self, ring: Ring, head: int) -> list[tuple[int, int, int]]:
        table, index, parts = ring.address[0], head, []
        while True:
            gpa, length, flags, following = DESC.unpack(self.at(table + 16 * index, 16))
            if flags & INDIRECT:
                table, index = gpa, 0
                continue
            parts.append((gpa, length, flags))
            if not flags & NEXT:
                return parts
            index = following

    # --- requests

    def note(self, ring: Ring, what: str, position: int, head: int) -> None:
        os.write(self.journal, f"{ring.index} {what} {position} {head}\n".encode())

    def resubmit(self, ring: Ring) -> None:
        """Do again what was begun and not answered, in its order (split ring, "Inflight I/O tracking")."""
        if ring.entries is None:
            return
        features, version, size, last, used = LIST_HEAD.unpack_from(ring.entries)
        begun = []
        if used != ring.used:  # it died between the answer and the note of it
            self.mark(ring, last, flying=False)
            LIST_HEAD.pack_into(ring.entries, 0, features, version, size, last, ring.used)
        for head in range(ring.size):
            flying, _, counter = LIST_ENTRY.unpack_from(
                ring.entries, LIST_HEAD.size + head * LIST_ENTRY.size
            )
            if flying:
                begun.append((counter, head))
        ring.taken = (ring.used + len(begun)) & 0xFFFF
        ring.counter = max([counter for counter, _ in begun], default=ring.counter)
        for _, head in sorted(begun):
            self.note(ring, "r", ring.used, head)
            self.answer(ring, head, self.do(ring, head))

    def mark(self, ring: Ring, head: int, *, flying: bool) -> None:
        if ring.entries is not None:
            ring.counter += flying
            at = LIST_HEAD.size + head * LIST_ENTRY.size
            LIST_ENTRY.pack_into(ring.entries, at, flying, 0, ring.counter)

    def work(self, ring: Ring) -> None:
        while ring.on and not self.mute:
            avail = int.from_bytes(self.at(ring.address[1] + 2, 2), "little")
            if avail == ring.taken:
                return
            where = ring.address[1] + 4 + 2 * (ring.taken % ring.size)
            head = int.from_bytes(self.at(where, 2), "little")
            self.mark(ring, head, flying=True)
            self.note(ring, "t", ring.taken, head)
            ring.taken = (ring.taken + 1) & 0xFFFF
            length = self.do(ring, head)
            self.left -= 1
            if self.left == 0 and self.dies:
                os._exit(9)
            if self.left == 0:
                self.mute = True
                return
            self.answer(ring, head, length)

    def answer(self, ring: Ring, head: int, length: int) -> None:
        if ring.entries is not None:
            features, version, size, _, used = LIST_HEAD.unpack_from(ring.entries)
            LIST_HEAD.pack_into(ring.entries, 0, features, version, size, head, used)
        place = ring.address[2] + 4 + 8 * (ring.used % ring.size)
        self.at(place, 8)[:] = STATE.pack(head, length)
        self.note(ring, "u", ring.used, head)
        ring.used = (ring.used + 1) & 0xFFFF
        self.at(ring.address[2] + 2, 2)[:] = ring.used.to_bytes(2, "little")
        self.mark(ring, head, flying=False)
        if ring.entries is not None:
            LIST_HEAD.pack_into(ring.entries, 0, features, version, size, head, ring.used)
        os.eventfd_write(ring.call, 1)

    def do(self, ring: Ring, head: int) -> int:
        """Do a request on the file; return how many bytes were written to the guest."""
        parts = self.chain(ring, head)
        kind, _, sector = REQUEST.unpack(self.at(parts[0][0], 16))
        offset, done = sector * 512, 0
        for gpa, length, flags in parts[1:-1]:
            view = self.at(gpa, length)
            if kind == 0 and flags & WRITE:
                done += os.preadv(self.file, [view], offset)
            elif kind == 1:
                os.pwritev(self.file, [view], offset)
            offset += length
        if kind == 4:
            os.fdatasync(self.file)
        elif kind == 8:
            name = b"blk_daemon".ljust(20, b"\0")
            done = min(parts[1][1], 20)
            self.at(parts[1][0], done)[:] = name[:done]
        self.at(parts[-1][0], 1)[:] = b"\0" if kind in {0, 1, 4, 8} else b"\2"
        return done + 1


if __name__ == "__main__":
    words = dict(word.split("=", 1) for word in sys.argv[3:])
    Daemon(sys.argv[1], sys.argv[2], words).serve()
