"""The network rows of the benchmark: TCP between a guest and its host over a tap, both in a network namespace.

``network()`` starts this file again in a namespace of its own; what it prints there is JSON. The guest runs a program
of ours that connects to the host: one argument makes it the source of the bytes, two their echo.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from bench_guests import PROGRAM_ROOM, SETTLE_S, initrd_with, program
from bench_run import Run, RunFailedError

from netns import NAMESPACE, configure

if TYPE_CHECKING:
    from pathlib import Path

HOST, GUEST, PORT = "10.9.0.1", "10.9.0.2", 7000
WARM_UP, AMOUNT = 8 << 20, 96 << 20  # bytes
TURNS = 3000  # of a request of 1 byte and its answer
PATIENCE = 120.0  # seconds for anything the guest has to do

SOURCE = f"""
        .equ BUFFER, {PROGRAM_ROOM}
        .equ SIZE, 65536
start:  ld      s0, 0(sp)               # argc
        li      a0, 2                   # AF_INET
        li      a1, 1                   # SOCK_STREAM
        li      a2, 0
        li      a7, 198                 # socket
        ecall
        mv      s1, a0
        la      a1, host
        li      a2, 16
        li      a7, 203                 # connect
        ecall
        bnez    a0, done
        li      s2, 2
        beq     s0, s2, source
read:   mv      a0, s1
        li      a1, BUFFER
        li      a2, SIZE
        li      a7, 63                  # read
        ecall
        blez    a0, done
        ble     s0, s2, read
        mv      a2, a0
        mv      a0, s1
        li      a1, BUFFER
        li      a7, 64                  # write
        ecall
        bgtz    a0, read
        j       done
source: mv      a0, s1
        li      a1, BUFFER
        li      a2, SIZE
        li      a7, 64                  # write
        ecall
        bgtz    a0, source
done:   li      a0, 0
        li      a7, 93                  # exit
        ecall
        .align  3
host:   .half   2, {socket.htons(PORT)}
        .word   {int.from_bytes(socket.inet_aton(HOST), "little")}, 0, 0
"""


def network(command: list[str], environment: dict[str, str]) -> dict[str, float]:
    """Return figure to value.

    Args:
        command: The monitor with its board and guest.
        environment: Of it.

    Raises:
        RunFailedError: the host lets us have no tap, or the guest did not connect.
    """
    tests = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    job = json.dumps({"command": command, "environment": environment})
    done = subprocess.run(
        [*NAMESPACE, sys.executable, os.path.abspath(__file__)],
        input=job, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": tests},
    )  # fmt: skip
    if done.returncode:
        raise RunFailedError(f"the network could not be measured: {done.stderr.strip()[-400:]}")
    return json.loads(done.stdout)


def initrd_with_program(initrd: str, path: Path) -> str:
    """Write to ``path`` the initramfs with the program added."""
    return initrd_with(initrd, path, "netbench", program(SOURCE, {}))


def main() -> None:
    """Measure what standard input says, in the namespace in which this runs."""
    job = json.load(sys.stdin)
    up = f"ip addr add {GUEST}/24 dev eth0; ip link set eth0 up"
    script = f"sleep {SETTLE_S:.0f}; {up}; netbench; netbench s; netbench e e"
    options = [
        "-netdev", "tap,id=n0,ifname=it0,script=no,downscript=no",
        "-device", "virtio-net-device,netdev=n0",
        "-append", f'console=ttyS0 quiet instar.run="{script}" instar.poweroff',
    ]  # fmt: skip
    configure("lo", "127.0.0.1")
    with Run([*job["command"], *options], job["environment"]) as run:
        run.until("INIT REACHED")
        configure("it0", HOST)
        with socket.create_server((HOST, PORT)) as listener:
            listener.settimeout(PATIENCE)
            figures = {
                "netin": sent(listener),
                "netout": received(listener),
                "netturn": turns(listener),
            }
    print(json.dumps(figures))


def accepted(listener: socket.socket) -> socket.socket:
    """Return the guest's next connection."""
    client, _ = listener.accept()
    client.settimeout(PATIENCE)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return client


def sent(listener: socket.socket) -> float:
    """Return MiB/s from the host to the guest, until the guest has read the last of them."""
    chunk = bytes(1 << 20)
    with accepted(listener) as client:
        for _ in range(WARM_UP // len(chunk)):
            client.sendall(chunk)
        begin = time.perf_counter()
        for _ in range(AMOUNT // len(chunk)):
            client.sendall(chunk)
        client.shutdown(socket.SHUT_WR)
        client.recv(1)
        return AMOUNT / (1 << 20) / (time.perf_counter() - begin)


def received(listener: socket.socket) -> float:
    """Return MiB/s from the guest to the host."""
    buffer = bytearray(1 << 20)
    with accepted(listener) as client:
        marks: list[float] = []
        for amount in (WARM_UP, AMOUNT):
            left = amount
            while left > 0:
                left -= client.recv_into(buffer)
            marks.append(time.perf_counter())
        return AMOUNT / (1 << 20) / (marks[1] - marks[0])


def turns(listener: socket.socket) -> float:
    """Return requests answered a second, one at a time."""
    with accepted(listener) as client:
        begin = 0.0
        for turn in range(TURNS + TURNS // 10):
            if turn == TURNS // 10:
                begin = time.perf_counter()
            client.sendall(b"?")
            client.recv(1)
        return TURNS / (time.perf_counter() - begin)


if __name__ == "__main__":
    main()
