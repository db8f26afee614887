"""Certificates made by openssl, and clients that speak TLS: for tests of sockets with tls-creds."""

from __future__ import annotations

import socket
import ssl
import subprocess
from pathlib import Path

from harness import PATIENCE


def openssl(*words: object) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)


def make_authority(folder: Path, name: str = "ca") -> None:
    """Make an authority's key and certificate in ``folder``."""
    openssl(
        "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", 30,
        "-subj", f"/CN={name} of a test", "-keyout", folder / f"{name}-key.pem", "-out", folder / f"{name}-cert.pem",
        "-addext", "keyUsage=critical,keyCertSign,cRLSign",
    )  # fmt: skip


def make_pair(folder: Path, role: str, *, authority: str = "ca", prefix: str = "") -> None:
    """Make ``<prefix><role>-key.pem`` and ``-cert.pem`` for localhost, signed by the authority."""
    key, request = folder / f"{prefix}{role}-key.pem", folder / "request.pem"
    openssl(
        "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={role}",
        "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", request,
    )  # fmt: skip
    openssl(
        "x509", "-req", "-in", request, "-days", 30, "-copy_extensions", "copyall",
        "-CA", folder / f"{authority}-cert.pem", "-CAkey", folder / f"{authority}-key.pem", "-CAcreateserial",
        "-out", folder / f"{prefix}{role}-cert.pem",
    )  # fmt: skip


def make_world(folder: Path) -> Path:
    """Make an authority that we trust with a server and a client, and a stranger's authority with a client."""
    for authority in ("ca", "strange"):
        make_authority(folder, authority)
    make_pair(folder, "server")
    make_pair(folder, "client")
    make_pair(folder, "client", authority="strange", prefix="strange-")
    return folder


def context_of(folder: Path, *, role: str = "client", prefix: str = "") -> ssl.SSLContext:
    """What a peer with that certificate (none: empty ``role``) speaks with."""
    server = role == "server"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(folder / "ca-cert.pem")
    if server:
        context.verify_mode = ssl.CERT_REQUIRED
    if role:
        name = f"{prefix}{role}"
        context.load_cert_chain(folder / f"{name}-cert.pem", folder / f"{name}-key.pem")
    return context


def tls_connect(port: int, context: ssl.SSLContext, **more) -> ssl.SSLSocket:
    plain = socket.create_connection(("localhost", port), timeout=PATIENCE)
    try:
        return context.wrap_socket(plain, server_hostname="localhost", **more)
    except BaseException:
        plain.close()
        raise
