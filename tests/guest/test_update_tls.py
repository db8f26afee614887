"""Monitors over TLS: a session stands against an update, or is closed in order for it; nothing is lost silently."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
from pathlib import Path

import pytest

from harness import PATIENCE, PROGRAM, QmpError, Vm
from tls_world import context_of, make_world, tls_connect

REASON = (
    "chardev sec: its TLS session cannot cross an update, the keys are in this program alone; "
    "end the connection, or use reopen-on-cpr=on"
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("tls"))


def secure_vm(ticker: Path, world: Path, *, reopen: bool, mode: str = "control") -> Vm:
    return Vm(
        "-kernel", str(ticker),
        "-object", f"tls-creds-x509,id=tls0,dir={world},endpoint=server",
        "-chardev", "socket,id=sec,host=localhost,port=0,ipv4=on,server=on,wait=off,tls-creds=tls0,"
        f"reopen-on-cpr={'on' if reopen else 'off'}",
        "-mon", f"chardev=sec,mode={mode}",
    )  # fmt: skip


def shown(vm: Vm) -> str:
    return {d["label"]: d["filename"] for d in vm.qmp.command("query-chardev")}["sec"]


def port_of(vm: Vm) -> int:
    return int(shown(vm).partition(",")[0].rpartition(":")[2])


def wait_until_free(vm: Vm) -> None:
    while "disconnected" not in shown(vm):
        pass


class Client:
    """A QMP client over TLS."""

    def __init__(self, port: int, world: Path) -> None:
        self.tls = tls_connect(port, context_of(world), suppress_ragged_eofs=False)
        self.lines = self.tls.makefile("rb")
        assert b'"QMP"' in self.lines.readline()
        assert self.ask("qmp_capabilities") == {}

    def ask(self, name: str) -> object:
        self.tls.sendall(json.dumps({"execute": name}).encode())
        while "return" not in (reply := json.loads(self.lines.readline())):
            pass
        return reply["return"]

    def read_to_the_end(self) -> list[dict]:
        """Return what still comes; an end without TLS's own word for it is an error."""
        return [json.loads(line) for line in self.lines]

    def close(self) -> None:
        self.lines.close()
        self.tls.close()


def test_session_blocks_the_update_while_the_guest_runs_and_its_end_frees_it(
    ticker: Path, world: Path
) -> None:
    with secure_vm(ticker, world, reopen=False) as vm:
        port = port_of(vm)
        client = Client(port, world)
        uri = vm.prepare_update()
        footprint = vm.footprint()
        assert vm.qmp.command("query-migrate")["blocked-reasons"] == [REASON]
        info = vm.qmp.command("human-monitor-command", command_line="info migrate")
        assert REASON in info
        with pytest.raises(QmpError, match="its TLS session cannot cross an update"):
            vm.qmp.command("migrate", uri=uri)
        assert vm.qmp.command("query-status")["status"] == "running"
        assert vm.footprint() == footprint
        assert client.ask("query-status") == {"status": "running", "running": True}
        client.close()
        wait_until_free(vm)
        assert vm.update()["status"] == "completed"
        assert port_of(vm) == port
        client = Client(port, world)
        client.close()
        vm.console.wait(b"tick", len(vm.console.text))


def test_half_a_handshake_blocks_the_update_too(ticker: Path, world: Path) -> None:
    with secure_vm(ticker, world, reopen=False) as vm:
        uri = vm.prepare_update()
        with socket.create_connection(("localhost", port_of(vm))) as half:
            half.sendall(b"\x16\x03\x01\x02\x00\x01")
            while "blocked-reasons" not in vm.qmp.command("query-migrate"):
                pass
            with pytest.raises(QmpError, match="chardev sec"):
                vm.qmp.command("migrate", uri=uri)
        while "blocked-reasons" in vm.qmp.command("query-migrate"):
            pass
        assert vm.update()["status"] == "completed"


