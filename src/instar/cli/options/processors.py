"""``-machine``, ``-accel`` and ``-cpu``: which board it is, what runs its guest, and as what processor."""

from __future__ import annotations

from instar.cli.options.config import (
    BOARDS,
    SOFTWARE_CPU,
    AccelConfig,
    CpuConfig,
    MachineConfig,
)
from instar.errors import ConfigError
from instar.units import shorten

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final

    from instar.cli.options.config import Config
    from instar.cli.options.grammar import Given, Values

_ALIASES: Final = {"tcg": "interpreter"}
_ACCELERATORS: Final = ("interpreter", "kvm")
_RISCV_MODEL: Final = "rv64"
_NAME: Final = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_"
)  # of a CPU model or feature
_OF_THE_SOFTWARE_CPU: Final = ("sstc", "x-flush-everything")


def read_processors(given: Given, config: Config) -> None:
    """Fill in board, accelerator and CPU.

    Raises:
        ConfigError: they do not go together.
    """
    machine = given.one("machine")
    board = machine.text("type", "virt")
    config.machine = MachineConfig(
        board=board,
        memory_backend=machine.text("memory-backend"),
        aux_ram_share=machine.flag("aux-ram-share", default=False),
        update_bridge=machine.flag("x-update-bridge", default=False),
        pit=machine.flag("pit", default=BOARDS[board] == "kvm"),
    )
    config.accel = _accel(given, board)
    config.cpu = _cpu(given.one("cpu"), board)
    software = config.accel.kind == SOFTWARE_CPU
    if software and "pit" in machine.given:
        raise ConfigError(f"-machine {board}: pit= is for boards that KVM runs")
    if config.accel.split_irqchip and config.machine.pit:
        if machine.given.get("pit"):
            raise ConfigError("-machine pit=on needs -accel kvm,kernel-irqchip=on")
        config.machine.pit = False
    if not software and config.machine.update_bridge:
        raise ConfigError(
            "-machine x-update-bridge=on: vCPUs of KVM cannot run on in another program"
        )
    if not software and given.has("icount"):
        raise ConfigError("-icount: KVM counts no instructions; only the interpreter does")


def _accel(given: Given, board: str) -> AccelConfig:
    """Return what was asked for, in the order of preference, and which of it can run the board."""
    wanted = list(dict.fromkeys(_names(given))) or [BOARDS[board]]
    kind = BOARDS[board]
    if kind not in wanted:
        raise ConfigError(
            f"-machine {board} is run by -accel {kind} alone, and only {', '.join(wanted)} was asked for"
        )
    keys: dict[str, object] = {}
    for values in given.each("accel"):
        keys |= values.given
    split = keys.get("kernel-irqchip") == "split"
    shown = keys.get("x-pause-shown") is True
    bare = keys.get("x-bare-guest") is True
    if kind != "kvm" and (split or shown or bare):
        raise ConfigError(
            f"-accel {kind}: kernel-irqchip=, x-pause-shown= and x-bare-guest= are for -accel kvm alone"
        )
    return AccelConfig(
        kind=kind, wanted=wanted, split_irqchip=split, pause_shown=shown, bare_guest=bare
    )


def _names(given: Given) -> Iterator[str]:
    """Yield accelerators by preference: each -accel, and before them those of -machine."""
    machine = given.one("machine")
    places = [("-machine: accel", machine.text("accel"))]
    places += [("-accel: accel", values.text("accel")) for values in given.each("accel")]
    for where, text in places:
        for name in text.split(":") if text else ():
            known = _ALIASES.get(name, name)
            if known not in _ACCELERATORS:
                raise ConfigError(
                    f"{where}={shorten(text)}: allowed is interpreter, tcg or kvm, or several with colons between them"
                )
            yield known


def _cpu(values: Values, board: str) -> CpuConfig:
    software = BOARDS[board] == SOFTWARE_CPU
    model = values.text("model", _RISCV_MODEL if software else "host")
    features = [word for word in values.text("features").split(",") if word]
    if software:
        if model != _RISCV_MODEL or features:
            raise ConfigError(
                f"-cpu {shorten(','.join((model, *features)))}: -machine {board} has {_RISCV_MODEL}, "
                "and no features to add"
            )
    else:
        _check_names(model, features, board)
        for key in _OF_THE_SOFTWARE_CPU:
            if key in values.given:
                raise ConfigError(f"-cpu: {key}= is for -machine virt alone")
    return CpuConfig(
        model=model,
        features=features,
        sstc=values.flag("sstc", default=True),
        flush_everything=values.flag("x-flush-everything", default=False),
    )


def _check_names(model: str, features: list[str], board: str) -> None:
    """Refuse what cannot be names; which ones there are is known to what runs them."""
    if model == _RISCV_MODEL:
        raise ConfigError(
            f"-cpu {_RISCV_MODEL}: -machine {board} has x86-64 processors, such as host"
        )
    for sign, name in (("+", model), *((word[0], word[1:]) for word in features)):
        if sign not in {"+", "-"} or not name or not _NAME.issuperset(name):
            raise ConfigError(
                f"-cpu: {shorten(name)} is no name of a model or feature; allowed is MODEL[,+FEATURE,-FEATURE]"
            )
