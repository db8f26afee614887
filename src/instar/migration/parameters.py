"""Migration parameters and capabilities: tables, with QEMU's names, order and defaults.

All of QEMU's names are listed, since clients expect them; those that nothing here obeys accept their default only, so
that a setting never silently does nothing.

Source: QEMU's QAPI reference for MigrationParameters and MigrationCapability.
"""

from __future__ import annotations

from instar import log
from instar.cpr.state import State, state, step, subs, text, u
from instar.errors import CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import ClassVar, Final, Literal

    from instar.cpr.state import Record

    Mode = Literal["normal", "cpr-reboot", "cpr-transfer", "cpr-exec"]
    Value = int | bool | str | list[str]

MODES: Final[tuple[Mode, ...]] = ("normal", "cpr-reboot", "cpr-transfer", "cpr-exec")
MAX_WORDS: Final = 1024  # of cpr-exec-command
MAX_WORD: Final = 131072  # bytes, the kernel's limit of one argument (MAX_ARG_STRLEN)


class Parameter:
    """One row.

    Attributes:
        unit: What ``info migrate_parameters`` prints after the number.
        high: Largest number; -1: this version obeys the default alone (of ours, numbers alone need it).
        doc: What it is for; "" for QEMU's that nothing here obeys.
    """

    __slots__ = ("default", "doc", "high", "name", "unit")

    def __init__(
        self, name: str, default: Value, *, unit: str = "", high: int = -1, doc: str = ""
    ) -> None:
        self.name = name
        self.default: Value = default
        self.unit = unit
        self.high = high
        self.doc = doc


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
    Parameter(
        "cpr-exec-digest",
        "",
        doc="Refuse to execute a program with another digest (sha256:HEX); empty: any.",
    ),
    Parameter(
        "x-update-rehearsal",
        default=True,
        doc="Let the new program try itself beside this one before the guest stops.",
    ),
    Parameter(
        "x-update-way-back",
        default=True,
        doc="Execute this program again if the new one fails before the guest resumes.",
    ),
    Parameter(
        "x-update-guardian",
        default=True,
        doc="Start this program again if the new one crashes or hangs before the guest resumes.",
    ),
    Parameter(
        "x-update-keeper",
        default=True,
        doc="Have this program's memory given back beside the pause instead of in it.",
    ),
    Parameter(
        "x-update-timeout",
        10000,
        unit=" ms",
        high=600_000,
        doc="How long the new program may take from exec until the guest resumes.",
    ),
    Parameter(
        "x-update-budget",
        0,
        unit=" ms",
        high=600_000,
        doc="Refuse an update whose rehearsal predicts a longer pause; 0: no limit.",
    ),
)
OURS: Final = {row.name: row for row in PARAMETERS if row.doc}

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
    "x-ignore-shared": True,
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


@state("migration-setting", version=1)
class SettingState(State):
    """One parameter of ours that is not as by default; a switch is 0 or 1."""

    name: str = text("Name.", max=64)
    value: int = u(32, "Value.")


@state("migration-text", version=1)
class TextSettingState(State):
    """One parameter of ours that is a text and not as by default."""

    name: str = text("Name.", max=64)
    value: str = text("Value.", max=4096)


@state("migration-settings", version=3)
class SettingsState(State):
    """Parameters and capabilities: they survive an update, unlike QEMU's."""

    mode: str = text("QEMU's MigMode.", max=32)
    command: list[WordState] = subs(WordState, "cpr-exec-command.", max=MAX_WORDS)
    capabilities: list[SwitchState] = subs(SwitchState, "Capabilities that are on.", max=64)
    settings: list[SettingState] = subs(SettingState, "x-update-...", max=64, since=2)
    texts: list[TextSettingState] = subs(
        TextSettingState, "Those that are texts.", max=64, since=3
    )

    @step(1, 2)
    @staticmethod
    def _add_settings(old: Record) -> Record:
        return {**old, "settings": []}

    @step(2, 1)  # lossy: the old program has no such settings
    @staticmethod
    def _drop_settings(new: Record) -> Record:
        return {key: value for key, value in new.items() if key != "settings"}

    @step(2, 3)
    @staticmethod
    def _add_texts(old: Record) -> Record:
        return {**old, "texts": []}

    @step(3, 2)  # lossy: the old program has no such settings
    @staticmethod
    def _drop_texts(new: Record) -> Record:
        return {key: value for key, value in new.items() if key != "texts"}


