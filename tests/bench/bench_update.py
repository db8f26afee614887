"""Measure what a guest notices of an update: Instar and a QEMU that has cpr-exec, alternating, with the same guest.

Nothing is asserted; ratios of one run mean something, absolute figures of a shared machine little. Usage:
``make bench-update QEMU="chroot DIR qemu-system-riscv64"``; docs/bench/update.md says what is measured, and how to get
such a QEMU.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

from bench_run import RunFailedError
from debian_packages import ROOT
from rich.console import Console
from update_chart import chart
from update_cost import adopt_orphans
from update_measure import block, build_floor, floor
from update_report import (
    FIGURES,
    GOAL_CASES,
    Series,
    between_marks,
    document,
    goals,
    markdown,
    notes,
    of_figure,
    rows,
    save,
    table,
)
from update_stats import BRIDGE, Case
from update_vm import Side

from bench import debian_guest
from instar.errors import InstarError

if TYPE_CHECKING:
    from collections.abc import Iterator

MEMORY = "256,1024,4096,8192"
MODES = f"cpr-exec,{BRIDGE},cpr-transfer"
STATES = "untouched,touched,prealloc"
LEAST_MEMORY = 192  # MiB; with less there is nothing left that the guest could touch
BLOCK = 5  # updates of one guest; then it is the other side's turn
NO_QEMU = """\
No QEMU is given, so Instar is measured alone. QEMU= is the command of one that has cpr-exec (10.2 or later), such as
    make bench-update QEMU="chroot DIR qemu-system-riscv64"
where DIR is what tools/peer_qemu.sh makes of Debian's packages, as root, in a few minutes: tools/peer_qemu.sh DIR
"""


def main() -> int:
    """Run the benchmark; returns the exit status (0 measured, 3 some of it could not be)."""
    options = arguments()
    adopt_orphans()
    try:
        prioritize(options.nice)
        series = measure(options)
    except (InstarError, RunFailedError) as exc:
        print("\n".join([f"bench-update: {exc}", *getattr(exc, "__notes__", [])]), file=sys.stderr)
        return 3
    Console(width=None if sys.stdout.isatty() else 110).print(table(series))  # a pipe has no width
    print("\n".join([*notes(series), *goals(series)]))
    write(options.svg, chart(of_figure(rows(series), "pause"), subtitle(series)))
    print(f"series: {os.path.relpath(options.json)}, chart: {os.path.relpath(options.svg)}")
    if options.publish:
        publish(series, options)
    return 3 if series.failures else 0


def publish(series: Series, options: argparse.Namespace) -> None:
    """Put series and chart into docs/bench, and the table of pauses into the README."""
    for path in (options.json, options.svg):
        shutil.copy(
            path, os.path.join(ROOT, "docs", "bench", f"update{os.path.splitext(path)[1]}")
        )
    path = os.path.join(ROOT, "README.md")
    with open(path, encoding="utf-8") as stream:
        write(path, between_marks(stream.read(), markdown(series)))


def write(path: str, text: str) -> None:
    """Write a file."""
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(text)


def measure(options: argparse.Namespace) -> Series:
    """Measure what was asked for; what is known is written after each block."""
    sides = [instar()]
    if options.qemu:
        sides.append(qemu(options.qemu))
    else:
        print(NO_QEMU, flush=True)
    series = Series({side.name: version(side) for side in sides})
    cases = chosen(options)
    with tempfile.TemporaryDirectory() as folder:
        program = build_floor(folder)
        sizes = sorted({0, *(case.memory for case in cases)})
        for memory in sizes if program else []:
            print(f"a bare C program, {memory} MiB", flush=True)
            if room_for(memory):
                series.floor[memory] = floor(program, memory, options.runs)
    for side, case, updates, where in turns(sides, cases, options.runs):
        run_block(series, side, case, updates, where)
        save(options.json, document(series))
    if not series.cases:
        raise RunFailedError("nothing could be measured")
    return series


def subtitle(series: Series) -> str:
    """Return what the reader of the chart must know."""
    least, most = min(series.load), max(series.load)
    programs = ", ".join(series.about.values())
    return f"{programs}; {os.cpu_count()} cores, load {least:.1f} to {most:.1f}; riscv64 virt, software CPU"


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Updates of Instar and QEMU, from outside.")
    parser.add_argument(
        "--qemu", default="", help="command of a qemu-system-riscv64 with cpr-exec"
    )
    parser.add_argument("--runs", type=int, default=20, help="updates of each case and side (20)")
    parser.add_argument("--memory", default=MEMORY, help=f"MiB, a list ({MEMORY})")
    parser.add_argument("--modes", default=MODES, help=f"a list ({MODES})")
    parser.add_argument("--states", default=STATES, help=f"a list ({STATES})")
    parser.add_argument(
        "--quick", action="store_true", help="a glance: 256 MiB and 1 GiB, 5 updates"
    )
    parser.add_argument(
        "--goals", action="store_true", help="only the cases that have a goal, whatever is chosen"
    )
    parser.add_argument(
        "--publish", action="store_true", help="write docs/bench and the README anew"
    )
    parser.add_argument("--nice", type=int, default=0, help="priority of both sides (0)")
    build = os.path.join(ROOT, "build")
    parser.add_argument("--json", default=os.path.join(build, "bench-update.json"))
    parser.add_argument("--svg", default=os.path.join(build, "bench-update.svg"))
    options = parser.parse_args()
    if options.quick:
        options.runs, options.memory = BLOCK, "256,1024"
    for name, known in (("modes", MODES), ("states", STATES)):
        wrong = set(getattr(options, name).split(",")) - set(known.split(","))
        if wrong:
            parser.error(f"--{name}: {', '.join(sorted(wrong))}: known are {known}")
    sizes = options.memory.split(",")
    if not all(size.isdecimal() and int(size) >= LEAST_MEMORY for size in sizes):
        parser.error(f"--memory: {options.memory}: numbers of MiB, each at least {LEAST_MEMORY}")
    if options.runs < 1:
        parser.error(f"--runs: {options.runs}: at least 1")
    return options


def prioritize(nice: int) -> None:
    """Have everything that is started from here on run at this priority, among its session's and among sessions."""
    if not nice:
        return
    try:
        os.setpriority(os.PRIO_PROCESS, 0, nice)
        with open("/proc/self/autogroup", "w", encoding="ascii") as stream:
            stream.write(str(nice))
    except OSError as exc:
        raise RunFailedError(f"--nice {nice}: {exc}; negative ones need root") from exc


