"""Migration parameters and capabilities: tables, with QEMU's names, order and defaults.

All of QEMU's names are listed, since clients expect them; those that nothing here obeys accept their default only, so
that a setting never silently does nothing.

Source: QEMU's QAPI reference for MigrationParameters and MigrationCapability.
"""

from __future__ import annotations

from instar.cpr.state import State, state, subs, text
from instar.errors import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import ClassVar, Final, Literal

    Mode = Literal["normal", "cpr-reboot", "cpr-transfer", "cpr-exec"]
    Value = int | bool | str | list[str]

MODES: Final[tuple[Mode, ...]] = ("normal", "cpr-reboot", "cpr-transfer", "cpr-exec")
MAX_WORDS: Final = 1024  # of cpr-exec-command
MAX_WORD: Final = 131072  # bytes, the kernel's limit of one argument (MAX_ARG_STRLEN)


class Parameter:
    """One row; ``unit`` is what ``info migrate_parameters`` prints after the number."""

    __slots__ = ("default", "name", "unit")

    def __init__(self, name: str, default: Value, *, unit: str = "") -> None:
        self.name = name
        self.default: Value = default
        self.unit = unit


PARAMETERS: Final[tuple[Parameter, ...]] = (
    Parameter("announce-initial", 50, unit=" ms"),
    Parameter("announce-max", 550, unit=" ms"),
    Parameter("announce-rounds", 5),
    Parameter("announce-step", 100, unit=" ms"),
    Parameter("throttle-trigger-threshold", 50),
    Parameter("cpu-throttle-initial", 20),
    Parameter("cpu-throttle-increment", 10),
    Parameter("cpu-throttle-tailslow", default=False),
    Parameter("max-cpu-throttle", 99),
    Parameter("tls-creds", ""),
    Parameter("tls-hostname", ""),
    Parameter("tls-authz", ""),
    Parameter("max-bandwidth", 134217728, unit=" bytes/second"),
    Parameter("avail-switchover-bandwidth", 0, unit=" bytes/second"),
    Parameter("max-postcopy-bandwidth", 0, unit=" bytes/second"),
    Parameter("downtime-limit", 300, unit=" ms"),
    Parameter("x-checkpoint-delay", 20000, unit=" ms"),
    Parameter("multifd-channels", 2),
    Parameter("multifd-compression", "none"),
    Parameter("multifd-zlib-level", 1),
    Parameter("multifd-zstd-level", 1),
    Parameter("multifd-qatzip-level", 1),
    Parameter("zero-page-detection", "multifd"),
    Parameter("xbzrle-cache-size", 67108864, unit=" bytes"),
    Parameter("x-vcpu-dirty-limit-period", 1000, unit=" ms"),
    Parameter("vcpu-dirty-limit", 1, unit=" MB/s"),
    Parameter("mode", "normal"),
    Parameter("direct-io", default=False),
    Parameter("x-rdma-chunk-size", 1048576, unit=" bytes"),
    Parameter("cpr-exec-command", []),
)

CAPABILITIES: Final[dict[str, bool]] = {  # name -> whether it can be switched on here
    "xbzrle": False,
    "rdma-pin-all": False,
    "auto-converge": False,
    "events": True,
    "postcopy-ram": False,
    "x-colo": False,
    "release-ram": False,
    "return-path": False,
    "pause-before-switchover": True,
    "multifd": False,
    "dirty-bitmaps": False,
    "postcopy-blocktime": False,
    "late-block-activate": False,
    "x-ignore-shared": False,
    "validate-uuid": False,
    "background-snapshot": False,
    "zero-copy-send": False,
    "postcopy-preempt": False,
    "switchover-ack": False,
    "dirty-limit": False,
    "mapped-ram": False,
}


@state("migration-word", version=1)
class WordState(State):
    """One word of a list parameter."""

    word: str = text("The word.", max=MAX_WORD)


@state("migration-switch", version=1)
class SwitchState(State):
    """One capability that is on."""

    name: str = text("QEMU's name of the capability.", max=64)


