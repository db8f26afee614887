"""``-exec-allow`` and ``-sandbox``: from checked values to the Config, and back to words."""

from __future__ import annotations

import os

from instar.cli.options.grammar import escape_commas
from instar.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from instar.cli.options.config import Config
    from instar.cli.options.grammar import Given

_MAX_PATHS = 64  # each is looked at before an update, and is a rule of the sandbox


def read_confinement(given: Given, config: Config) -> None:
    """Read both options.

    Raises:
        ConfigError: an empty path, too many of them, or a sandbox that something else on the command line breaks.
    """
    for values in given.each("exec-allow"):
        config.exec_allow += [_path("-exec-allow", word) for word in _split(values.word)]
    sandbox = config.sandbox
    for values in given.each("sandbox"):
        sandbox.enabled = values.flag("enable", default=False)
        for name, paths in (("read", sandbox.read), ("write", sandbox.write)):
            if word := values.text(name):
                paths.append(_path("-sandbox", word))
    for option, paths in (
        ("-exec-allow", config.exec_allow),
        ("-sandbox", sandbox.read + sandbox.write),
    ):
        if len(paths) > _MAX_PATHS:
            raise ConfigError(f"{option}: {len(paths)} paths, limit {_MAX_PATHS}")
    if (sandbox.read or sandbox.write) and not sandbox.enabled:
        raise ConfigError("-sandbox: read= and write= are for on")
    restarted = [child.name for child in config.children if child.restart != "never"]
    if sandbox.enabled and restarted:
        raise ConfigError(
            f"-child {restarted[0]}: with -sandbox on it could not be started again as it was; "
            "only restart=never is possible"
        )


def confinement_words(config: Config) -> list[str]:
    """Return the words that :func:`read_confinement` reads."""
    words: list[str] = []
    for path in config.exec_allow:
        words += ["-exec-allow", escape_commas(path)]
    sandbox = config.sandbox
    if sandbox.enabled:
        words += ["-sandbox", "enable=on"]
    for name, paths in (("read", sandbox.read), ("write", sandbox.write)):
        for path in paths:
            words += ["-sandbox", f"enable=on,{name}={escape_commas(path)}"]
    return words


def _split(word: str) -> list[str]:
    """Split at single commas; two are one of the path."""
    return [part.replace("\0", ",") for part in word.replace(",,", "\0").split(",")]


def _path(option: str, word: str) -> str:
    if not word:
        raise ConfigError(f"{option}: an empty path")
    return os.path.abspath(word)
