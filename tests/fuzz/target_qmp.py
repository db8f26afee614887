"""QMP: any bytes in any pieces give replies that are JSON, the same in all cuts, and never an internal bug."""

import json

import fuzz_paths  # noqa: F401
from monitor_fakes import FakeContext

from instar.monitor import commands
from instar.monitor.command import QMP_COMMANDS
from instar.monitor.qmp import QmpSession
from instar.testing.hostile import Script

assert commands


def fuzz(data: bytes) -> None:
    """The first byte is the size of the pieces; with an odd one the session crosses an update between two of them."""
    script = Script(data)
    size = script.number() + 1
    text = data[1:]
    whole = talk(text, len(text) + 1, cross=False)
    assert talk(text, size if size > 1 else len(text) // 2 + 1, cross=bool(size & 1)) == whole
    for reply in whole:
        body = json.loads(reply)
        assert "return" in body or "error" in body
        assert "internal bug" not in body.get("error", {}).get("desc", ""), body


def talk(text: bytes, size: int, *, cross: bool) -> list[bytes]:
    context = FakeContext()
    context.gifts.clear()
    context.named_fds.kept.clear()
    context.fd_sets.kept.clear()
    session = QmpSession(context)
    replies: list[bytes] = []
    for at in range(0, len(text), size):
        session.feed(text[at : at + size])
        while (reply := session.answer()) is not None:
            replies.append(reply)
        if cross:
            session = QmpSession(context, state=session.save())
    return replies


def seeds() -> list[bytes]:
    """Every command, with and without its arguments."""
    ready = b'\xff{"execute":"qmp_capabilities"}'
    values = {"str": '"x"', "int": "1", "bool": "true"}
    found = [
        ready + b'{"execute":"nosuch","id":[1,{}]}',
        ready + b'{"a":"\\ud83d\\u00e9"}]',
        b"\3",
    ]
    for name, made in QMP_COMMANDS.items():
        members = [
            f'"{m.name}":{values.get(getattr(m.kind, "__name__", ""), "1")}' for m in made.members
        ]
        found.append(ready + f'{{"execute":"{name}"}}'.encode())
        found.append(
            ready + f'{{"execute":"{name}","arguments":{{{",".join(members)}}}}}'.encode()
        )
    return found
