"""What a program may do that the one before it might: the same or less."""

from __future__ import annotations

from instar import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from instar.cli.options import Config
    from instar.cpr.adopted import Adopted


def keep_confinement(config: Config, adopted: Adopted) -> None:
    """Narrow what this command line allows to what the program before did: a monitor may have written it."""
    listed = adopted.info.get("exec-allow")
    rows: list[object] = listed if isinstance(listed, list) else []  # pyright: ignore[reportUnknownVariableType]
    before = [row for row in rows if isinstance(row, str)]
    if before and not (config.exec_allow and set(config.exec_allow) <= set(before)):
        log.warning("-exec-allow of the program before stays: a new one cannot allow more")
        config.exec_allow = [path for path in config.exec_allow if path in before] or before
