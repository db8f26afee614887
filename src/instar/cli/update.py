"""``instar update``: ask a running VM over QMP to replace its program, wait, and say how it went.

Source: own.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from typing import TYPE_CHECKING, ClassVar, Final

from instar.errors import CommandError, HostError, InstarError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from instar.errors import Fault

    Message = Mapping[str, object]

_FIRST_S: Final = 10.0  # until the first connection answers
_SILENCE_S: Final = 3.0  # after so long without an answer people are told what is waited for
_PATIENCE_S: Final = (
    30.0  # until it answers again when it ended; an update may take longer than that in all
)
_LONGEST_S: Final = 900.0  # of one reply: the guest stands still, the new program loads
_LOOK_AGAIN_S: Final = 0.05
_CHUNK: Final = 1 << 16
_UNASKED: Final = "nothing was asked of the VM"
_ASKED: Final = "the VM goes on with the update"
_ONE_CLIENT: Final = "a QMP socket serves one client at a time: another one may be connected"
_COLOURS: Final = {"completed": "32", "ready": "32", "refused": "33", "cancelled": "33", "failed": "31"}  # fmt: skip
_WITH_GUEST: Final = {
    "new": "the new program has the guest",
    "old": "the old program goes on with the guest",
    "old-by-guardian": "the guardian has started the old program again, which goes on with the guest",
}


class NotUpdatedError(InstarError):
    """The update was refused or cancelled: the guest was not stopped, or goes on; the message says why."""

    code = "not-updated"
    fault: ClassVar[Fault] = "user"
    exit_status = 6


class FailedUpdateError(NotUpdatedError):
    """The guest was stopped, and the old program goes on with it."""

    exit_status = 7


class LeftError(NotUpdatedError):
    """The user did not wait for the end."""

    exit_status = 130


class Client:
    """A QMP connection to a VM; make one, use it in a ``with`` block.

    Args:
        path: The unix socket.

    Raises:
        HostError: Nobody answers there.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._data = b""
        self._socket = self._connect(_FIRST_S, _UNASKED)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def command(self, name: str, arguments: Message | None = None) -> Message:
        """Return what a command returns; if the connection ends, it is made again and the command given again.

        Raises:
            CommandError: The VM refused it.
            HostError: The VM is gone.
        """
        try:
            return self._ask(name, arguments)
        except (OSError, EOFError):
            self._socket.close()
            self._data = b""
            self._socket = self._connect(_PATIENCE_S, _ASKED)
            return self._ask(name, arguments)

    def _connect(self, patience_s: float, state: str) -> socket.socket:
        made = socket.socket(socket.AF_UNIX)
        made.settimeout(patience_s)
        try:
            made.connect(self._path)
            self._socket = made
            self._await_greeting(patience_s)
            made.settimeout(patience_s)
            self._ask("qmp_capabilities", None)
        except TimeoutError:
            made.close()
            raise HostError(
                f"{self._path}: no QMP greeting within {patience_s:g} s; {state}"
            ).hint(_ONE_CLIENT) from None
        except (OSError, EOFError, ValueError) as e:
            made.close()
            why = (
                os.strerror(e.errno)
                if isinstance(e, OSError) and e.errno
                else str(e) or "it ended"
            )
            raise HostError(f"{self._path}: {why}").hint(
                "VM is the path of a socket as in -qmp unix:PATH,server=on,wait=off"
            ) from None
        made.settimeout(_LONGEST_S)
        return made

    def _await_greeting(self, patience_s: float) -> None:
        end = time.monotonic() + patience_s
        told = False
        while (left := end - time.monotonic()) > 0:
            self._socket.settimeout(left if told else min(left, _SILENCE_S))
            try:
                if "QMP" in self._read():
                    return
            except TimeoutError:
                if not told:
                    text = f"{self._path}: no QMP greeting yet; {_ONE_CLIENT}; waiting"
                    print(f"instar: {text}", file=sys.stderr, flush=True)
                told = True
        raise TimeoutError

    def _ask(self, name: str, arguments: Message | None) -> Message:
        request: dict[str, object] = {"execute": name}
        if arguments:
            request["arguments"] = arguments
        self._socket.sendall(json.dumps(request).encode())
        while True:
            match self._read():
                case {"return": dict() as result}:  # pyright: ignore[reportUnknownVariableType]
                    return result  # pyright: ignore[reportUnknownVariableType]
                case {"error": {"desc": str(text)}}:
                    raise CommandError(text)
                case _:  # pyright: ignore[reportUnknownVariableType]
                    continue

    def _read(self) -> Message:
        while b"\n" not in self._data:
            data = self._socket.recv(_CHUNK)
            if not data:
                raise EOFError
            self._data += data
        line, _, self._data = self._data.partition(b"\n")
        message: object = json.loads(line)
        return message if isinstance(message, dict) else {}  # pyright: ignore[reportUnknownVariableType]


