"""Measure Instar against Debian's QEMU: same kernel, same initrd, same options, sides alternating, one run.

Absolute figures of a shared machine mean little; ratios of neighbouring runs mean something, and the median of several
more. Nothing is asserted. Usage: ``make bench``, or with tools and tests on PYTHONPATH
``bench.py [--rounds N] [--json PATH]``
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bench_guests import PER_TURN, SETTLE_S, loop_image
from bench_net import initrd_with_program, network
from bench_run import Run, RunFailedError
from debian_packages import ROOT, unpacked_with_needs
from rich.console import Console
from rich.table import Table

from instar._version import VERSION
from instar.errors import InstarError
from instar.image.store import Store, default_root

if TYPE_CHECKING:
    from collections.abc import Callable

QEMU = "qemu-system-riscv64"
QEMU_PACKAGES = ["qemu-system-misc", "opensbi"]
TURNS = 30_000_000
IDLE_S = 4.0
BOARD = ["-machine", "virt", "-display", "none", "-monitor", "none", "-serial", "stdio"]


class Side(NamedTuple):
    """A monitor to measure: how it is called, its first words, its environment."""

    name: str
    command: list[str]
    environment: dict[str, str]


class Figure(NamedTuple):
    """What is measured.

    Attributes:
        title: As in the table.
        unit: Of a value.
        goal: What the project promises of the ratio Instar to QEMU, or of Instar's own value.
        met: Whether a ratio and a value of Instar's keep it.
    """

    title: str
    unit: str
    goal: str
    met: Callable[[float, float], bool]


FIGURES = {
    "init": Figure("time to /init", "s", "at most 1.8 times", lambda ratio, _: ratio <= 1.8),
    "work": Figure("shell workload", "s", "at most 1.2 times", lambda ratio, _: ratio <= 1.2),
    "mips": Figure("compute loop", "MIPS", "at least 300", lambda _, own: own >= 300),
    "memory": Figure("resident memory", "MiB", "at most 1.0 times", lambda ratio, _: ratio <= 1.0),
    "idle": Figure("idle guest", "% of a core", "under 3", lambda _, own: own < 3),
    "read4k": Figure("disk, 4 KiB reads", "1/s", "at least 0.8 times", lambda ratio, _: ratio >= 0.8),
    "write4k": Figure("disk, 4 KiB writes", "1/s", "at least 0.8 times", lambda ratio, _: ratio >= 0.8),
    "read1m": Figure("disk, 1 MiB reads", "MiB/s", "at least 0.8 times", lambda ratio, _: ratio >= 0.8),
    "write1m": Figure("disk, 1 MiB writes", "MiB/s", "at least 0.8 times", lambda ratio, _: ratio >= 0.8),
    "netin": Figure("TCP, host to guest", "MiB/s", "at least 0.8 times", lambda ratio, _: ratio >= 0.8),
    "netout": Figure("TCP, guest to host", "MiB/s", "at least 0.8 times", lambda ratio, _: ratio >= 0.8),
    "netturn": Figure("TCP, 1 byte to and fro", "1/s", "at least 0.8 times", lambda ratio, _: ratio >= 0.8),
}  # fmt: skip
# In the guest, past its cache, one request at a time: figure to dd's words and how many blocks.
DISK_JOBS = {
    "read4k": ("if=/dev/vda of=/dev/null iflag=direct bs=4k", 4000),
    "write4k": ("if=/dev/zero of=/dev/vda oflag=direct bs=4k", 4000),
    "read1m": ("if=/dev/vda of=/dev/null iflag=direct bs=1M", 256),
    "write1m": ("if=/dev/zero of=/dev/vda oflag=direct bs=1M", 256),
}


def main() -> int:
    """Run the benchmark; returns the exit status (0 measured, 3 it could not be)."""
    parser = argparse.ArgumentParser(description="Ratios against Debian's QEMU.")
    parser.add_argument("--rounds", type=int, default=3, help="how often each side runs (3)")
    parser.add_argument(
        "--json", default=os.path.join(ROOT, "build", "bench.json"), help="where the series go"
    )
    options = parser.parse_args()
    try:
        sides = [instar(), qemu()]
        series = measure(sides, max(1, options.rounds))
    except (InstarError, RunFailedError) as exc:
        print("\n".join([f"bench: {exc}", *getattr(exc, "__notes__", [])]), file=sys.stderr)
        return 3
    show(series)
    save(series, options.json)
    return 0


def instar() -> Side:
    """Return our side."""
    return Side("instar", [os.path.join(ROOT, ".venv", "bin", "instar-system")], dict(os.environ))


def qemu() -> Side:
    """Return QEMU's side: the machine's own, else Debian's, fetched into ``.cache``."""
    found = shutil.which(QEMU)
    if found:
        return Side("qemu", [found], dict(os.environ))
    root = unpacked_with_needs("qemu", QEMU_PACKAGES)
    libraries = f"{root}/usr/lib/{platform.machine()}-linux-gnu"
    search = ":".join([libraries, libraries.replace("/usr/", "/"), f"{libraries}/pulseaudio"])
    firmware = f"{root}/usr/lib/riscv64-linux-gnu/opensbi/generic/fw_dynamic.bin"
    command = [f"{root}/usr/bin/{QEMU}", "-L", f"{root}/usr/share/qemu", "-bios", firmware]
    return Side("qemu", command, {**os.environ, "LD_LIBRARY_PATH": search})


