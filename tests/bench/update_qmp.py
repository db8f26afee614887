"""A QMP client that connects at once, and keeps events with the moments at which the monitor says they happened."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

from bench_run import RunFailedError

PATIENCE = 60.0  # seconds for an answer; updates of loaded machines take a few
_RETRY_S = 0.0005


class QmpEndedError(RunFailedError):
    """The monitor closed the connection, as QEMU's does when it executes itself."""


class Qmp:
    """One connection.

    Args:
        path: Of the monitor's socket; it need not be there yet.

    Raises:
        RunFailedError: nobody answered for a minute.
    """

    def __init__(self, path: str) -> None:
        self.events: list[tuple[str, int]] = []  # name, host monotonic nanoseconds
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self._socket = socket.socket(socket.AF_UNIX)
                self._socket.settimeout(PATIENCE)
                self._socket.connect(path)
                self._lines = self._socket.makefile("rb")
                self._read()
                break
            except (OSError, QmpEndedError) as exc:
                self._socket.close()
                if time.monotonic() > deadline:
                    raise RunFailedError(f"no QMP monitor answered on {path}: {exc}") from exc
                time.sleep(_RETRY_S)
        self.command("qmp_capabilities")

    def close(self) -> None:
        """Hang up."""
        self._lines.close()
        self._socket.close()

    def command(self, name: str, **arguments: object) -> Any:
        """Return a command's answer; ``_`` in arguments' names is ``-``.

        Raises:
            QmpEndedError: the connection ended before the answer.
            RunFailedError: the answer was an error.
        """
        named = {key.replace("_", "-"): value for key, value in arguments.items()}
        self._socket.sendall(json.dumps({"execute": name, "arguments": named}).encode() + b"\n")
        while "return" not in (message := self._read()):
            if "error" in message:
                raise RunFailedError(f"{name}: {message['error']['desc']}")
        return message["return"]

    def until(self, name: str) -> None:
        """Read events until there is one of that name."""
        while all(seen != name for seen, _ in self.events):
            self._read()

    def _read(self) -> dict[str, Any]:
        try:
            line = self._lines.readline()
        except ConnectionError as exc:
            raise QmpEndedError("the connection broke") from exc
        if not line:
            raise QmpEndedError("the connection was closed")
        message = json.loads(line)
        if "event" in message:
            stamp = message["timestamp"]
            real = stamp["seconds"] * 10**9 + stamp["microseconds"] * 1000
            self.events.append((message["event"], real - time.time_ns() + time.monotonic_ns()))
        return message
