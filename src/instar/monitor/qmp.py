"""One QMP session, without I/O: bytes in, replies and events out.

Source: QMP specification (QEMU docs/interop); error texts as QEMU's.
"""

from __future__ import annotations

import json
import traceback
from typing import TYPE_CHECKING, Final, cast

from instar import log
from instar.cpr.errors import CprError
from instar.errors import CommandError, CommandNotFoundError, InstarError
from instar.monitor.command import QMP_COMMANDS, invoke, wire
from instar.monitor.jsonstream import JsonSplitter, parse
from instar.monitor.state import MAX_INPUT, MonitorState
from instar.monitor.version import PACKAGE, VERSION
from instar.sandbox.notice import explained

if TYPE_CHECKING:
    from collections.abc import Mapping

    from instar.monitor.context import Context

_KEYS: Final = frozenset({"execute", "arguments", "id"})
_PACKAGE: Final = __name__.partition(".")[0] + "."


class QmpSession:
    """What one client has negotiated and sent.

    Args:
        context: What commands act on.
        pretty: Indent replies.
        state: Of the session before an update; None: a new one.

    Attributes:
        malformed: Errors answered to what was no JSON, or too much of it.
    """

    def __init__(
        self, context: Context, *, pretty: bool = False, state: MonitorState | None = None
    ) -> None:
        self._context = context
        self.malformed = 0
        self._indent = 4 if pretty else None
        was = state or MonitorState(kind="qmp")
        self._negotiated = was.negotiated
        self._input = JsonSplitter(was.input, skipping=was.skipping, until_value=was.until_value)

    @property
    def negotiated(self) -> bool:
        """Whether the client gets events and may give commands."""
        return self._negotiated

    def greeting(self) -> bytes:
        """Begin a session with a new client and return what to send first."""
        self._negotiated = False
        self._input = JsonSplitter()
        major, minor, micro = VERSION
        numbers = {"micro": micro, "minor": minor, "major": major}
        version = {"qemu": numbers, "package": PACKAGE}
        return self._line({"QMP": {"version": version, "capabilities": []}})

    def save(self) -> MonitorState:
        """Return what must cross an update."""
        return MonitorState(
            kind="qmp",
            negotiated=self._negotiated,
            input=self._input.pending,
            skipping=self._input.skipping,
            until_value=self._input.until_value,
        )

    def feed(self, data: bytes) -> None:
        """Add input from the client."""
        self._input.feed(data)

    def room(self) -> int:
        """Return how many bytes may be fed now."""
        return MAX_INPUT - len(self._input)

    def answer(self) -> bytes | None:
        """Execute the next complete request and return the reply; None if there is none."""
        ident: dict[str, object] = {}
        try:
            request = self._next_request()
            if request is None:
                return None
            if not isinstance(request, dict):
                raise CommandError("QMP input must be a JSON object")
            message = cast("dict[str, object]", request)
            if "id" in message:
                ident = {"id": message["id"]}
            return self._line({"return": self._execute(message), **ident})
        except (InstarError, CprError) as e:
            return self._line({"error": error(e), **ident})
        except Exception as e:  # a bug in one command must not take the guest down
            log.error(f"QMP: {error(e)['desc']}")
            return self._line({"error": error(e), **ident})

    def _next_request(self) -> object:
        try:
            text = self._input.next()
            return None if text is None else parse(text)
        except CommandError:
            self.malformed += 1
            raise

    def event(self, name: str, data: Mapping[str, object], time_us: int) -> bytes:
        """Return the event's line; empty before negotiation.

        Args:
            name: As ``STOP``.
            data: Its data; empty for none.
            time_us: Microseconds since the epoch.
        """
        if not self._negotiated:
            return b""
        seconds, micro = divmod(time_us, 1_000_000)
        stamp = {"seconds": seconds, "microseconds": micro}
        body: dict[str, object] = {"timestamp": stamp, "event": name}
        return self._line({**body, "data": wire(data)} if data else body)

    def _execute(self, message: Mapping[str, object]) -> object:
        name, arguments = _request(message)
        if name == "qmp_capabilities":
            return self._negotiate(arguments)
        if not self._negotiated:
            raise CommandNotFoundError(
                "Expecting capabilities negotiation with 'qmp_capabilities'"
            )
        made = QMP_COMMANDS.get(name)
        if made is None:
            raise CommandNotFoundError(f"The command {name[:64]} has not been found")
        return wire(invoke(made, self._context, arguments))

    def _negotiate(self, arguments: Mapping[str, object]) -> object:
        if self._negotiated:
            raise CommandNotFoundError(
                "Capabilities negotiation is already complete, command ignored"
            )
        invoke(QMP_COMMANDS["qmp_capabilities"], self._context, arguments)
        self._negotiated = True
        return {}

    def _line(self, message: Mapping[str, object]) -> bytes:
        text = json.dumps(message, indent=self._indent)
        return text.replace("\n", "\r\n").encode() + b"\r\n"


def _request(message: Mapping[str, object]) -> tuple[str, Mapping[str, object]]:
    for key in message:
        if key not in _KEYS:
            raise CommandError(f"QMP input member '{key[:64]}' is unexpected")
    if "execute" not in message:
        raise CommandError("QMP input lacks member 'execute'")
    name = message["execute"]
    if not isinstance(name, str):
        raise CommandError("QMP input member 'execute' must be a string")
    arguments = message.get("arguments", {})
    if not isinstance(arguments, dict):
        raise CommandError("QMP input member 'arguments' must be an object")
    return name, cast("dict[str, object]", arguments)


def error(exc: BaseException) -> dict[str, str]:
    """Return the error object of a reply."""
    if isinstance(exc, CommandError):
        return {"class": exc.qmp_class, "desc": explained(exc)}
    if isinstance(exc, InstarError | CprError):
        return {"class": "GenericError", "desc": explained(exc)}
    if isinstance(exc, ImportError) and (exc.name or "").startswith(_PACKAGE):
        gone = f"this release is not on the disk any more: {exc.name} cannot be loaded; the guest goes on"
        return {"class": "GenericError", "desc": gone}
    last = traceback.extract_tb(exc.__traceback__)[-1]
    where = f"{last.name}, line {last.lineno}"
    return {
        "class": "GenericError",
        "desc": f"internal bug ({type(exc).__name__} in {where}); the guest goes on; please report it",
    }
