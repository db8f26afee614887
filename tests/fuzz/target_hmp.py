"""HMP: any keys are shown and any lines answered, never with an internal bug."""

import fuzz_paths  # noqa: F401
from monitor_fakes import FakeContext

from instar.monitor import commands
from instar.monitor.command import HMP_COMMANDS
from instar.monitor.session import HmpSession

assert commands


def fuzz(data: bytes) -> None:
    """An odd first byte has the session cross an update after each line that was answered."""
    context = FakeContext()
    context.gifts.clear()
    context.named_fds.kept.clear()
    session = HmpSession(context)
    keys = data[1:]
    while keys:
        room = session.room()
        session.feed(keys[:room])
        keys = keys[room:]
        shown = True
        while shown is not None:
            shown = session.answer()
            assert shown is None or b"internal bug" not in shown, shown
        if session.busy:
            session.poll()
        if data[0] & 1:
            session = HmpSession(context, state=session.save())
        if session.busy and not room:
            return


def seeds() -> list[bytes]:
    """Every command, keys that edit, and what else a terminal sends."""
    edits = [
        b"\x1b[A\x1b[B\x1b[C\x1b[D",
        b"\x01\x05\x0b\x15\x17\x1b\x7f",
        b"in\t\tfo st\t\r",
        "\u00e9\U0001f600\r".encode(),
    ]
    lines = [f"{name} 1 -d 'a \"b".encode() + b"\r" for name in HMP_COMMANDS]
    return [b"\0" + b"".join(edits) + line for line in lines] + [
        b"\1x/2xw 0x80000000+$pc\rinfo\rhelp\r"
    ]
