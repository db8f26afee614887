"""What a program may do that the one before it might: the same or less."""

from __future__ import annotations

from instar import log
from instar.errors import ConfigError
from instar.sandbox.notice import is_confined, note_confined

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from instar.cli.options import Config
    from instar.cpr.adopted import Adopted


def keep_confinement(config: Config, adopted: Adopted) -> None:
    """Narrow what this command line allows to what the program before did: a monitor may have written it.

    Raises:
        ConfigError: It wants a sandbox that a running guest cannot get any more.
    """
    listed = adopted.info.get("exec-allow")
    rows: list[object] = listed if isinstance(listed, list) else []  # pyright: ignore[reportUnknownVariableType]
    before = [row for row in rows if isinstance(row, str)]
    if before and not (config.exec_allow and set(config.exec_allow) <= set(before)):
        log.warning("-exec-allow of the program before stays: a new one cannot allow more")
        config.exec_allow = [path for path in config.exec_allow if path in before] or before
    if adopted.info.get("sandbox") is True:
        note_confined()  # filter and rules are inherited: nothing is added, or they would pile up
        if not config.sandbox.enabled:
            log.warning("-sandbox on of the program before stays: nobody can leave it")
            config.sandbox.enabled = True
    elif config.sandbox.enabled:
        raise ConfigError(
            "-sandbox on: the guest was started without; its threads cannot be confined any more"
        )


def confinement(config: Config) -> Mapping[str, object]:
    """Return what the monitor command ``query-sandbox`` shows."""
    from instar.sandbox.landlock import abi  # noqa: PLC0415 - nobody resumes into this

    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        rows = {name: value.strip() for name, _, value in (line.partition(":") for line in file)}
    return {
        "enabled": is_confined(),
        "seccomp-filters": int(rows.get("Seccomp_filters", "0")),
        "no-new-privileges": rows.get("NoNewPrivs") == "1",
        "landlock-abi": abi(),
        "exec-allow": list(config.exec_allow),
        "read": list(config.sandbox.read),
        "write": list(config.sandbox.write),
    }