def update(path: str, program: str, *, check: bool, budget_ms: int, as_json: bool) -> None:
    """Update the VM whose QMP socket is ``path``, and print how it goes.

    Args:
        path: The socket.
        program: What to execute; "" is what the VM was started from.
        check: Only try it.
        budget_ms: Longest pause that may be predicted; -1: as the VM's parameter says.
        as_json: Print one JSON object a line.

    Raises:
        NotUpdatedError: Refused, failed or cancelled: the old program goes on.
        HostError: The VM does not answer.
    """
    arguments: dict[str, object] = {"check": check}
    if program:
        arguments["program"] = os.path.abspath(program) if "/" in program else program
    if budget_ms >= 0:
        arguments["budget"] = budget_ms
    told = 0
    try:
        with Client(path) as client:
            _begin(client, arguments)
            while True:
                report = _report(client)
                told = _tell_phases(report, told, as_json=as_json)
                if report.get("status") != "running":
                    break
                time.sleep(_LOOK_AGAIN_S)
    except KeyboardInterrupt:
        raise LeftError("interrupted; the VM goes on with the update") from None
    _tell_end(report, as_json=as_json)


def _begin(client: Client, arguments: Message) -> None:
    try:
        client.command("x-update", arguments)
    except CommandError as e:
        raise NotUpdatedError(f"refused: {e}") from None


def _report(client: Client) -> Message:
    match client.command("query-migrate"):
        case {"x-update": dict() as report}:  # pyright: ignore[reportUnknownVariableType]
            return report  # pyright: ignore[reportUnknownVariableType]
        case _:
            raise HostError("the VM does not tell how the update went")


def _tell_phases(report: Message, told: int, *, as_json: bool) -> int:
    """Print the phases that are new; returns how many were printed so far."""
    phases = report.get("phases")
    rows: list[object] = phases if isinstance(phases, list) else []  # pyright: ignore[reportUnknownVariableType]
    for row in rows[told:]:
        match row:
            case {"name": str(name), "us": int(us)}:
                line = f"  {name:<10}{us / 1000:10.1f} ms"
                event = {"event": "phase", "phase": name, "us": us}
                print(json.dumps(event) if as_json else line, flush=True)
            case _:  # pyright: ignore[reportUnknownVariableType]
                continue
    return len(rows)


def _tell_end(report: Message, *, as_json: bool) -> None:
    status = str(report.get("status"))
    if as_json:
        print(json.dumps({"event": "done", **report}), flush=True)
    else:
        for line in _lines(report):
            print(line, flush=True)
    if status in ("completed", "ready"):
        return
    text = f"{status}: {report.get('reason', 'the VM does not say why')}"
    raise FailedUpdateError(text) if status == "failed" else NotUpdatedError(text)


def _lines(report: Message) -> list[str]:
    """Return the outcome for people."""
    status = str(report.get("status"))
    versions = str(report.get("old-version"))
    if "new-version" in report:
        versions += f" -> {report['new-version']}"
    lines = [f"{versions}: {_coloured(status)}"]
    if "program" in report:
        lines.append(f"program {report['program']} {report.get('digest', '')}".rstrip())
    for key, text in (
        ("pause-us", "the guest stood still for {:.1f} ms"),
        ("predicted-pause-us", "predicted was a pause of {:.1f} ms"),
        ("rehearsal-pause-us", "for the rehearsal it had stood still for {:.1f} ms"),
    ):
        value = report.get(key)
        if isinstance(value, int):
            lines.append(text.format(value / 1000))
    before, now = report.get("old-pid"), report.get("new-pid")
    where = f"process {now}" if before == now else f"process {now}, before it was {before}"
    lines.append(f"{_WITH_GUEST.get(str(report.get('owner')), 'nobody knows')}, {where}")
    for key in ("complaints", "notes"):
        rows = report.get(key)
        texts: list[object] = rows if isinstance(rows, list) else []  # pyright: ignore[reportUnknownVariableType]
        lines += [f"{key.removesuffix('s')}: {text}" for text in texts]
    return lines


def _coloured(status: str) -> str:
    if sys.stdout.isatty() and "NO_COLOR" not in os.environ and status in _COLOURS:
        return f"\x1b[1;{_COLOURS[status]}m{status}\x1b[0m"
    return status
