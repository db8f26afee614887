"""What a socket needs to speak TLS: where the certificates are, and who may connect.

The TLS library is loaded when the first session begins, never while a guest stands still for an update.
"""

from __future__ import annotations

from instar.errors import HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    import ssl

    from instar.chardev.tls_session import TlsSession


class TlsCredentials:
    """Certificates and keys in a folder, with QEMU's names.

    ``ca-cert.pem``, ``server-cert.pem`` and ``server-key.pem`` for a server; ``ca-cert.pem`` and, if the server asks
    for one, ``client-cert.pem`` and ``client-key.pem`` for a client; ``ca-crl.pem`` if certificates were revoked.

    Args:
        ident: Unique id.
        folder: Where the files are.
        server: For the side that listens.
        verify_peer: Refuse a peer without a certificate that the authority signed.
    """

    __slots__ = ("_context", "folder", "id", "server", "verify_peer")

    def __init__(self, ident: str, folder: str, *, server: bool, verify_peer: bool) -> None:
        self.id = ident
        self.folder = folder
        self.server = server
        self.verify_peer = verify_peer
        self._context: ssl.SSLContext | None = None

    def check(self) -> None:
        """Read the files now.

        Raises:
            HostError: One is missing or no certificate or key; the next session tries again.
        """
        from instar.chardev.tls_session import CredentialsError, make_context  # noqa: PLC0415 - not while a guest waits

        try:
            self._context = make_context(
                self.folder, server=self.server, verify_peer=self.verify_peer
            )
        except CredentialsError as e:
            raise HostError(f"TLS credentials {self.id}: {e}") from e

    def begin(self, sock: _socket.socket, host: str) -> TlsSession:
        """Return a session over ``sock`` that has not begun its handshake.

        Args:
            sock: A connection that does not block.
            host: Name that the server's certificate must have (a client of TCP); empty: any.

        Raises:
            HostError: The files cannot be read.
        """
        from instar.chardev.tls_session import TlsSession  # noqa: PLC0415 - not while a guest waits

        if self._context is None:
            self.check()
        assert self._context is not None
        name = host if self.verify_peer and not self.server else ""
        return TlsSession(self._context, sock, server=self.server, host=name)