def test_session_is_closed_in_order_for_each_update_if_that_is_asked_for(
    ticker: Path, world: Path
) -> None:
    with secure_vm(ticker, world, reopen=True) as vm:
        port = port_of(vm)
        for _ in range(5):
            client = Client(port, world)
            assert vm.update()["status"] == "completed"
            events = [
                name
                for message in client.read_to_the_end()
                if (name := message["event"]) != "UPDATE_PHASE"
            ]
            assert events[:2] == ["MIGRATION", "STOP"]
            client.close()
        sockets = vm.footprint()["fds"].count("socket")
        with socket.create_connection(("localhost", port), timeout=PATIENCE) as half:
            half.sendall(b"\x16\x03\x01\x02\x00\x01")
            while vm.footprint()["fds"].count("socket") == sockets:  # until the program has it
                pass
            vm.update()
            assert half.recv(1) == b""
        Client(port, world).close()
        assert "TLS handshake was closed for the update" in vm.said()
        vm.console.wait(b"tick", len(vm.console.text))


def test_update_that_fails_lets_clients_connect_again(ticker: Path, world: Path) -> None:
    with secure_vm(ticker, world, reopen=True) as vm:
        client = Client(port_of(vm), world)
        target = vm.folder / "target"
        target.write_text("#!/bin/sh\n")
        target.chmod(0o755)
        uri = vm.prepare_update(command=[str(target), "-incoming", "defer"])
        vm.qmp.command("migrate-set-parameters", **{"x-update-rehearsal": False})
        pause = {"capability": "pause-before-switchover", "state": True}
        vm.qmp.command("migrate-set-capabilities", capabilities=[pause])
        vm.qmp.command("migrate", uri=uri)
        vm.qmp.wait_event("MIGRATION", status="pre-switchover")
        target.chmod(0o644)
        vm.qmp.command("migrate-continue", state="pre-switchover")
        vm.qmp.wait_event("RESUME")
        client.read_to_the_end()
        client.close()
        target.unlink()
        again = Client(port_of(vm), world)
        assert again.ask("query-status") == {"status": "running", "running": True}
        again.close()


def test_openssl_talks_to_the_monitor(ticker: Path, world: Path) -> None:
    with secure_vm(ticker, world, reopen=False, mode="readline") as vm:
        done = subprocess.run(
            [
                "openssl", "s_client", "-quiet", "-verify_return_error", "-connect", f"localhost:{port_of(vm)}",
                "-CAfile", world / "ca-cert.pem", "-cert", world / "client-cert.pem", "-key", world / "client-key.pem",
            ],
            input=b"info status\nquit\n", capture_output=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        assert b"VM status: running" in done.stdout
        assert vm.wait_exit() == 0


def test_strangers_are_refused_counted_and_the_monitor_lives_on(ticker: Path, world: Path) -> None:
    with secure_vm(ticker, world, reopen=False) as vm:
        port = port_of(vm)
        for _ in range(30):
            with socket.create_connection(("localhost", port), timeout=PATIENCE) as plain:
                plain.sendall(b'{"execute": "quit"}\n')
                while plain.recv(99):
                    pass
        stranger = context_of(world, prefix="strange-")
        with contextlib.ExitStack() as opened, pytest.raises(OSError, match=r"alert|reset"):
            opened.enter_context(tls_connect(port, stranger)).recv(1)  # TLS 1.3 tells it late
        Client(port, world).close()
        assert vm.qmp.command("query-status")["status"] == "running"
        said = vm.said()
        assert "warning: chardev/sec: TLS handshake failed: " in said
        assert 0 < said.count("TLS handshake failed") < 31


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("-chardev socket,id=c,port=1,tls-creds=no", "No TLS credentials with id 'no'"),
        (
            "-object tls-creds-x509,id=no,dir=/nowhere -chardev socket,id=c,port=0,server=on,tls-creds=no",
            "Expected TLS credentials for a server endpoint",
        ),
        (
            "-object tls-creds-x509,id=no,dir=/nowhere,endpoint=server -chardev socket,id=c,port=0,server,tls-creds=no",
            "TLS credentials no: Unable to access credentials /nowhere/ca-cert.pem: No such file or directory",
        ),
        (
            "-chardev socket,id=c,port=0,server=on,reopen-on-cpr=on",
            "reopen-on-cpr=on is for tls-creds=; without TLS the connection is kept",
        ),
    ],
)
def test_command_line_that_cannot_be_is_refused(words: str, text: str) -> None:
    done = subprocess.run(
        [PROGRAM, "-nodefaults", *words.split()], capture_output=True, text=True, check=False
    )
    assert done.returncode in {2, 3}
    assert text in done.stderr
