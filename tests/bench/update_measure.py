"""The measurements of ``make bench-update``: what one update was, a block of them, and the floor."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from typing import TYPE_CHECKING

from bench_run import RunFailedError
from update_cost import Meter
from update_guest import wired
from update_stats import BRIDGE, at_ends, counted, longest_between, pause, stall
from update_vm import Vm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from update_stats import Case
    from update_vm import Moments, Side

AFTER_S = 5.0  # in which a guest that touches its memory is watched for stalls
SETTLE_S = 1.0
PINGED = 2  # updates of a block
SLACK_NS = 100_000_000  # what was going on before and after an update is looked at for so long
NEAR_NS = 2_000_000  # the pauses at a bridge's ends are as near to STOP and RESUME
_FLOOR = os.path.join(os.path.dirname(os.path.abspath(__file__)), "update_floor.c")


def block(
    side: Side, case: Case, guest: tuple[str, str], updates: int, tell: Callable[[str], None]
) -> Iterator[dict[str, float]]:
    """Start a guest and update it so often; then with pings, and once while it idles, for what that costs the host.

    Args:
        side: The monitor.
        case: The guest.
        guest: Debian's kernel and initramfs.
        updates: How many.
        tell: Called with what is going on.

    Yields:
        Figure to value, for each update.

    Raises:
        RunFailedError: it could not be measured.
    """
    tell("boots")
    with Vm(side, case, *guest) as vm:
        time.sleep(SETTLE_S)
        for number in range(updates):
            tell(f"update {number + 1} of {updates}")
            yield timed(vm, case, tell)
        for number in range(PINGED if wired(case) else 0):
            tell(f"update {number + 1} of {PINGED} with pings")
            yield pinged(vm)
        tell("an update while the guest idles")
        yield cost(vm)


def timed(vm: Vm, case: Case, tell: Callable[[str], None]) -> dict[str, float]:
    """Update a guest that counts and return how long what stood still, in milliseconds."""
    vm.prepare()
    time.sleep(SETTLE_S)
    moments = vm.update()
    for note in moments.info.get("x-update", {}).get("notes", []):
        tell(f"the monitor notes: {note}")
    time.sleep(AFTER_S if case.state == "touched" else SETTLE_S)
    return {**seen(vm, moments, case), **told(moments)}


def pinged(vm: Vm) -> dict[str, float]:
    """Update a guest that is pinged; apart from the others, since it answers all that have come before it goes on."""
    vm.prepare()
    vm.ping.rest(wanted=False)
    time.sleep(SETTLE_S)
    begin, end = window(vm.update())
    time.sleep(SETTLE_S)
    vm.ping.rest(wanted=True)
    gap = longest_between(vm.ping.answers, begin, end + SLACK_NS)
    return {} if gap is None else {"ping": gap / 1e6}


def window(moments: Moments) -> tuple[int, int]:
    """Return from when to when the guest stood still, as far as the monitors say."""
    return moments.stopped or moments.asked, moments.resumed or moments.running


def seen(vm: Vm, moments: Moments, case: Case) -> dict[str, float]:
    """Return what was seen from outside."""
    begin, end = window(moments)
    found = pause(vm.watcher.gaps, begin, end)
    if found is None:
        raise RunFailedError("the counter in the guest's memory was not seen to stand still")
    now = time.monotonic_ns()
    bridged = case.mode == BRIDGE  # two short pauses, one at each end
    nanoseconds = {
        "pause": at_ends(vm.watcher.gaps, begin, end, NEAR_NS) if bridged else found.length,
        "longest": found.length if bridged else None,
        "pause_sure": found.sure,
        "console": longest_between(vm.console.moments, begin, end + SLACK_NS),
        "brown": stall(vm.watcher.gaps, max(found.after, end), now),
        "before": stall(vm.watcher.gaps, moments.asked - int(SETTLE_S * 1e9), moments.asked),
    }
    values = {name: value / 1e6 for name, value in nanoseconds.items() if value is not None}
    if moments.stopped and not bridged:
        values["lead"] = (moments.stopped - found.before) / 1e6
    if moments.resumed and not bridged:
        values["trail"] = (found.after - moments.resumed) / 1e6
    turns = counted(vm.watcher.counts, found.after, now)
    return values if turns is None else {**values, "turns_after": float(turns)}


def told(moments: Moments) -> dict[str, float]:
    """Return what the monitors say."""
    values: dict[str, float] = {}
    if moments.stopped and moments.resumed:
        values["events"] = (moments.resumed - moments.stopped) / 1e6
    if "downtime" in moments.info:
        values["downtime"] = float(moments.info["downtime"])
    update = moments.info.get("x-update", {})
    if "device-pause-us" in update:
        values["away"] = update["device-pause-us"] / 1000
    if "pause-us" in update:
        values["downtime"] = update["pause-us"] / 1000
        # Nobody hears RESUME of a program whose monitor comes after it; this is from and to the same moments.
        values.setdefault("events", values.get("away", values["downtime"]))
    for phase in update.get("phases", []):
        values[f"phase_{phase['name']}"] = phase["us"] / 1000
    return values


def cost(vm: Vm) -> dict[str, float]:
    """Update a guest that idles and return what that took of the host."""
    vm.idle(wanted=True)
    time.sleep(SETTLE_S)
    meter = Meter({vm.watcher.pid})
    meter.begin()
    vm.prepare()
    vm.update()
    time.sleep(SETTLE_S)
    found = meter.end()
    return {"cpu": found.cpu_ms, "peak": found.peak_mib, "held": found.held_mib}


def build_floor(folder: str) -> str:
    """Compile the program that does nothing but execute itself; returns its path, "" if there is no compiler."""
    program = os.path.join(folder, "floor")
    compiler = shlex.split(os.environ.get("CC", "cc"))
    try:
        done = subprocess.run([*compiler, "-O2", "-o", program, _FLOOR], check=False)
    except FileNotFoundError:
        return ""
    return program if done.returncode == 0 else ""


def floor(program: str, memory: int, runs: int) -> list[float]:
    """Return milliseconds to main(): of fork and exec if ``memory`` (MiB) is 0, else of exec with so much touched."""
    done = subprocess.run(
        [program, str(runs), str(memory)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RunFailedError(f"the program that only executes itself failed: {done.stderr}")
    return [float(line) / 1000 for line in done.stdout.split()]