def measure(sides: list[Side], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Return figure to side to its series; the side that goes first changes every round."""
    series: dict[str, dict[str, list[float]]] = {
        name: {side.name: [] for side in sides} for name in FIGURES
    }
    guest = debian_guest()
    with tempfile.TemporaryDirectory() as folder:
        initrd = guest.index("-initrd") + 1
        wired = list(guest)
        wired[initrd] = initrd_with_program(guest[initrd], Path(folder, "initrd"))
        loops = [os.path.join(folder, f"loop-{turns}") for turns in (1, TURNS)]
        for path, turns in zip(loops, (1, TURNS), strict=True):
            with open(path, "wb") as stream:
                stream.write(loop_image(turns))
        for number in range(rounds):
            for side in sides if number % 2 == 0 else reversed(sides):
                values = {
                    **boot(side, guest),
                    "mips": compute(side, loops),
                    "idle": idle(side, guest),
                    **disk(side, guest, os.path.join(folder, "disk")),
                    **network([*side.command, *BOARD, *wired], side.environment),
                }
                for name, value in values.items():
                    series[name][side.name].append(value)
                shown = ", ".join(
                    f"{FIGURES[name].title} {values[name]:.2f} {FIGURES[name].unit}"
                    for name in FIGURES
                )
                print(f"round {number + 1} {side.name}: {shown}", flush=True)
    return series


def debian_guest() -> list[str]:
    """Return the options that give both sides the same guest."""
    store = Store(default_root())
    manifest = store.find("debian")
    if manifest is None:
        raise RunFailedError(
            "the image 'debian' is not here; 'instar image pull debian' fetches it"
        )
    kernel, initrd = store.blob_path(manifest.kernel), store.blob_path(manifest.initrd)
    return ["-m", "512M", "-kernel", kernel, "-initrd", initrd]


def boot(side: Side, guest: list[str]) -> dict[str, float]:
    """Boot, do the shell work, power off."""
    append = ["-append", "console=ttyS0 instar.work instar.poweroff"]
    with Run([*side.command, *BOARD, *guest, *append], side.environment) as run:
        init = run.until("INIT REACHED")
        begin = run.until("WORK1")
        end = run.until("WORKDONE")
        return {"init": init.at_s, "work": end.at_s - begin.at_s, "memory": end.peak_kib / 1024}


def compute(side: Side, loops: list[str]) -> float:
    """Return million instructions a second; the time of one turn takes start and end out of it."""
    times: list[float] = []
    for path in loops:
        with Run([*side.command, *BOARD, "-m", "64M", "-kernel", path], side.environment) as run:
            times.append(run.finished())
    return (TURNS - 1) * PER_TURN / (times[1] - times[0]) / 1e6


def disk(side: Side, guest: list[str], path: str) -> dict[str, float]:
    """Return blocks a second of each of ``DISK_JOBS``, on a disk that the host has in its cache."""
    with open(path, "wb") as stream:
        stream.write(bytes(256 << 20))
    script = "; ".join(
        f"dd {words} count={count} 2>/dev/null; echo DONE-{name}"
        for name, (words, count) in DISK_JOBS.items()
    )
    options = [
        "-drive", f"file={path},if=none,id=d0,format=raw", "-device", "virtio-blk-device,drive=d0",
        "-append", f'console=ttyS0 quiet instar.run="sleep {SETTLE_S:.0f}; echo DISK-BEGIN; {script}" instar.poweroff',
    ]  # fmt: skip
    rates: dict[str, float] = {}
    with Run([*side.command, *BOARD, *guest, *options], side.environment) as run:
        begin = run.until("DISK-BEGIN")
        for name, (_, count) in DISK_JOBS.items():
            end = run.until(f"DONE-{name}")
            rates[name] = count / (end.at_s - begin.at_s)
            begin = end
    return rates


def idle(side: Side, guest: list[str]) -> float:
    """Return the processor time that a guest takes that waits for its user."""
    with Run(
        [*side.command, *BOARD, *guest, "-append", "console=ttyS0 quiet"], side.environment
    ) as run:
        run.until("INIT READY")
        time.sleep(SETTLE_S)
        begin = run.mark()
        time.sleep(IDLE_S)
        end = run.mark()
        return 100 * (end.cpu_s - begin.cpu_s) / (end.at_s - begin.at_s)


def summary(series: dict[str, dict[str, list[float]]]) -> dict[str, tuple[float, float, float]]:
    """Return figure to medians of Instar and QEMU, and the median of the rounds' ratios."""
    found: dict[str, tuple[float, float, float]] = {}
    for name, sides in series.items():
        ratios = [
            own / max(other, 1e-9)
            for own, other in zip(sides["instar"], sides["qemu"], strict=True)
        ]
        medians = [statistics.median(sides[side]) for side in ("instar", "qemu")]
        found[name] = (medians[0], medians[1], statistics.median(ratios))
    return found


def show(series: dict[str, dict[str, list[float]]]) -> None:
    """Print the table."""
    table = Table(title=f"Instar {VERSION} and QEMU, medians")
    for column in ("", "Instar", "QEMU", "ratio", "promised", "kept"):
        table.add_column(column, justify="left" if column in ("", "promised") else "right")
    for name, (own, other, ratio) in summary(series).items():
        figure = FIGURES[name]
        kept = "yes" if figure.met(ratio, own) else "no"
        cells = (
            f"{own:.2f} {figure.unit}",
            f"{other:.2f} {figure.unit}",
            f"{ratio:.2f}",
            figure.goal,
            kept,
        )
        table.add_row(figure.title, *cells)
    Console(width=None if sys.stdout.isatty() else 110).print(table)  # a pipe has no width


def save(series: dict[str, dict[str, list[float]]], path: str) -> None:
    """Write the series and what they were measured on."""
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    document = {
        "version": VERSION,
        "machine": platform.platform(),
        "cores": os.cpu_count(),
        "units": {name: figure.unit for name, figure in FIGURES.items()},
        "series": series,
        "median_ratio": {name: ratio for name, (_, _, ratio) in summary(series).items()},
    }
    with open(path, "w", encoding="utf-8") as stream:
        json.dump(document, stream, indent=1)
    print(f"series: {os.path.relpath(path)}")


if __name__ == "__main__":
    sys.exit(main())