def chosen(options: argparse.Namespace) -> list[Case]:
    """Return the cases; memory that the monitor touches is measured with the largest guest and cpr-exec only."""
    if options.goals:
        return GOAL_CASES
    memory = [int(size) for size in options.memory.split(",")]
    modes, states = options.modes.split(","), options.states.split(",")
    cases = [
        Case(size, state, mode)
        for mode in modes
        for state in states
        if state != "prealloc"
        for size in memory
    ]
    if "prealloc" in states and "cpr-exec" in modes:
        cases.append(Case(max(memory), "prealloc", "cpr-exec"))
    return cases


def instar() -> Side:
    """Return our side."""
    return Side("instar", "", [], [os.path.join(ROOT, ".venv", "bin", "instar-system")])


def qemu(command: str) -> Side:
    """Return QEMU's side; after ``chroot DIR`` its files are looked up in DIR."""
    words = shlex.split(command)
    if not words:
        raise RunFailedError(f"QEMU={command!r} names no program")
    inside = words[0] == "chroot" and len(words) > 2
    root, enter = (os.path.realpath(words[1]), words[:2]) if inside else ("", [])
    program = [*words[len(enter) :], "-accel", "tcg", "-no-user-config"]
    return Side("qemu", root, enter, program)


def version(side: Side) -> str:
    """Return the first line of what the program says of itself."""
    command = [*side.enter, side.program[0], "--version"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as exc:
        raise RunFailedError(f"{' '.join(command)}: {exc}") from exc
    if done.returncode or not done.stdout:
        said = done.stderr.strip() or f"exit status {done.returncode}"
        raise RunFailedError(f"{' '.join(command)}: {said}")
    return done.stdout.splitlines()[0]


def turns(
    sides: list[Side], cases: list[Case], runs: int
) -> Iterator[tuple[Side, Case, int, str]]:
    """Yield side, case, number of updates and a name of each block; the sides take turns, and so do the cases.

    What the machine does beside is then in all of them: ratios of two cases mean as much as those of two sides.
    """
    for done in range(0, runs, BLOCK):
        for place, case in enumerate(cases):
            for side in sides if done // BLOCK % 2 == 0 else sides[::-1]:
                where = (
                    f"[{place + 1}/{len(cases)}] {case.name}, {side.name}, {done} of {runs} done"
                )
                yield side, case, min(BLOCK, runs - done), where


def room_for(memory: int) -> bool:
    """Say whether the machine can give so many MiB, and leaves itself one GiB."""
    with open("/proc/meminfo", encoding="ascii") as stream:
        rows = dict(line.split(":", 1) for line in stream)
    return int(rows["MemAvailable"].split()[0]) // 1024 >= memory + 1024


def run_block(series: Series, side: Side, case: Case, updates: int, where: str) -> None:
    """Measure one block; a failure is told and noted, and costs the rest of it."""
    if case.state != "untouched" and not room_for(case.memory):
        series.failures.append(
            f"{case.name}, {side.name}: the machine has not so much memory free"
        )
        return
    guest = debian_guest()
    files = guest[guest.index("-kernel") + 1], guest[guest.index("-initrd") + 1]
    try:
        for values in block(
            side, case, files, updates, lambda what: print(f"{where}: {what}", flush=True)
        ):
            series.load.append(os.getloadavg()[0])
            series.add(side.name, case, values)
            print(f"    {shown(values)}", flush=True)
    except (RunFailedError, OSError) as exc:
        print(f"    failed: {exc}", file=sys.stderr, flush=True)
        series.failures.append(f"{case.name}, {side.name}: {exc}")


def shown(values: dict[str, float]) -> str:
    """Return the figures of one update in one line."""
    return ", ".join(
        f"{figure.title} {values[name]:.1f} {figure.unit}"
        for name, figure in FIGURES.items()
        if name in values
    )


if __name__ == "__main__":
    sys.exit(main())