class Settings:
    """The current parameters and capabilities."""

    __slots__ = ("_ours", "capabilities", "command", "mode")
    state_id = "migration-settings"
    state_class: ClassVar[type[State]] = SettingsState

    def __init__(self) -> None:
        self.mode: Mode = "normal"
        self.command: list[str] = []
        self.capabilities = dict.fromkeys(CAPABILITIES, False)
        self._ours: dict[str, Value] = {name: row.default for name, row in OURS.items()}

    @property
    def rehearsal(self) -> bool:
        """``x-update-rehearsal``."""
        return self._ours["x-update-rehearsal"] is True

    @property
    def way_back(self) -> bool:
        """``x-update-way-back``."""
        return self._ours["x-update-way-back"] is True

    @property
    def guardian(self) -> bool:
        """``x-update-guardian``."""
        return self._ours["x-update-guardian"] is True

    @property
    def keeper(self) -> bool:
        """``x-update-keeper``."""
        return self._ours["x-update-keeper"] is True

    @property
    def timeout_ms(self) -> int:
        """``x-update-timeout``."""
        return self._number("x-update-timeout")

    @property
    def budget_ms(self) -> int:
        """``x-update-budget``."""
        return self._number("x-update-budget")

    @property
    def exec_digest(self) -> str:
        """``cpr-exec-digest``."""
        value = self._ours["cpr-exec-digest"]
        return value if isinstance(value, str) else ""

    def _number(self, name: str) -> int:
        value = self._ours[name]
        return value if isinstance(value, int) else 0

    @property
    def parameters(self) -> Mapping[str, Value]:
        """All parameters in QEMU's order."""
        values: dict[str, Value] = {row.name: row.default for row in PARAMETERS}
        values.update(self._ours)
        values["mode"] = self.mode
        values["cpr-exec-command"] = list(self.command)
        return values

    def set_parameters(self, values: Mapping[str, object]) -> None:
        """Set these, all or none.

        Raises:
            CommandError: a name or a value is not possible; nothing changed.
        """
        mode, command = self.mode, self.command
        ours: dict[str, Value] = {}
        for name, value in values.items():
            if name == "mode":
                mode = check_mode(value)
            elif name == "cpr-exec-command":
                command = check_command(value)
            elif name in OURS:
                ours[name] = _check_ours(OURS[name], value)
            else:
                _check_unobeyed(name, value)
        self.mode, self.command = mode, command
        self._ours.update(ours)

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
            settings=[
                SettingState(name=name, value=int(value))
                for name, value in self._ours.items()
                if isinstance(value, int) and value != OURS[name].default
            ],
            texts=[
                TextSettingState(name=name, value=value)
                for name, value in self._ours.items()
                if isinstance(value, str) and value != OURS[name].default
            ],
        )

    def load_state(self, state: SettingsState) -> None:
        """Take over; a capability that this version does not have is dropped, as it cannot be obeyed."""
        self.mode = check_mode(state.mode or "normal")
        self.command = [word.word for word in state.command]
        for switch in state.capabilities:
            if CAPABILITIES.get(switch.name):
                self.capabilities[switch.name] = True
        for setting in state.settings:
            row = OURS.get(setting.name)
            if row is None:
                log.warning(f"parameter {setting.name} is not known to this version; it is left")
            else:
                is_switch = isinstance(row.default, bool)
                self._ours[row.name] = bool(setting.value) if is_switch else setting.value
        for text_setting in state.texts:
            if text_setting.name in OURS:
                self._ours[text_setting.name] = text_setting.value
            else:
                log.warning(
                    f"parameter {text_setting.name} is not known to this version; it is left"
                )


def _check_ours(row: Parameter, value: object) -> Value:
    """Return ``value`` as one of this parameter, or raise CommandError."""
    if isinstance(row.default, bool):
        if not isinstance(value, bool):
            raise CommandError(f"Invalid parameter type for '{row.name}', expected: boolean")
        return value
    if isinstance(row.default, str):
        return _check_text(row, value)
    if type(value) is not int or not 0 <= value <= row.high:
        raise CommandError(
            f"Parameter '{row.name}' expects a number from 0 to {row.high}, got {value!r}; nothing was changed"
        )
    return value


def _check_text(row: Parameter, value: object) -> str:
    from instar.cpr.digest import normal  # noqa: PLC0415 - not on the resume path

    if not isinstance(value, str):
        raise CommandError(f"Invalid parameter type for '{row.name}', expected: string")
    try:
        return normal(value)
    except ValueError as e:
        raise CommandError(f"Parameter '{row.name}': {e}; nothing was changed") from e


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
