"""Instar beside QEMU, both with KVM: boot of Debian's stock kernel to /init, and what an update by cpr-exec costs.

Both run the same kernel and initramfs on their board ``microvm``, take turns, and are told the same. Where it runs in
the lab only the ratios mean something. Nothing is asserted. ``make bench-kvm PEER=DIR``; DIR is what
``tools/peer_qemu.sh DIR x86`` made; as root, since QEMU runs by chroot there.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "tests")]

from bench_run import PATIENCE, Run, RunFailedError  # noqa: E402 - found by the line above
from update_qmp import Qmp, QmpEndedError  # noqa: E402
from update_stats import longest_between  # noqa: E402
from update_watch import Console  # noqa: E402

from instar._version import VERSION  # noqa: E402
from instar.image.store import Store, default_root  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

MEMORY = 256  # MiB
SLACK_NS = 100_000_000  # what was going on after an update is looked at for so long
SETTLE_S = 3.0
POLL_S = 0.005
QUIET = "console=ttyS0 quiet panic=-1"
# A line now and then; the program of the guest's shell that waits in between is started anew each time.
TALK = f'{QUIET} instar.run="echo COUNTING 1; while :; do echo t; usleep 20000; done"'
BOARDS = {
    "instar": "microvm",
    "qemu": "microvm,x-option-roms=off,isa-serial=on,rtc=on",
}


class Side(NamedTuple):
    """A monitor to measure.

    Attributes:
        name: "instar" or "qemu".
        root: What the program sees as ``/``; "" is our own.
        program: Its command line's first words.
        extra: What it needs to be told and the other does not.
    """

    name: str
    root: str
    program: list[str]
    extra: list[str]


class Guest(NamedTuple):
    """What boots.

    Attributes:
        side: The monitor.
        folder: With files kernel and initrd.
        vcpus: How many.
        updates: Whether it is one that can be updated.
    """

    side: Side
    folder: str
    vcpus: int
    updates: bool

    def command(self, append: str, *more: str) -> list[str]:
        """Return the command line as it is executed in its root."""
        side = self.side
        seen = self.folder.removeprefix(side.root)
        board, size = BOARDS[side.name], f"{MEMORY}M"
        lasting = [
            *("-machine", f"{board},memory-backend=ram0,aux-ram-share=on"),
            *("-object", f"memory-backend-memfd,id=ram0,size={size},share=on"),
            *("-qmp", f"unix:{seen}/qmp,server=on,wait=off"),
        ]
        return [
            *(*side.program, "-accel", "kvm", "-smp", str(self.vcpus), "-m", size),
            *("-nodefaults", "-display", "none", "-serial", "stdio", *side.extra),
            *(lasting if self.updates else ["-machine", board]),
            *("-kernel", f"{seen}/kernel", "-initrd", f"{seen}/initrd", "-append", append, *more),
        ]


def main() -> int:
    """Run the benchmark; returns the exit status (0 measured, 3 it could not be)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", required=True, help="a Debian root with QEMU")
    parser.add_argument("--boots", type=int, default=5, help="of each side and size (5)")
    parser.add_argument("--updates", type=int, default=5, help="of each side and size (5)")
    parser.add_argument("--vcpus", type=int, nargs="+", default=[1, 2], help="sizes (1 2)")
    options = parser.parse_args()
    own = Side("instar", "", [str(ROOT / ".venv" / "bin" / "instar-system")], [])
    peer = os.path.abspath(options.peer)
    qemu = ["chroot", peer, "qemu-system-x86_64"]
    flags = ["-no-user-config", "-bios", "qboot.rom", "-cpu", "host"]
    try:
        with contextlib.ExitStack() as stack:
            stack.enter_context(devices_in(peer))
            sides = [own, Side("qemu", peer, qemu, flags)]
            places = [stack.enter_context(folder_of(side)) for side in sides]
            print(f"instar {VERSION}; {version_of(qemu)}; Linux {os.uname().release}", flush=True)
            series = measure(list(zip(sides, places, strict=True)), options)
    except RunFailedError as exc:
        print(f"bench-kvm: {exc}", file=sys.stderr)
        return 3
    show(series)
    return 0