@state("migration-settings", version=1)
class SettingsState(State):
    """Parameters and capabilities: they survive an update, unlike QEMU's."""

    mode: str = text("QEMU's MigMode.", max=32)
    command: list[WordState] = subs(WordState, "cpr-exec-command.", max=MAX_WORDS)
    capabilities: list[SwitchState] = subs(SwitchState, "Capabilities that are on.", max=64)


class Settings:
    """The current parameters and capabilities."""

    __slots__ = ("capabilities", "command", "mode")
    state_id = "migration-settings"
    state_class: ClassVar[type[State]] = SettingsState

    def __init__(self) -> None:
        self.mode: Mode = "normal"
        self.command: list[str] = []
        self.capabilities = dict.fromkeys(CAPABILITIES, False)

    @property
    def parameters(self) -> Mapping[str, Value]:
        """All parameters in QEMU's order."""
        values: dict[str, Value] = {row.name: row.default for row in PARAMETERS}
        values["mode"] = self.mode
        values["cpr-exec-command"] = list(self.command)
        return values

    def set_parameters(self, values: Mapping[str, object]) -> None:
        """Set these, all or none.

        Raises:
            CommandError: a name or a value is not possible; nothing changed.
        """
        mode, command = self.mode, self.command
        for name, value in values.items():
            if name == "mode":
                mode = check_mode(value)
            elif name == "cpr-exec-command":
                command = check_command(value)
            else:
                _check_unobeyed(name, value)
        self.mode, self.command = mode, command

    def set_capabilities(self, values: Mapping[str, bool]) -> None:
        """Switch these, all or none.

        Raises:
            CommandError: one is unknown or cannot be switched on; nothing changed.
        """
        for name, on in values.items():
            if name not in CAPABILITIES:
                raise CommandError(f"Parameter 'capability' does not accept value '{name}'")
            if on and not CAPABILITIES[name]:
                raise CommandError(
                    f"Capability '{name}' is not available in this version; it stays off"
                )
        self.capabilities.update(values)

    def save_state(self) -> SettingsState:
        """Return a copy."""
        return SettingsState(
            mode=self.mode,
            command=[WordState(word=word) for word in self.command],
            capabilities=[SwitchState(name=name) for name, on in self.capabilities.items() if on],
        )

    def load_state(self, state: SettingsState) -> None:
        """Take over; a capability that this version does not have is dropped, as it cannot be obeyed."""
        self.mode = check_mode(state.mode or "normal")
        self.command = [word.word for word in state.command]
        for switch in state.capabilities:
            if CAPABILITIES.get(switch.name):
                self.capabilities[switch.name] = True


def check_mode(value: object) -> Mode:
    """Return ``value`` as a mode, or raise CommandError."""
    for mode in MODES:
        if value == mode:
            return mode
    raise CommandError(f"Parameter 'mode' does not accept value '{value}'")


def check_command(value: object) -> list[str]:
    """Return ``value`` as the words of a command, or raise CommandError."""
    if not isinstance(value, list):
        raise CommandError("Invalid parameter type for 'cpr-exec-command', expected: array")
    words: list[object] = value  # pyright: ignore[reportUnknownVariableType]
    if len(words) > MAX_WORDS:
        raise CommandError(f"cpr-exec-command: {len(words)} words, limit {MAX_WORDS}")
    checked: list[str] = []
    for word in words:
        if not isinstance(word, str):
            raise CommandError("Invalid parameter type for 'cpr-exec-command', expected: string")
        if not _is_word(word):
            raise CommandError(
                f"cpr-exec-command: a word of {len(word)} characters: not UTF-8, has NUL, or over {MAX_WORD - 1} bytes"
            )
        checked.append(word)
    return checked


def _is_word(word: str) -> bool:
    try:
        return len(word.encode()) < MAX_WORD and "\0" not in word
    except UnicodeEncodeError:  # half of a surrogate pair
        return False


def _check_unobeyed(name: str, value: object) -> None:
    for row in PARAMETERS:
        if row.name == name:
            if type(value) is type(row.default) and value == row.default:
                return
            raise CommandError(
                f"Parameter '{name}' is not used by this version: only its default {row.default!r} is accepted"
            )
    raise CommandError(f"Parameter '{name}' is unexpected")
