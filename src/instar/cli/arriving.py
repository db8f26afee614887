"""The first thing that a target of cpr-transfer does: take the descriptors, and see that it is the same machine.

Not on the resume path. Source: own; docs/decisions/0010.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from instar import signals
from instar.cli.options import Config, parse
from instar.cli.options.compare import differences
from instar.errors import ConfigError, HostError, InstarError
from instar.migration.arrival import wait_for_source
from instar.migration.channels import SocketAddress

if TYPE_CHECKING:
    from instar.migration.arrival import Arrival


def await_descriptors(config: Config) -> Arrival:
    """Wait for a program that has the guest to hand its descriptors over.

    Raises:
        ConfigError: This command line makes another machine; the source was told.
        HostError: Nothing can listen at the cpr channel, or a signal said that this program should end.
    """
    signals.on_ending(_end)
    arrival = wait_for_source(SocketAddress(config.incoming_cpr))
    try:
        _check_same_machine(config, arrival)
    except InstarError as e:
        arrival.refuse(e)
        raise
    return arrival


def _end(number: int) -> NoReturn:
    raise HostError(f"signal {number}: ended before a guest came")


def _check_same_machine(config: Config, arrival: Arrival) -> None:
    words = arrival.transferred.info.get("config")
    rows: list[object] = words if isinstance(words, list) else []  # pyright: ignore[reportUnknownVariableType]
    running = parse([str(word) for word in rows])
    if not isinstance(running, Config):
        raise ConfigError("the source did not say what machine it has")
    found = differences(running, config, beside=True)
    if found:
        raise ConfigError("; ".join(found))
