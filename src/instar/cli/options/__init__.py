"""The command line of ``instar-system``: QEMU's grammar, checked before anything is created.

:func:`parse` is pure; :func:`to_argv` is its inverse. The texts of ``-help`` are in ``instar.cli.options.help``. Each
imports what it needs when it is called: a start that was prepared parses nothing.
"""

from __future__ import annotations

from instar.cli.options.config import (
    BlockConfig,
    ChardevConfig,
    Config,
    CpuConfig,
    IcountConfig,
    MachineConfig,
    MemoryBackendConfig,
    MonitorConfig,
    Request,
    RngConfig,
    RtcConfig,
    SmpConfig,
    VirtioBlkConfig,
    VirtioRngConfig,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "BlockConfig",
    "ChardevConfig",
    "Config",
    "CpuConfig",
    "IcountConfig",
    "MachineConfig",
    "MemoryBackendConfig",
    "MonitorConfig",
    "Request",
    "RngConfig",
    "RtcConfig",
    "SmpConfig",
    "VirtioBlkConfig",
    "VirtioRngConfig",
    "parse",
    "to_argv",
]


def parse(argv: Sequence[str]) -> Config | Request:
    """Return what a command line asks for.

    Args:
        argv: The words after the program's name.

    Returns:
        The machine to make, or the text to print (``-help``, ``-version``, ``-device help``).

    Raises:
        ConfigError: one sentence that names the option and what is allowed; nothing was created.

    Source: QEMU's documented option grammar.
    """
    from instar.cli.options.grammar import read_words  # noqa: PLC0415 - see above
    from instar.cli.options.resolve import resolve  # noqa: PLC0415 - see above

    given = read_words(argv)
    return given if isinstance(given, Request) else resolve(given)


def to_argv(config: Config) -> list[str]:
    """Return words that :func:`parse` turns into a Config equal to ``config``.

    What the guest can see is always written out, so that another version's defaults do not matter.
    Short forms are expanded: character devices are ``-chardev``, and ``-nodefaults`` comes first.
    """
    from instar.cli.options import render  # noqa: PLC0415 - see above

    return render.to_argv(config)