@contextlib.contextmanager
def devices_in(peer: str) -> Iterator[None]:
    """Have QEMU see /dev/kvm."""
    if os.path.exists(f"{peer}/dev/kvm"):
        yield
        return
    subprocess.run(["mount", "--bind", "/dev", f"{peer}/dev"], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", f"{peer}/dev"], check=True)


@contextlib.contextmanager
def folder_of(side: Side) -> Iterator[str]:
    """Make a folder with kernel and initramfs where the side sees it."""
    folder = tempfile.mkdtemp(prefix="bench-", dir=f"{side.root}/tmp")
    try:
        for name in ("kernel", "initrd"):
            shutil.copy(image(name), f"{folder}/{name}")
        yield folder
    finally:
        shutil.rmtree(folder)


def image(kind: str) -> str:
    """Return the path of Debian's kernel or initramfs."""
    store = Store(default_root())
    manifest = store.find("debian-amd64")
    if manifest is None:
        raise RunFailedError("'instar image pull debian-amd64' fetches the guest")
    return store.blob_path(getattr(manifest, kind))


def version_of(qemu: list[str]) -> str:
    """Return QEMU's first words about itself."""
    return subprocess.check_output([*qemu, "--version"], text=True).splitlines()[0]


def measure(
    sides: list[tuple[Side, str]], options: argparse.Namespace
) -> dict[str, dict[str, list[float]]]:
    """Return figure to side to its series, seconds; the side that goes first changes every round."""
    series: dict[str, dict[str, list[float]]] = {}

    def note(figure: str, side: Side, value: float) -> None:
        series.setdefault(figure, {}).setdefault(side.name, []).append(value)
        print(json.dumps({"figure": figure, "side": side.name, "s": round(value, 3)}), flush=True)

    for vcpus in options.vcpus:
        for number in range(options.boots):
            for side, folder in sides[:: 1 - 2 * (number % 2)]:
                note(f"boot to /init, {vcpus} vCPU", side, boot(Guest(side, folder, vcpus, False)))
        for number in range(options.updates):
            for side, folder in sides[:: 1 - 2 * (number % 2)]:
                for figure, value in update(Guest(side, folder, vcpus, True)).items():
                    note(f"{figure}, {vcpus} vCPU", side, value)
    return series


def boot(guest: Guest) -> float:
    """Return seconds from the start of the program until the guest's /init says so."""
    with Run(guest.command(QUIET), dict(os.environ)) as run:
        return run.until("INIT REACHED").at_s


def update(guest: Guest) -> dict[str, float]:
    """Boot a guest that talks, update its monitor, and return what that cost, in seconds."""
    output, given = os.pipe()
    console = Console(output)
    incoming = ["-incoming", f"file:{guest.folder.removeprefix(guest.side.root)}/state"]
    process = subprocess.Popen(
        guest.command(TALK), stdin=subprocess.DEVNULL, stdout=given, stderr=given
    )
    os.close(given)
    try:
        qmp = Qmp(f"{guest.folder}/qmp")
        console.page_number(process, PATIENCE)
        time.sleep(SETTLE_S)
        # The program itself goes on in this process, already in its root.
        words = guest.command(TALK, *incoming)[len(guest.side.program) - 1 :]
        qmp.command("migrate-set-parameters", mode="cpr-exec", cpr_exec_command=words)
        if guest.side.name == "instar":  # it comes before the pause, and QEMU has none
            qmp.command("migrate-set-parameters", x_update_rehearsal=False)
        return once(guest, qmp, console, incoming[1])
    finally:
        process.kill()
        process.wait()


def once(guest: Guest, qmp: Qmp, console: Console, uri: str) -> dict[str, float]:
    """Update and return what that cost."""
    qmp.events.clear()
    qmp.command("migrate", uri=uri)
    try:
        qmp.until("RESUME")
    except QmpEndedError:  # QEMU's, which executes itself
        events = qmp.events
        qmp = Qmp(f"{guest.folder}/qmp")
        qmp.events[:0] = events
    deadline = time.monotonic() + PATIENCE
    while qmp.command("query-status")["status"] != "running":
        if time.monotonic() > deadline:
            raise RunFailedError(f"{guest.side.name}: the guest does not run after its update")
        time.sleep(POLL_S)
    time.sleep(SETTLE_S)
    stopped = next(at for name, at in qmp.events if name == "STOP")
    resumed = next((at for name, at in reversed(qmp.events) if name == "RESUME"), 0)
    after = next((at for at in console.moments if at > (resumed or stopped) + SLACK_NS), 0)
    gap = longest_between(console.moments, stopped, after)
    if gap is None or not after:
        raise RunFailedError(f"{guest.side.name}: the guest says nothing after its update")
    found = {"pause, gap on the console": gap / 1e9}
    if resumed:
        found["pause, STOP to RESUME"] = (resumed - stopped) / 1e9
    told = qmp.command("query-migrate").get("x-update", {})
    if "pause-us" in told:
        found["pause as query-migrate tells it"] = told["pause-us"] / 1e6
        for phase in told["phases"]:
            found[f"phase {phase['name']}"] = phase["us"] / 1e6
    qmp.close()
    return found


def show(series: dict[str, dict[str, list[float]]]) -> None:
    """Print medians and their ratios as a table."""
    print("\n| | Instar, s | QEMU, s | Instar / QEMU | of each |\n|---|---|---|---|---|")
    for figure, by_side in series.items():
        own, other = (by_side.get(name, []) for name in ("instar", "qemu"))
        cells = [f"{statistics.median(values):.2f}" if values else "-" for values in (own, other)]
        both = own and other
        ratio = f"{statistics.median(own) / statistics.median(other):.2f}" if both else "-"
        print(f"| {figure} | {' | '.join(cells)} | {ratio} | {len(own)}, {len(other)} |")


if __name__ == "__main__":
    sys.exit(main())
