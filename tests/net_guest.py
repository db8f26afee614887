"""A guest with a network card, and the host's end of its TCP connection: for tests that update under traffic."""

from __future__ import annotations

import hashlib
import queue
import socket
import threading

from harness import PATIENCE, Console, Vm

UPDATES = 20
LINES = 20000  # of the file that the guest sends again and again
CONTENT = "".join(f"{n}\n" for n in range(1, LINES + 1)).encode()


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


class EchoServer:
    """Accepts one connection, sends back what comes, and remembers what it was."""

    def __init__(self, host: str) -> None:
        self.listener = socket.create_server((host, 0))
        self.listener.settimeout(PATIENCE)
        self.port: int = self.listener.getsockname()[1]
        self.received = 0
        self.exact = True
        self.digest = hashlib.sha256()
        self._back: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        client, _ = self.listener.accept()
        client.settimeout(PATIENCE)
        writer = threading.Thread(target=self._send_back, args=(client,), daemon=True)
        writer.start()
        while data := client.recv(1 << 16):
            at = self.received % len(CONTENT)
            self.exact &= (CONTENT * 2)[at : at + len(data)] == data
            self.digest.update(data)
            self.received += len(data)
            self._back.put(data)
        self._back.put(b"")
        writer.join()
        client.close()

    def _send_back(self, client: socket.socket) -> None:
        while data := self._back.get():
            client.sendall(data)
        client.shutdown(socket.SHUT_WR)

    def finish(self) -> None:
        """Wait until the guest has closed its connection."""
        self._thread.join(PATIENCE)
        self.listener.close()


def stream_through_updates(vm: Vm, host: str, address: str) -> tuple[EchoServer, str, list[int]]:
    """Update the VM while a TCP connection of its guest carries data both ways.

    Returns:
        The server, the digest of what came back to the guest, and what the server had received at each update.
    """
    server = EchoServer(host)
    shell(vm.console, f"seq 1 {LINES} > /tmp/r")
    vm.console.send(
        b"(while [ ! -e /tmp/stop ]; do cat /tmp/r; done)"
        + f" | nc {address} {server.port} | sha256sum > /tmp/back; echo c''losed\n".encode()
    )
    start = len(vm.console.text)
    seen: list[int] = []
    for _ in range(UPDATES):
        assert vm.update()["status"] == "completed"
        seen.append(server.received)
        vm.console.pull(0.1)
    # The terminal belongs to the pipe: the guest's stop file is made by a job started before.
    vm.console.send(b"\x1a")
    vm.console.wait(b"Stopped", start)
    shell(vm.console, "touch /tmp/stop")
    vm.console.send(b"fg\n")
    vm.console.wait(b"closed", start)
    server.finish()
    return server, shell(vm.console, "cat /tmp/back"), seen
