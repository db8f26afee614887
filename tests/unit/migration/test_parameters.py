"""Parameters and capabilities: all of QEMU's names, and nothing that silently does nothing."""

from __future__ import annotations

import pytest

from instar.cpr import state
from instar.errors import CommandError
from instar.migration.parameters import CAPABILITIES, PARAMETERS, Settings, SettingsState


def test_all_names_are_listed_with_their_defaults() -> None:
    values = Settings().parameters
    assert list(values) == [row.name for row in PARAMETERS]
    assert (values["mode"], values["cpr-exec-command"], values["downtime-limit"]) == (
        "normal",
        [],
        300,
    )


def test_mode_and_command_are_obeyed() -> None:
    settings = Settings()
    settings.set_parameters({"mode": "cpr-exec", "cpr-exec-command": ["a", "b c"]})
    assert (settings.mode, settings.command) == ("cpr-exec", ["a", "b c"])


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"mode": "xyz"}, "Parameter 'mode' does not accept value 'xyz'"),
        (
            {"cpr-exec-command": "x"},
            "Invalid parameter type for 'cpr-exec-command', expected: array",
        ),
        ({"cpr-exec-command": [1]}, "expected: string"),
        ({"cpr-exec-command": ["a\0"]}, "has NUL"),
        ({"cpr-exec-command": ["\ud800"]}, "not UTF-8"),
        ({"cpr-exec-command": ["x" * 200_000]}, "a word of 200000 characters"),
        ({"cpr-exec-command": ["x"] * 2000}, "2000 words, limit 1024"),
        ({"multifd-channels": 4}, "only its default 2 is accepted"),
        ({"direct-io": 0}, "only its default False"),
        ({"nosuch": 1}, "Parameter 'nosuch' is unexpected"),
    ],
)
def test_wrong_value_is_refused_and_changes_nothing(values, text: str) -> None:
    settings = Settings()
    with pytest.raises(CommandError, match=text):
        settings.set_parameters({"mode": "cpr-exec"} | values)
    assert settings.parameters == Settings().parameters


def test_default_of_an_unused_parameter_is_accepted() -> None:
    Settings().set_parameters({"multifd-channels": 2, "tls-creds": ""})


@pytest.mark.parametrize("name", [name for name, usable in CAPABILITIES.items() if not usable])
def test_capability_that_is_not_there_can_be_off_but_not_on(name: str) -> None:
    settings = Settings()
    settings.set_capabilities({name: False})
    with pytest.raises(CommandError, match=f"'{name}' is not available"):
        settings.set_capabilities({"events": True, name: True})
    assert not any(settings.capabilities.values())


def test_settings_cross_an_update() -> None:
    settings, after = Settings(), Settings()
    settings.set_parameters(
        {"mode": "cpr-exec", "cpr-exec-command": ["instar-system", "-incoming", "file:x y"]}
    )
    settings.set_capabilities({"events": True, "pause-before-switchover": True})
    record = state.save(settings.save_state())
    after.load_state(state.load(SettingsState, SettingsState.state_version, record))
    assert after.parameters == settings.parameters
    assert after.capabilities == settings.capabilities
