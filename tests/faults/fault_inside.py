"""Inside a program that is to fail: strikes at one place, in one way, when the matrix says so.

A launcher (see :mod:`fault_program`) calls :func:`set_up` before it becomes the real program; nothing in the product
knows of this. Which fault is due stands in the file :data:`CONTROL` beside the launcher, ``PLACE KIND``; it is removed
when it strikes. A place is ``ROLE/step``:

* ``old``: the program that is replaced. Its steps are the rows of the update's table, before (``+row``) and after
  (``row+``) what they do.
* ``child-NAME``: a rehearsal of the program of that name; it may remove no file, so it strikes until the matrix does.
* ``new``: the program that takes over, until its commit; ``settled``: from there on.

It is imported on the way of an update, so it imports little itself.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from _signal import SIG_BLOCK, pthread_sigmask, raise_signal, valid_signals

from fault_places import CHILD_STEPS, NEW_STEPS, SETTLE_STEPS

CONTROL = "fault"
ERRORS = {"ENOSPC": 28, "EMFILE": 24, "ENOMEM": 12, "EPERM": 1}
SIGNALS = {"kill": 9, "segv": 11, "stop": 19}
_LONG = 600  # seconds; whoever waits for it has given up before
_folder = ""
_role = ""


def set_up(launcher: str, name: str) -> None:
    """Make this process the program ``name`` of that launcher, fit to fail."""
    global _folder, _role  # noqa: PLW0603 - one program, one role
    _folder = os.path.dirname(launcher)
    _role = (
        f"child-{name}" if "INSTAR_CPR_REHEARSAL" in os.environ
        else "back" if "INSTAR_CPR_FAILED" in os.environ
        else "new" if "INSTAR_CPR_STATE" in os.environ
        else "old"
    )  # fmt: skip
    fault(f"{_role}/exec")
    own = importlib.import_module("instar.cpr.own")
    release = own.release
    own.release = lambda: release() + name  # two builds of one version: the way back is rehearsed
    steps = CHILD_STEPS if _role == f"child-{name}" else NEW_STEPS if _role == "new" else {}
    for step, target in steps.items():
        _patch(target, f"{_role}/{step}")
    for step, target in SETTLE_STEPS.items() if _role == "new" else ():
        _patch(target, f"settled/{step}")
    _patch_rows()


def fault(*places: str, subject: object = None) -> None:
    """Strike if one of these places is where the fault is due."""
    control = os.path.join(_folder, CONTROL)
    try:
        with open(control, encoding="ascii") as file:
            place, kind = file.read().split()
    except OSError:
        return
    if place not in places:
        return
    if not place.startswith("child"):
        os.unlink(control)
    strike(kind, subject)


def strike(kind: str, subject: object) -> None:
    """Fail in this way."""
    if kind in ERRORS:
        raise OSError(ERRORS[kind], os.strerror(ERRORS[kind]))
    if kind in SIGNALS:
        raise_signal(SIGNALS[kind])
    else:
        _KINDS[kind](subject)


def _raise(_subject: object) -> None:
    raise RuntimeError("boom")


def _exhaust(_subject: object) -> None:
    raise MemoryError


def _exit(_subject: object) -> None:
    raise SystemExit("boom")


def _end(_subject: object) -> None:
    os._exit(0)


def _hang(_subject: object) -> None:
    time.sleep(_LONG)


def _be_deaf(_subject: object) -> None:
    pthread_sigmask(SIG_BLOCK, valid_signals())
    time.sleep(_LONG)


def _have_no_files(_subject: object) -> None:
    _limit("RLIMIT_NOFILE", 3)


def _have_no_memory(_subject: object) -> None:
    _limit("RLIMIT_AS", 1 << 20)


def _limit(name: str, value: int) -> None:
    """Have none left of something; the matrix sees to it that this is over after a while."""
    resource = importlib.import_module("resource")
    number = getattr(resource, name)
    resource.setrlimit(number, (value, resource.getrlimit(number)[1]))


def _forbid(_subject: object) -> None:
    for name in os.listdir(_folder):
        if name != CONTROL:
            os.chmod(os.path.join(_folder, name), 0o600)


def _tear(subject: object) -> None:
    path = subject._address.path
    os.truncate(path, os.stat(path).st_size * 2 // 3)


def _flip(subject: object) -> None:
    path = subject._address.path
    with open(path, "r+b") as file:
        middle = os.stat(path).st_size // 2
        byte = os.pread(file.fileno(), 1, middle)[0]
        os.pwrite(file.fileno(), bytes([byte ^ 1]), middle)


def _be_old(_subject: object) -> None:
    """Be a version that knows no state as new as this one."""
    importlib.import_module("instar.machine.machine").MachineState.state_version = 0


def _kill_guardian(_subject: object) -> None:
    _signal_guardian(SIGNALS["kill"])


def _stop_guardian(_subject: object) -> None:
    _signal_guardian(SIGNALS["stop"])


def _signal_guardian(number: int) -> None:
    with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
        children = file.read().split()
    for pid in children:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            if b"guardian.py" in file.read():
                os.kill(int(pid), number)


_KINDS = {
    "raise": _raise,
    "memory": _exhaust,
    "exit": _exit,
    "end": _end,
    "hang": _hang,
    "deaf": _be_deaf,
    "nofile": _have_no_files,
    "nomem": _have_no_memory,
    "forbid": _forbid,
    "torn": _tear,
    "flipped": _flip,
    "version": _be_old,
    "guardian-kill": _kill_guardian,
    "guardian-stop": _stop_guardian,
}


def _patch(target: str, place: str) -> None:
    """Have the function ``module:path`` fail before it begins, under every name that our modules gave it."""
    if not target:
        return
    module, _, path = target.partition(":")
    holder: object = importlib.import_module(module)
    *outer, name = path.split(".")
    for part in outer:
        holder = getattr(holder, part)
    real = getattr(holder, name)

    def patched(*words: object, **named: object) -> object:
        fault(place)
        return real(*words, **named)

    setattr(holder, name, patched)
    for other in [m for key, m in sys.modules.items() if key.startswith("instar.")]:
        if getattr(other, name, None) is real:
            setattr(other, name, patched)


def _patch_rows() -> None:
    """Have each row of the old program's table fail before or after its action."""
    run = importlib.import_module("instar.cpr.lifecycle").Run
    real = run._call

    def call(self: object, row: object) -> object:
        actor = self._calls[row.action].__self__
        fault(f"old/+{row.event}", subject=actor)
        outcome = real(self, row)
        if outcome != "again":
            fault(f"old/{row.event}+", subject=actor)
        return outcome

    run._call = call
