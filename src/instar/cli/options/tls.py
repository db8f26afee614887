"""``tls-creds-x509`` and the sockets that use it: what belongs together."""

from __future__ import annotations

from instar.cli.options.config import TlsCredsConfig
from instar.cli.options.table import Key
from instar.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from instar.cli.options.config import ChardevConfig, Config
    from instar.cli.options.grammar import Values

TLS_CREDS = "tls-creds-x509"
TLS_CREDS_KEYS = (
    Key("id", "id", "name of these credentials", required=True),
    Key("dir", "text", "folder with ca-cert.pem and server-cert.pem, server-key.pem or client-cert.pem, client-key.pem",
        low=1, high=4095, required=True),
    Key("endpoint", "choice", "side of the connection", choices=("client", "server"), default="client"),
    Key("verify-peer", "flag", "refuse who has no certificate that ca-cert.pem signed", default="on"),
)  # fmt: skip
TLS_CHARDEV_KEYS = (
    Key("tls-creds", "id", "id of an -object tls-creds-x509: speak TLS"),
    Key("reopen-on-cpr", "flag",
        "with tls-creds: an update closes the session, which it cannot keep, instead of being refused", default="off"),
)  # fmt: skip


def tls_creds(values: Values) -> TlsCredsConfig:
    """Return what ``-object tls-creds-x509`` says."""
    return TlsCredsConfig(
        ident=values.text("id"),
        folder=values.text("dir"),
        server=values.text("endpoint") == "server",
        verify_peer=values.flag("verify-peer", default=True),
    )


def read_tls(values: Values, chardev: ChardevConfig) -> None:
    """Fill in what a socket says of TLS.

    Raises:
        ConfigError: ``reopen-on-cpr=on`` for a connection that is kept anyway.
    """
    chardev.tls_creds = values.text("tls-creds")
    chardev.reopen_on_cpr = values.flag("reopen-on-cpr", default=False)
    if chardev.reopen_on_cpr and not chardev.tls_creds:
        raise ConfigError(
            "-chardev socket: reopen-on-cpr=on is for tls-creds=; without TLS the connection is kept"
        )


def find_creds(config: Config, chardev: ChardevConfig) -> TlsCredsConfig:
    """Return the credentials of a socket.

    Raises:
        ConfigError: there are none of that name, or they are for the other side.
    """
    for creds in config.tls_creds:
        if creds.id == chardev.tls_creds:
            break
    else:
        raise ConfigError(
            f"chardev {chardev.id!r}: No TLS credentials with id {chardev.tls_creds!r}; "
            "there is no -object tls-creds-x509 with that id"
        )
    if creds.server != chardev.server:
        side = "server" if chardev.server else "client"
        raise ConfigError(
            f"chardev {chardev.id!r}: Expected TLS credentials for a {side} endpoint; "
            f"-object {creds.id!r} has another endpoint="
        )
    return creds


def check_tls(config: Config) -> None:
    """Check that every socket finds its credentials (ConfigError), and warn of unused ones."""
    used = {find_creds(config, c).id for c in config.chardevs if c.tls_creds}
    config.warnings += [
        f"TLS credentials {creds.id!r} are used by nothing"
        for creds in config.tls_creds
        if creds.id not in used
    ]
