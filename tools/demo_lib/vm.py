"""One ``instar-system`` as a child process: its monitor, its serial console, its end."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Any

from demo_lib.errors import HOST, DemoError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import TypeVar

    T = TypeVar("T")
    Message = dict[str, Any]

CHUNK = 1 << 16  # bytes read at once
REPLY = 30.0  # seconds; a monitor answers in milliseconds, machines may be busy
GRACE = 5.0  # seconds a process gets to end by itself
CONNECT = 0.01  # seconds between two tries


class Vm:
    """A running VM; close it in any case.

    Args:
        argv: Program and arguments; they make the sockets below.
        folder: Where the sockets ``qmp`` and ``serial`` are and its standard error goes.
        on_output: Called with the bytes that the guest writes to its serial line, as they come.

    Raises:
        DemoError: it did not start; nothing is left.
    """

    def __init__(
        self, argv: Sequence[str], folder: Path, on_output: Callable[[bytes], object]
    ) -> None:
        self._folder = folder
        self._on_output = on_output
        self._received = b""
        self._messages: list[Message] = []
        self._open: list[socket.socket] = []
        with (folder / "stderr").open("wb") as stderr:
            # A process group of its own: the terminal's Ctrl-C is for us, and we end it in order.
            self.process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stderr=stderr, process_group=0
            )
        try:
            self._console = self._connect("serial")
            self._qmp = self._connect("qmp")
            self.greeting = self._until(self._take_greeting, REPLY, "a greeting of the monitor")
            self.command("qmp_capabilities")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the process, if it has not ended, and the connections."""
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(GRACE)
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for connection in self._open:
            connection.close()

    def pid(self) -> int:
        """Return the id of the process that runs the guest now, found by the thread that the monitor names."""
        (cpu, *_) = self.command("query-cpus-fast")
        with open(f"/proc/{cpu['thread-id']}/status", encoding="utf-8") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("Tgid:"))

    def command(self, name: str, **arguments: object) -> Any:  # noqa: ANN401 - JSON is any
        """Execute a monitor command and return what it returned.

        Args:
            name: Of the command.
            arguments: Its arguments; ``_`` stands for ``-``.

        Raises:
            DemoError: it was refused.
        """
        request: Message = {"execute": name}
        if arguments:
            request["arguments"] = {key.replace("_", "-"): v for key, v in arguments.items()}
        self._send(self._qmp, json.dumps(request) + "\n")
        reply = self._until(self._take_reply, REPLY, f"an answer to '{name}'")
        if "error" in reply:
            raise DemoError(f"the monitor refused '{name}': {reply['error']['desc']}")
        return reply["return"]

    def event(self, names: Sequence[str], seconds: float, what: str) -> Message:
        """Return the next event with one of these names, dropping those before it."""

        def take() -> Message | None:
            while self._messages:
                message = self._messages.pop(0)
                if message.get("event") in names:
                    return message
            return None

        return self._until(take, seconds, what)

    def forget_events(self) -> None:
        """Drop the events that came so far."""
        self._messages.clear()

    def type(self, text: str) -> None:
        """Type into the guest's console."""
        self._send(self._console, text)

    def until(self, done: Callable[[], bool], seconds: float, what: str) -> None:
        """Listen to guest and monitor until ``done``.

        Raises:
            DemoError: it took too long, or the VM ended.
        """
        self._until(lambda: done() or None, seconds, what)

    def wait_exit(self, seconds: float) -> int:
        """Return the exit status of a VM that was told to end; what the guest still says is taken."""
        deadline = time.monotonic() + seconds
        with contextlib.suppress(DemoError):  # its connections end before it does
            while self.process.poll() is None and time.monotonic() < deadline:
                self._pump(0.1)
        try:
            return self.process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise DemoError(
                f"the VM did not end within {seconds:.0f} s of the guest's power-off"
            ) from None

    def _connect(self, name: str) -> socket.socket:
        path = self._folder / name
        deadline = time.monotonic() + REPLY
        while True:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(str(path))
            except OSError as e:
                connection.close()
                if self.process.poll() is not None:
                    raise self._ended() from None
                if time.monotonic() > deadline:
                    raise DemoError(f"cannot connect to {path}: {e.strerror}", status=HOST) from e
                time.sleep(CONNECT)
            else:
                self._open.append(connection)
                return connection

    def _until(self, take: Callable[[], T | None], seconds: float, what: str) -> T:
        deadline = time.monotonic() + seconds
        while (found := take()) is None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise DemoError(
                    f"waited {seconds:.0f} s in vain for {what}",
                    hint="a very busy machine can be too slow for this demo; run it again",
                )
            self._pump(left)
        return found

    def _pump(self, seconds: float) -> None:
        # The last words on one connection may come together with the end of the other: they are heard first.
        ended = heard = False
        for connection in select.select([self._console, self._qmp], [], [], seconds)[0]:
            try:
                data = connection.recv(CHUNK)
            except ConnectionError:
                data = b""
            if not data:
                ended = True
            elif connection is self._console:
                heard = True
                self._on_output(data)
            else:
                heard = True
                *lines, self._received = (self._received + data).split(b"\n")
                self._messages += [json.loads(line) for line in lines]
        if ended and not heard:
            raise self._ended()

    def _send(self, connection: socket.socket, text: str) -> None:
        try:
            connection.sendall(text.encode())
        except ConnectionError:
            raise self._ended() from None

    def _take_greeting(self) -> Message | None:
        return self._messages.pop(0) if self._messages else None

    def _take_reply(self) -> Message | None:
        for n, message in enumerate(self._messages):
            if "event" not in message:
                return self._messages.pop(n)
        return None

    def _ended(self) -> DemoError:
        try:
            status = self.process.wait(GRACE)
            how = (
                f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
            )
            text = f"instar-system {how}, and the guest with it"
        except subprocess.TimeoutExpired:
            text = "instar-system closed a connection"
        said = (self._folder / "stderr").read_text("utf-8", "replace").strip()
        return DemoError(text, hint=said[-2000:])
