"""virtio-console under Debian: terminal and named port, byte-exact through updates under traffic."""

from __future__ import annotations

import random
from pathlib import Path

from test_update_channels import Peer
from test_update_linux import BAD, shell

from harness import Vm, connect

UPDATES = 20
PATTERN = random.Random(7).randbytes(200_000)  # under way at each update
ECHO = "(stty raw -echo; printf READY; cat) <>/dev/hvc0 >&0 & (cat <>/dev/vport0p1 >&0) &"


def test_terminal_and_named_port_lose_nothing_through_twenty_updates(
    debian, tmp_path: Path
) -> None:
    with Vm(
        *debian.arguments("console=ttyS0 quiet"),
        "-chardev", f"socket,id=hc,path={tmp_path}/hc,server=on,wait=off",
        "-chardev", f"socket,id=np,path={tmp_path}/np,server=on,wait=off",
        "-device", "virtio-serial-device", "-device", "virtconsole,chardev=hc",
        "-device", "virtserialport,chardev=np,name=org.test.echo", size=256,
    ) as vm:  # fmt: skip
        vm.console.wait(b"instar-guest:")
        names = shell(vm.console, "cat /sys/class/virtio-ports/vport0p1/name")
        assert b"org.test.echo" in names
        terminal, channel = connect(tmp_path / "hc"), connect(tmp_path / "np")
        with terminal, channel:
            shell(vm.console, ECHO)
            ready = b""
            while not ready.endswith(b"READY"):
                ready += terminal.recv(1)
            for _ in range(UPDATES):
                peers = [Peer(s.fileno(), s.fileno()) for s in (terminal, channel)]
                for peer in peers:
                    peer.start(PATTERN)
                assert vm.update()["status"] == "completed"
                for peer in peers:
                    assert peer.finish() == PATTERN, peer.trouble
        assert not BAD.search(shell(vm.console, "dmesg"))
