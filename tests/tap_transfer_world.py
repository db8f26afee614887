"""Run in a network namespace of its own: a guest on a tap goes from program to program while a connection carries data.

The test tests/guest/test_update_tap.py starts it; what it prints is JSON.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from conftest import Debian
from harness import Vm
from net_guest import EchoServer, begin_stream, booted, end_stream, shell
from netns import configure
from transfer_pair import Pair, hand_over

HOST, GUEST = "10.9.0.1", "10.9.0.2"
HOPS = 4


def taps_of(vm: Vm) -> int:
    """How many descriptors of taps the program has."""
    links = Path(f"/proc/{vm.process.pid}/fd").iterdir()
    return [os.readlink(link) for link in links].count("/dev/net/tun")


def hop(vm: Vm, server: EchoServer) -> Vm:
    """Hand the guest over in full flow."""
    server.more_than(server.received)
    return hand_over(vm)


def refused(vm: Vm) -> int:
    """Try a target of another machine; return how many taps the source has afterwards."""
    pair = Pair(vm)
    with pair.target("-smp", "4"):
        pair.migrate()
        vm.qmp.wait_event("MIGRATION", status="failed")
    return taps_of(vm)


def left_behind(vm: Vm) -> int:
    """Hand the guest over; return how many taps the source has afterwards, while it lives."""
    pair = Pair(vm)
    with pair.target() as target:
        pair.transfer()
        target.connect()
        return taps_of(vm)


def main() -> None:
    words = ("-netdev", "tap,id=n0,ifname=it0", "-device", "virtio-net-device,netdev=n0")
    vm = Vm(*Debian().arguments("console=ttyS0 quiet"), *words, size=256)
    try:
        configure("lo", "127.0.0.1")
        configure("it0", HOST)
        booted(vm, f"ip addr add {GUEST}/24 dev eth0; ip link set eth0 up")
        server = EchoServer(HOST)
        begin_stream(vm.console, HOST, server.port)
        result = {"refused": refused(vm)}
        for _ in range(HOPS):
            vm = hop(vm, server)
        server.more_than(server.received)
        back = end_stream(vm.console, server)
        result |= {
            "exact": server.exact,
            "back": server.digest.hexdigest() in back,
            "ping": " 0% packet loss" in shell(vm.console, f"ping -c 3 {HOST}"),
            "taps": taps_of(vm),
            "left": left_behind(vm),
        }
    finally:
        vm.close()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
