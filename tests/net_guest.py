"""A guest with a network card, and the host's end of its TCP connection: for tests that update under traffic."""

from __future__ import annotations

import hashlib
import queue
import socket
import threading
import time

from harness import PATIENCE, Console, Vm

UPDATES = 20
LINES = 20000  # of the file that the guest sends again and again
CONTENT = "".join(f"{n}\n" for n in range(1, LINES + 1)).encode()
END = b"END"


def shell(console: Console, line: str) -> str:
    """Type a line into the guest's shell and return what it printed."""
    console.pull_all()
    start = len(console.text)
    console.send(line.encode() + b"\necho 'e''nd'\n")
    end = console.wait(b"end\r\n", start)
    return console.text[start:end].decode(errors="replace")


def booted(vm: Vm, setup: str) -> Vm:
    """Wait for the guest's shell and configure its card."""
    vm.console.wait(b"INIT READY")
    vm.console.wait(b"instar-guest:")
    shell(vm.console, setup)
    return vm


def echoes(console: Console) -> tuple[int, int]:
    """Echo requests that the guest's kernel has sent, and replies it has received.

    Its ``ping`` does not wait for the last ones that were held up by a pause, so its own sum says little.
    """
    names, values = (
        line.split() for line in shell(console, "grep Icmp: /proc/net/snmp").splitlines()[1:3]
    )
    found = dict(zip(names, values, strict=True))
    return int(found["OutEchos"]), int(found["InEchoReps"])


class EchoServer:
    """Accepts one connection, sends back what comes, and remembers what it was.

    It is the server that closes, after ``END``: passt forgets the other direction of a connection whose guest
    closes first.
    """

    def __init__(self, host: str) -> None:
        self.listener = socket.create_server((host, 0))
        self.listener.settimeout(PATIENCE)
        self.port: int = self.listener.getsockname()[1]
        self.received = 0
        self.exact = True
        self.digest = hashlib.sha256()
        self.pause_ms = 0  # of all updates
        self._back: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        client, _ = self.listener.accept()
        client.settimeout(PATIENCE)
        writer = threading.Thread(target=self._send_back, args=(client,), daemon=True)
        writer.start()
        tail = b""
        while tail != END and (data := client.recv(1 << 16)):
            at = self.received % len(CONTENT)
            lines = data.rstrip(END)  # it has no character in common with them
            self.exact &= (CONTENT * 2)[at : at + len(lines)] == lines
            self.digest.update(data)
            self.received += len(data)
            self._back.put(data)
            tail = (tail + data)[-len(END) :]
        self.exact &= tail == END
        self._back.put(b"")
        writer.join()
        client.close()

    def _send_back(self, client: socket.socket) -> None:
        while data := self._back.get():
            client.sendall(data)
        client.shutdown(socket.SHUT_WR)

    def more_than(self, received: int) -> int:
        """Wait until more bytes than that have come, and return how many."""
        deadline = time.monotonic() + PATIENCE
        while self.received <= received:
            assert self._thread.is_alive(), "the guest's connection has ended"
            assert time.monotonic() < deadline, f"nothing came after {received} bytes"
            time.sleep(0.005)
        return self.received

    def finish(self) -> None:
        """Wait until the guest has closed its connection."""
        self._thread.join(PATIENCE)
        self.listener.close()


def stream_through_updates(vm: Vm, host: str, address: str) -> tuple[EchoServer, str, list[int]]:
    """Update the VM while a TCP connection of its guest carries data both ways; each update finds it in full flow.

    Returns:
        The server, the digest of what came back to the guest, and what the server had received at each update.
    """
    server = EchoServer(host)
    begin_stream(vm.console, address, server.port)
    seen = [0]
    for _ in range(UPDATES):
        seen.append(server.more_than(seen[-1]))
        updated = vm.update()
        assert updated["status"] == "completed"
        server.pause_ms += updated["downtime"]
    server.more_than(seen[-1])
    return server, end_stream(vm.console, server), seen[1:]


def begin_stream(console: Console, address: str, port: int) -> None:
    """Have the guest send lines to a server, and remember what comes back, until :func:`end_stream`."""
    shell(console, f"seq 1 {LINES} > /tmp/r")
    # A session of its own: the guest's shell is free for other lines, and nothing it does stops the traffic.
    shell(
        console,
        "setsid sh -c '(while [ ! -e /tmp/stop ]; do cat /tmp/r; done; printf END; sleep 1000)"
        f" | nc {address} {port} | (sha256sum > /tmp/back; echo c''losed > /dev/ttyS0)'"
        " < /dev/null > /dev/null 2>&1 &",
    )


def end_stream(console: Console, server: EchoServer) -> str:
    """Have the guest close its connection; return the digest of what came back to it."""
    start = len(console.text)
    shell(console, "touch /tmp/stop")
    console.wait(b"closed", start)
    server.finish()
    return shell(console, "cat /tmp/back")
