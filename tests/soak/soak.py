"""Updates in a row between two releases, with all nets on and the guest under load: ``soak.py [--guest G] [COUNT]``.

The VM runs with ``-sandbox on``. Each update is rehearsed (so is its way back, as the other program is another release)
and has a guardian. The guests count on their consoles; Debian also verifies its disk, and answers requests that each
update cuts in two (:mod:`loaded_guests`). Any error, anything that is lost or wrong, and anything that grows ends the
run with status 1. ``make soak``.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tools")]

from demo_lib.releases import Release, installed, next_release  # noqa: E402 - found by the line above

from harness import GoneError, QmpError  # noqa: E402
from loaded_guests import GuestFaultError, Linux, LoadedGuest, Ticker  # noqa: E402

WARM_UP = 10  # updates until everything has its size
EVERY = 10  # updates between two looks
PATIENCE = 10.0  # seconds that an update may take to tidy up after itself
PERCENTILES = {"min": 0.0, "median": 0.5, "p99": 0.99, "max": 1.0}


class SoakError(Exception):
    """What failed or grew; one sentence."""


class Soak:
    """One guest and its updates.

    Attributes:
        pauses: How long the guest stood still for each, microseconds.
        sizes: What must not grow, after each look.
    """

    def __init__(self, guest: LoadedGuest, releases: list[Release]) -> None:
        self._guest = guest
        self._vm = guest.vm
        self._releases = releases
        self._began = time.monotonic()
        self.pauses: list[int] = []
        self.sizes: list[dict[str, int]] = []
        events = {"capability": "events", "state": True}
        self._vm.qmp.command("migrate-set-capabilities", capabilities=[events])

    def step(self) -> None:
        """Update once to the other release."""
        self._guest.around(self._update)
        self._vm.console.pull(0)

    def _update(self) -> None:
        number = len(self.pauses) + 1
        qmp, release = self._vm.qmp, self._releases[number % 2]
        qmp.events.clear()
        qmp.command("x-update", program=str(release.program))
        while (event := qmp.next_event())["event"] not in ("UPDATE_COMPLETED", "UPDATE_FAILED"):
            continue
        report = qmp.command("query-migrate")["x-update"]
        found = (event["event"], report["new-version"], report["new-pid"])
        if found != ("UPDATE_COMPLETED", release.version, self._vm.pid):
            raise SoakError(f"update {number}: {report}")
        if wrong := [*report.get("notes", ()), *report.get("unclaimed", ())]:
            raise SoakError(f"update {number}: {wrong}")
        self.pauses.append(report["pause-us"])

    def look(self) -> None:
        """Let the guest tell how it is, and see that nothing has grown since the warm-up."""
        self._guest.check()
        deadline = time.monotonic() + PATIENCE
        now = self._measure()
        while (grown := self._grown(now)) and time.monotonic() < deadline:
            time.sleep(0.05)
            now = self._measure()
        if grown:
            raise SoakError(f"after {len(self.pauses)} updates there are more {', '.join(grown)}")
        self.sizes.append(now)

    def _grown(self, now: dict[str, int]) -> list[str]:
        if not self.sizes:
            return []
        before = self.sizes[0]
        spare = {"private-bytes": self._guest.spare_bytes, "threads": self._guest.spare_threads}
        return [
            f"{name} ({before[name]}, {value})"
            for name, value in now.items()
            if value > before[name] + spare.get(name, 0)
        ]

    def _measure(self) -> dict[str, int]:
        vm, found = self._vm, self._vm.footprint()
        proc = Path(f"/proc/{vm.pid}")
        maps = (proc / "smaps_rollup").read_text()
        sandbox = vm.qmp.command("query-sandbox")
        return {
            "descriptors": len(found["fds"]),
            "threads": found["threads"],
            "children": len(found["children"]),
            "environment": len(found["environ"]),
            "arguments": (proc / "cmdline").read_bytes().count(b"\0"),
            "files": len(list(vm.folder.iterdir())),
            "seccomp-filters": sandbox["seccomp-filters"],
            "sandbox-paths": sum(len(sandbox[name]) for name in ("exec-allow", "read", "write")),
            "private-bytes": 1024 * sum(
                int(re.search(rf"^{name}:\s+(\d+)", maps, re.M)[1]) for name in ("Anonymous", "Swap")
            ),
        }  # fmt: skip

    def figures(self) -> dict[str, object]:
        """What to tell in the end."""
        ordered = sorted(self.pauses)
        last = len(ordered) - 1
        return {
            "guest": type(self._guest).__name__.lower(),
            "updates": len(ordered),
            "errors": 0,
            "seconds": round(time.monotonic() - self._began),
            "pause-us": {name: ordered[round(part * last)] for name, part in PERCENTILES.items()},
            "start": self.sizes[0],
            "end": self.sizes[-1],
        }


def soak(guest: LoadedGuest, releases: list[Release], count: int) -> dict[str, object]:
    """Update so many times, or until somebody interrupts; returns the figures.

    Raises:
        SoakError, GuestFaultError, GoneError, QmpError: Something was not as it has to be.
    """
    run = Soak(guest, releases)
    try:
        for number in range(1, count + 1):
            run.step()
            if number >= WARM_UP and (number % EVERY == 0 or number == count):
                run.look()
            if sys.stderr.isatty():
                mean = sum(run.pauses) / number / 1000
                sys.stderr.write(f"\r{number}/{count} updates, mean pause {mean:.1f} ms ")
    except KeyboardInterrupt:
        if not run.sizes:
            raise
    if sys.stderr.isatty():
        sys.stderr.write("\n")
    return run.figures()


def show(figures: dict[str, object]) -> None:
    """Print them for people."""
    print(
        f"{figures['guest']}: {figures['updates']} updates in {figures['seconds']} s, "
        f"{figures['errors']} errors, nothing grew"
    )
    pauses = ", ".join(f"{name} {us / 1000:.1f}" for name, us in figures["pause-us"].items())
    print(f"  pause, ms: {pauses}")
    for name, before in figures["start"].items():
        print(f"  {name}: {before} after {WARM_UP} updates, {figures['end'][name]} in the end")


def start(kind: str, folder: Path, options: list[str]) -> LoadedGuest:
    """Boot the guest."""
    return Linux(folder, *options) if kind == "debian" else Ticker(folder, *options, busy=True)


def main() -> int:
    """Run the soak."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, nargs="?", default=1000)
    parser.add_argument("--guest", default="both", choices=("ticker", "debian", "both"))
    parser.add_argument("--json", action="store_true", help="print one JSON object a guest")
    given = parser.parse_args()
    if given.count < WARM_UP:
        parser.error(f"COUNT is {given.count}, at least {WARM_UP}")
    for kind in ("ticker", "debian") if given.guest == "both" else (given.guest,):
        with tempfile.TemporaryDirectory(prefix="instar-soak-") as name:
            other = Path(name) / "next"
            other.mkdir()
            releases = [installed(), next_release(other)]
            allowed = ",".join(str(release.program) for release in releases)
            guest = start(kind, Path(name), ["-sandbox", "on", "-exec-allow", allowed])
            try:
                figures = soak(guest, releases, given.count)
            except (SoakError, GuestFaultError, GoneError, QmpError, OSError) as e:
                print(f"soak, {kind}: {e}\n{guest.vm.said()[-3000:]}", file=sys.stderr)
                return 1
            finally:
                guest.close()
        if given.json:
            print(json.dumps(figures), flush=True)
        else:
            show(figures)
    return 0


if __name__ == "__main__":
    sys.exit(main())
