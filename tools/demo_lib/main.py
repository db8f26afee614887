"""``tools/demo``: boot Debian in Instar, replace Instar twice under it, show what that cost.

Exit statuses: 0 all went as promised; 1 something did not; 2 wrong usage; 3 the host refused something; 128 and a
signal's number when one ended it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from demo_lib import image
from demo_lib.errors import HOST, USER, DemoError, Interrupted
from demo_lib.hands_on import hand_over
from demo_lib.releases import ROOT, installed, next_release
from demo_lib.run import Demo
from demo_lib.screen import JsonScreen, PlainScreen

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import FrameType

    from demo_lib.screen import Screen

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    """Run the demo; returns the exit status."""
    options = _parser().parse_args()
    for number in ENDING:
        signal.signal(number, _interrupt)
    screen = _screen(as_json=options.json)
    try:
        return _run(screen, interactive=options.interactive)
    except DemoError as e:
        screen.failed(e)
        return e.status
    except BrokenPipeError:  # the reader has what it wanted; nothing is flushed at it later
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except OSError as e:
        where = e.filename or "the host"
        screen.failed(DemoError(f"{where}: {e.strerror}; nothing is left running"))
        return HOST
    except Interrupted as e:
        return e.status
    finally:
        screen.close()


def _run(screen: Screen, *, interactive: bool) -> int:
    if interactive and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise DemoError("--interactive needs a terminal; nothing was started", status=USER)
    with _folders() as (releases, run):
        old = installed()
        image.pull()
        screen.step("making a second release: this tree with another version number")
        new = next_release(releases)
        if interactive:
            return hand_over(screen, run, old, new)
        summary = Demo(screen, run, old, new).run()
    screen.summary(summary)
    if faults := summary.faults():
        raise DemoError("; ".join(faults), hint="please report this")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools/demo",
        description="Boot Debian in Instar and replace Instar twice under it. Needs no root and no KVM.",
        epilog="exit status: 0 all as promised, 1 not, 2 wrong usage, 3 the host refused something",
    )
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--json", action="store_true", help="print JSON, one object a line")
    kind.add_argument(
        "--interactive", action="store_true", help="leave terminal, guest and monitor to you"
    )
    return parser


def _screen(*, as_json: bool) -> Screen:
    if as_json:
        return JsonScreen()
    if sys.stdout.isatty():
        from demo_lib.terminal import TerminalScreen  # noqa: PLC0415 - rich is for terminals only

        return TerminalScreen()
    return PlainScreen()


@contextlib.contextmanager
def _folders() -> Generator[tuple[Path, Path]]:
    """Make two private folders and remove them, whatever happens: one for programs, one for sockets and files."""
    # Folders for temporary files may forbid to execute from them, paths in a deep tree may be too long for sockets.
    cache = ROOT / ".cache" / "demo"
    cache.mkdir(parents=True, exist_ok=True)
    made: list[str] = []
    try:
        made.append(tempfile.mkdtemp(dir=cache))
        made.append(tempfile.mkdtemp(prefix="instar-demo-"))
        yield Path(made[0]), Path(made[1])
    finally:
        for number in ENDING:
            signal.signal(number, signal.SIG_IGN)
        for folder in made:
            shutil.rmtree(folder)
        with contextlib.suppress(OSError):  # another demo is running
            os.rmdir(cache)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    raise Interrupted(number)
