"""What of a monitor session must cross an update (on the resume path: nothing else of monitor/ is)."""

from __future__ import annotations

from instar.cpr.state import State, blob, flag, state, text, u

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

MAX_INPUT: Final = 2 << 20  # bytes; a QMP request that is not complete, and those behind it
MAX_LINE: Final = 4096  # characters of an HMP line
MAX_TYPED: Final = 256  # bytes taken from the client while a command runs
MAX_HISTORY: Final = 64  # lines


@state("monitor", version=1)
class MonitorState(State):
    """A session as its client knows it. Queued output belongs to the character device."""

    kind: str = text('"qmp" or "hmp".', max=8)
    greeted: bool = flag("The client has got the greeting or banner.")
    negotiated: bool = flag("QMP: the client has sent qmp_capabilities.")
    input: bytes = blob("QMP: requests that were received but not answered.", max=MAX_INPUT)
    skipping: bool = flag("QMP: input is thrown away up to the next line, after an error in it.")
    until_value: bool = flag(
        "QMP: while input is thrown away, the beginning of a value ends that, too.", optional=True
    )
    line: str = text("HMP: the line being edited.", max=4 * MAX_LINE)
    cursor: int = u(32, "HMP: position in the line.", unit="characters")
    typed: bytes = blob("HMP: keys that were received but not handled.", max=MAX_TYPED)
    keys: bytes = blob("HMP: beginning of a key's byte sequence.", max=16)
    history: str = text("HMP: earlier lines, joined by newlines.", max=4 * MAX_LINE * MAX_HISTORY)
    waits_for: str = text('HMP: what the prompt waits for ("migrate", or nothing).', max=32)
