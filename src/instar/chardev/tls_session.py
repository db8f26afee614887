"""One TLS session over a socket that does not block: encryption in memory, bytes by our own loop.

Source: RFC 8446 and 5246 as the host's TLS library has them; file names and checks follow QEMU's ``tls-creds-x509``.
"""

from __future__ import annotations

import contextlib
import os
import ssl
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import _socket
    from collections.abc import Generator

READ_SIZE: Final = 16384  # bytes taken from the host at once: a record
MAX_UNSENT: Final = 256 << 10  # encrypted bytes; what we write ourselves never gets there
_CA: Final = "ca-cert.pem"
_REVOKED: Final = "ca-crl.pem"


class CredentialsError(Exception):
    """A file of the credentials cannot be used."""


def make_context(folder: str, *, server: bool, verify_peer: bool) -> ssl.SSLContext:
    """Return what sessions are made from.

    Raises:
        CredentialsError: A file is missing, or is not what its name says.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.check_hostname = False  # by session: a unix socket has no host
    context.verify_mode = ssl.CERT_REQUIRED if verify_peer else ssl.CERT_NONE
    role = "server" if server else "client"
    certificate, key = (os.path.join(folder, f"{role}-{part}.pem") for part in ("cert", "key"))
    authority, revoked = os.path.join(folder, _CA), os.path.join(folder, _REVOKED)
    with _using(authority):
        context.load_verify_locations(authority)
    if os.path.exists(revoked):
        with _using(revoked):
            context.load_verify_locations(revoked)
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    if server or os.path.exists(certificate):
        # An empty password: the library would ask at the terminal for that of an encrypted key.
        with _using(certificate, key):
            context.load_cert_chain(certificate, key, "")
    if server:
        context.num_tickets = 0  # sessions are never resumed
    return context


@contextlib.contextmanager
def _using(*paths: str) -> Generator[None]:
    """Name the file when it cannot be read, or the library does not like it."""
    for path in paths:
        try:
            open(path, "rb").close()
        except OSError as e:
            raise CredentialsError(f"Unable to access credentials {path}: {e.strerror}") from e
    try:
        yield
    except OSError as e:
        raise CredentialsError(f"Unable to use credentials {paths[0]}: {reason(e)}") from e


def reason(error: OSError) -> str:
    """Return in a few words why a session or a file is no good."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return str(error.verify_message)
    if isinstance(error, ssl.SSLEOFError):
        return "it hung up"
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    return error.strerror or str(error)


class TlsSession:
    """A session; all calls return at once.

    Args:
        context: From :func:`make_context`.
        sock: The connection; it stays the caller's.
        server: We are the side that was called.
        host: Name that the peer's certificate must have; empty: any.
    """

    __slots__ = ("_incoming", "_more", "_outgoing", "_sock", "_tls", "_unsent")

    def __init__(
        self, context: ssl.SSLContext, sock: _socket.socket, *, server: bool, host: str = ""
    ) -> None:
        context.check_hostname = bool(host)
        self._sock = sock
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server, server_hostname=host or None
        )
        self._unsent: bytearray = bytearray()
        self._more = False

    @property
    def unsent(self) -> bool:
        """Whether encrypted bytes wait for the host to take them."""
        return bool(self._unsent)

    @property
    def more(self) -> bool:
        """Whether :meth:`read` may have something that the socket does not show."""
        return self._more

    def handshake(self) -> bool:
        """Go on with the handshake as far as what has come allows; True at its end.

        Raises:
            OSError: It failed (``ssl.SSLError``: the peer was told why), or the peer has gone.
        """
        self._pull()
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self.flush()
            return False
        except ssl.SSLError:
            self._try_flush()
            raise
        self.flush()
        self._more = True  # what came with the end of the handshake
        return True

    def read(self, size: int) -> bytes:
        """Return at most ``size`` bytes; none at the end of the session.

        Raises:
            BlockingIOError: Nothing is there now.
            OSError: The peer broke the protocol, or does not take what the protocol answers.
        """
        try:
            data = self._read(size)
        except ssl.SSLWantReadError:
            self._more = False
            raise BlockingIOError from None
        except ssl.SSLEOFError:  # a peer that ends without saying so
            data = b""
        self._more = bool(data)
        self.flush()
        if len(self._unsent) > MAX_UNSENT:
            raise ConnectionError(f"more than {MAX_UNSENT} bytes of answers are unread")
        return data

    def _read(self, size: int) -> bytes:
        try:
            return self._tls.read(size)
        except ssl.SSLWantReadError:
            if not self._pull():
                raise
        return self._tls.read(size)

    def write(self, data: bytes | bytearray) -> int:
        """Encrypt and send; returns how many bytes of ``data`` are no longer the caller's to keep.

        Raises:
            OSError: The peer has gone.
        """
        self.flush()
        done = 0
        while done < len(data) and not self._unsent:
            done += self._tls.write(memoryview(data)[done : done + READ_SIZE])
            self.flush()
        return done

    def flush(self) -> None:
        """Give the host what it takes of the encrypted bytes.

        Raises:
            OSError: The peer has gone.
        """
        self._unsent += self._outgoing.read()
        if self._unsent:
            try:
                del self._unsent[: self._sock.send(self._unsent)]
            except BlockingIOError:  # later
                return

    def close(self) -> None:
        """Tell the peer that this is the end, if it takes that at once."""
        with contextlib.suppress(OSError):  # the peer's own farewell is not waited for
            self._tls.unwrap()
        self._try_flush()

    def _try_flush(self) -> None:
        try:
            self.flush()
        except OSError:  # it has gone before
            self._unsent.clear()

    def _pull(self) -> bool:
        """Take what has come; False if nothing has."""
        try:
            data = self._sock.recv(READ_SIZE)
        except BlockingIOError:
            return False
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
        return True
