"""From ``tls-creds=`` to the credentials that a character device takes."""

from __future__ import annotations

from instar.cli.options.tls import find_creds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from instar.chardev.tls import TlsCredentials
    from instar.cli.options.config import ChardevConfig, Config


def credentials_of(config: Config, chardev: ChardevConfig) -> TlsCredentials:
    """Return the credentials of a socket.

    Raises:
        ConfigError: there are none of that name for its side.
    """
    from instar.chardev.tls import TlsCredentials  # noqa: PLC0415 - few machines have any

    creds = find_creds(config, chardev)
    return TlsCredentials(
        creds.id, creds.folder, server=creds.server, verify_peer=creds.verify_peer
    )
