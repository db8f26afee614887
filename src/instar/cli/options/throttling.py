"""What ``throttling.*`` of ``-drive`` means."""

from __future__ import annotations

from instar.block.limits import NAMES, Limits
from instar.cli.options.grammar import where
from instar.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from instar.cli.options.config import BlockConfig, Config
    from instar.cli.options.grammar import Values

_COLUMNS = (
    ("", 0),
    ("-max", 0),
    ("-max-length", 1),
)  # what is given of each limit, and its default


def read_limits(values: Values, block: BlockConfig, config: Config) -> None:
    """Set the limits and the group of ``block``.

    Raises:
        ConfigError: the limits do not go together.
    """
    columns = [
        tuple(values.number(f"throttling.{name}{suffix}", default) for name in NAMES)
        for suffix, default in _COLUMNS
    ]
    limits = Limits(*columns, iops_size=values.number("throttling.iops-size", 0))
    problem = limits.problem()
    if problem:
        raise ConfigError(f"{where(values)}: throttling: {problem}")
    group = values.text("throttling.group")
    if group and not limits.limiting:
        config.warnings.append(
            f"drive {block.id!r} has no limit of its own and is not in throttling.group={group}"
        )
        return
    block.limits, block.throttle_group = limits, group


def limit_pairs(block: BlockConfig) -> list[tuple[str, str]]:
    """Return the keys that make these limits."""
    limits = block.limits
    if not limits.limiting:
        return []
    pairs = [
        (f"throttling.{name}{suffix}", str(value))
        for (suffix, default), column in zip(
            _COLUMNS, (limits.rates, limits.peaks, limits.seconds), strict=True
        )
        for name, value in zip(NAMES, column, strict=True)
        if value != default
    ]
    if limits.iops_size:
        pairs.append(("throttling.iops-size", str(limits.iops_size)))
    return [*pairs, ("throttling.group", block.throttle_group)] if block.throttle_group else pairs
