"""The lab's first machine: QEMU emulates a PC with AMD's SVM, so that Linux in it has a real ``kvm_amd``.

Its root is the host's own, which it sees by 9p and cannot change; so the project runs in it as it was built here, with
the Python that it was built for. One CPU: a second one makes guests with two CPUs die in it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

from debian_packages import CACHE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lab.images import Images

QEMU = "qemu-system-x86_64"
CPU = "EPYC,+svm"
STEP = 0.1  # seconds between two looks at the machine
STILL = 90.0  # seconds without a sign of life (it gives one every 5) after which a machine is dead
LAST_WORDS = 2000  # bytes of a dead machine's console that are shown
PATIENCE = 300  # seconds that a test there waits for anything before it gives up
CHUNK = 1 << 16  # bytes of output copied at a time
INHERITED = ("HOME", "LANG", "INSTAR_CACHE", "XDG_CACHE_HOME")


class Limits(NamedTuple):
    """Seconds that are waited.

    Attributes:
        boot: Until the machine has its root and starts the job.
        job: Until the machine has ended, from its start on.
    """

    boot: float
    job: float


class Ending(NamedTuple):
    """How a machine ended.

    Attributes:
        status: Exit status of the job, -1 if there is none.
        died: Why there is none, if the machine is to blame; it may be tried again.
        late: The job was still running at its limit; trying again would be a retry of the job.
    """

    status: int
    died: str = ""
    late: bool = False


def emulator() -> str:
    """Return the path of QEMU's program for x86-64, or an empty string if there is none."""
    places = [os.environ.get("PATH", os.defpath), os.path.join(CACHE, "peers")]
    return shutil.which(QEMU, path=os.pathsep.join(places)) or ""


def command(qemu: str, images: Images, folder: str, memory_mib: int) -> list[str]:
    """Return the command line of the machine whose job is in ``folder``."""
    host = "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap"
    job = f"local,id=job,path={_value(folder)},security_model=none"
    return [
        *(qemu, "-accel", "tcg", "-M", "q35", "-cpu", CPU, "-smp", "1", "-m", f"{memory_mib}M"),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-chardev", f"file,id=console,path={_value(folder)}/console.log"),
        *("-serial", "chardev:console"),
        *("-kernel", images.kernel, "-initrd", images.initrd),
        *("-append", "console=ttyS0 panic=-1"),
        *("-fsdev", host, "-device", "virtio-9p-pci,fsdev=host,mount_tag=host"),
        *("-fsdev", job, "-device", "virtio-9p-pci,fsdev=job,mount_tag=job"),
    ]


def job_script(words: Sequence[str], root: str, *, colored: bool) -> str:
    """Return what the machine runs: the job's words in the project's folder, with what it needs to know of the host."""
    path = os.pathsep.join(
        [
            os.path.join(root, ".venv", "bin"),
            os.environ.get("PATH", os.defpath),
            "/usr/sbin:/sbin",
            os.path.join(CACHE, "peers"),
        ]
    )
    known = {name: os.environ[name] for name in INHERITED if name in os.environ}
    known |= {"PATH": path, "PYTHONUNBUFFERED": "1", "TERM": "dumb", "TMPDIR": "/run/lab/tmp"}
    known |= {"INSTAR_TEST_PATIENCE": str(PATIENCE)}
    known |= {"PY_COLORS": "1"} if colored else {}
    lines = [f"export {name}={shlex.quote(value)}" for name, value in sorted(known.items())]
    return "\n".join([*lines, f"cd {shlex.quote(root)} || exit 3", f"exec {shlex.join(words)}\n"])


def boot(line: Sequence[str], folder: str, limits: Limits, say: Callable[[str], None]) -> Ending:
    """Run a machine to its end, passing the job's output on.

    Args:
        line: From :func:`command`.
        folder: The same; it has the file job.sh, and gets the logs.
        limits: How long to wait.
        say: Told when the machine is up.
    """
    watch = _Watch(folder, limits, say)
    with open(os.path.join(folder, "qemu.log"), "wb") as log:
        machine = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            while machine.poll() is None and not watch.over():
                time.sleep(STEP)
        finally:
            machine.kill()  # it has ended, or it is not waited for any longer
            machine.wait()
    return watch.ending(machine.returncode)


class _Watch:
    """Looks at the files of a running machine."""

    def __init__(self, folder: str, limits: Limits, say: Callable[[str], None]) -> None:
        self._folder = folder
        self._limits = limits
        self._say = say
        self._started = time.monotonic()
        self._up = False
        self._alive = ""  # the last sign of life, and when it was seen first
        self._alive_at = self._started
        self._read = 0  # bytes of the output that were passed on
        self._why = ""

    def over(self) -> bool:
        """Pass on what is new; return whether a limit has passed."""
        self._pass_on()
        passed = time.monotonic() - self._started
        if not self._up and os.path.exists(os.path.join(self._folder, "up")):
            self._up, self._alive_at = True, time.monotonic()
            self._say(f"the machine is up after {passed:.1f} s")
        if not self._up and passed > self._limits.boot:
            self._why = f"it was not up after {passed:.0f} s"
        elif passed > self._limits.job:
            self._why = "late"
        elif self._up and (still := self._still()) > STILL:
            self._why = f"it has given no sign of life for {still:.0f} s"
        return bool(self._why)

    def ending(self, status: int) -> Ending:
        """Return how it ended; ``status`` is QEMU's."""
        self._pass_on()
        try:
            with open(os.path.join(self._folder, "status"), encoding="ascii") as stream:
                return Ending(int(stream.read()))
        except (FileNotFoundError, ValueError):
            if self._why == "late":
                return Ending(-1, late=True)
            return Ending(-1, self._why or f"QEMU ended with status {status} before the job did")

    def _still(self) -> float:
        """Return for how many seconds the machine has given no sign of life: not the job hangs then, but all of it."""
        try:
            with open(os.path.join(self._folder, "alive"), encoding="ascii") as stream:
                sign = stream.read()
        except (FileNotFoundError, ValueError):
            sign = ""
        if sign != self._alive:
            self._alive, self._alive_at = sign, time.monotonic()
        return time.monotonic() - self._alive_at

    def _pass_on(self) -> None:
        try:
            with open(os.path.join(self._folder, "output.log"), "rb") as stream:
                stream.seek(self._read)
                while data := stream.read(CHUNK):
                    self._read += len(data)
                    sys.stdout.buffer.write(data)
        except FileNotFoundError:
            return
        sys.stdout.buffer.flush()


def last_words(folder: str) -> str:
    """Return the end of the console of the machine whose files are in ``folder``."""
    try:
        with open(os.path.join(folder, "console.log"), "rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - LAST_WORDS))
            return stream.read().decode(errors="replace").replace("\r", "").strip()
    except FileNotFoundError:
        return ""


def _value(path: str) -> str:
    """Return a path as a value in one of QEMU's comma-separated lists."""
    return path.replace(",", ",,")
