"""Run tests of KVM where KVM is: on this host if its KVM runs guests, else in a machine that QEMU emulates.

Exit status: the job's own; 2 what was asked for is wrong; 3 something is missing; 124 the job was still running at its
limit; 125 the machine died twice. A job is never run again because it failed, only because its machine died.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from typing import TYPE_CHECKING

from debian_packages import CACHE
from lab import images, machine

from instar.cli.doctor.kvm import guests_cannot_run
from instar.cli.progress import reporter
from instar.errors import ConfigError, HostError, InstarError
from instar.image import debian
from instar.image.store import Store, default_root

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    from instar.image.apt import Progress

    T = TypeVar("T")

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LOGS = os.path.join(CACHE, "lab", "logs")
LOGS_KEPT = 10
LATE, DIED, INTERRUPTED = 124, 125, 130


class MissingError(HostError):
    """This machine lacks what the lab needs; it is no fault of what is tested."""

    code = "lab-missing"


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(prog="tools/lab/run", description=__doc__)
    made.add_argument(
        "--where",
        choices=["auto", "here", "lab"],
        default="auto",
        help="on this host, in the lab, or (default) on this host if its KVM runs guests",
    )
    made.add_argument(
        "--optional", action="store_true", help="where something is missing: say so, exit status 0"
    )
    made.add_argument("--command", action="store_true", help="JOB is a command line, not pytest's")
    made.add_argument("--limit", type=float, default=900.0, help="seconds for all (default 900)")
    made.add_argument("--boot-limit", type=float, default=120.0, help="until the machine is up")
    made.add_argument("--memory", type=int, default=3072, help="of the machine, MiB (3072)")
    made.add_argument("job", nargs=argparse.REMAINDER, metavar="JOB", help="pytest's arguments")
    return made


def main(words: Sequence[str]) -> int:
    """Run one command line and return its exit status."""
    options = parser().parse_args(words)
    try:
        if not options.job:
            raise ConfigError("no JOB is named, tests/kvm is one")
        job = options.job if options.command else pytest_line(options.job)
        why = guests_cannot_run()
        if options.where == "here" or (options.where == "auto" and not why):
            bring(pull_guests)
            return subprocess.run(job, cwd=ROOT, check=False).returncode
        if options.where == "auto":
            say(f"{why}; so a machine is emulated that has KVM")
        return in_lab(job, options)
    except InstarError as exc:
        say("\n".join([str(exc), *getattr(exc, "__notes__", [])]))
        if options.optional and isinstance(exc, MissingError):
            say(f"not run: {' '.join(options.job)}")
            return 0
        return exc.exit_status
    except KeyboardInterrupt:
        say("interrupted")
        return INTERRUPTED


def bring(fetch: Callable[[Progress], T]) -> T:
    """Return what ``fetch`` returns, which gets something from Debian unless it is here."""
    try:
        with reporter(as_json=False) as report:
            return fetch(report)
    except ConfigError as exc:  # apt's tools, Debian's keyring
        raise MissingError(str(exc)) from exc


def pull_guests(progress: Progress) -> None:
    """Bring the image that guests in tests boot, as 'instar image pull debian-amd64' does."""
    debian.pull(Store(default_root()), progress, refresh=False, edition=debian.AMD64)


def pytest_line(words: Sequence[str]) -> list[str]:
    """Return the command of a job that names tests."""
    return [os.path.join(ROOT, ".venv", "bin", "python"), "-m", "pytest", "-q", *words]


def in_lab(job: Sequence[str], options: argparse.Namespace) -> int:
    """Run the job in the lab and return its exit status."""
    qemu = machine.emulator()
    if not qemu:
        raise MissingError(f"there is no {machine.QEMU} on this machine").hint(
            "'make venv' fetches it on Debian; as root 'apt-get install qemu-system-x86' does"
        )
    bring(pull_guests)
    found = bring(images.bring)
    deadline = time.monotonic() + options.limit
    script = machine.job_script(job, ROOT, colored=sys.stdout.isatty())

    def boot(folder: str) -> machine.Ending:
        with open(os.path.join(folder, "job.sh"), "w", encoding="utf-8") as stream:
            stream.write(script)
        line = machine.command(qemu, found, folder, options.memory)
        limits = machine.Limits(options.boot_limit, deadline - time.monotonic())
        return machine.boot(line, folder, limits, say)

    return with_retry(boot, new_logs())


def with_retry(boot: Callable[[str], machine.Ending], folder: str) -> int:
    """Run the job, once more if its machine dies, and return the exit status of all.

    Args:
        boot: Runs it in a machine whose files are in a folder.
        folder: Where these folders are made.
    """
    for attempt in ("first", "second"):
        place = os.path.join(folder, attempt)
        os.mkdir(place)
        say(f"logs: {os.path.relpath(place, ROOT)}")
        started = time.monotonic()
        ending = boot(place)
        seconds = time.monotonic() - started
        if ending.late:
            say(
                f"the job was still running after {seconds:.0f} s, when its time was over (--limit)"
            )
            return LATE
        if not ending.died:
            say(f"the job's exit status is {ending.status}, after {seconds:.1f} s")
            return ending.status
        say(f"the {attempt} machine died after {seconds:.1f} s: {ending.died}")
        say(f"its console ends with:\n{machine.last_words(place) or '(nothing)'}")
    return DIED


def new_logs() -> str:
    """Make the folder of this run's logs; all but the newest ones go."""
    os.makedirs(LOGS, exist_ok=True)
    for old in sorted(os.listdir(LOGS))[: 1 - LOGS_KEPT]:
        shutil.rmtree(os.path.join(LOGS, old), ignore_errors=True)
    return tempfile.mkdtemp(prefix=time.strftime("%Y%m%d-%H%M%S-"), dir=LOGS)


def say(text: str) -> None:
    """Tell the person what happens."""
    print(f"lab: {text}", flush=True)
