"""Run fuzz targets: ``make fuzz [TARGET=name] [TIME=seconds]``.

With atheris the search is guided by what code an input reaches, and goes on where it was from run to run
(``.cache/fuzz``). Without it, inputs are variations of the seeds. What shows a bug is kept in ``tests/fuzz/found``,
where ``make test`` tries it again for ever.
"""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
import time
import traceback

import fuzz_targets

CORPUS = fuzz_targets.HERE.parents[1] / ".cache" / "fuzz"
SLOW = 5  # seconds for one input: a bug, too


def main(words: list[str]) -> int:
    """Run one target, or all in turn; returns 1 if a bug was found."""
    target, seconds = words
    if not target:
        return max(subprocess.run([sys.executable, __file__, name, seconds], check=False).returncode
                   for name in fuzz_targets.names())  # fmt: skip
    if target not in fuzz_targets.names():
        print(
            f"there is no target {target}; there are {', '.join(fuzz_targets.names())}",
            file=sys.stderr,
        )
        return 2
    guided = importlib.util.find_spec("atheris") is not None
    print(
        f"fuzz: {target} for {seconds} s, {'guided by coverage' if guided else 'without atheris: blind'}"
    )
    return (run_guided if guided else run_blind)(target, int(seconds))


def run_guided(name: str, seconds: int) -> int:
    """Fuzz with atheris; it ends the process."""
    import atheris  # noqa: PLC0415 - need not be there

    with atheris.instrument_imports(include=["instar"], enable_loader_override=False):
        target = fuzz_targets.load(name)
    corpus, seeds, found = CORPUS / name, CORPUS / f"{name}.seeds", fuzz_targets.FOUND / name
    for folder in (corpus, seeds, found):
        folder.mkdir(parents=True, exist_ok=True)
    for data in target.seeds():
        (seeds / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    options = [
        f"-max_total_time={seconds}", f"-max_len={fuzz_targets.MAX_INPUT}", f"-timeout={SLOW}",
        f"-artifact_prefix={found}/", "-print_final_stats=1", "-verbosity=0",
    ]  # fmt: skip
    atheris.Setup([name, *options, str(corpus), str(seeds), str(found)], target.fuzz)
    atheris.Fuzz()
    return 0


def run_blind(name: str, seconds: int) -> int:
    """Try variations of the seeds."""
    target, count = fuzz_targets.load(name), 0
    inputs = [*target.seeds(), *fuzz_targets.found(name)]
    end = time.monotonic() + seconds
    for data in fuzz_targets.mutated(inputs, time.time_ns(), 1 << 62):
        count += 1
        try:
            target.fuzz(data)
        except Exception:
            traceback.print_exc()
            folder = fuzz_targets.FOUND / name
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"crash-{hashlib.sha1(data).hexdigest()}").write_bytes(data)
            return 1
        if time.monotonic() > end:
            break
    print(f"fuzz: {name}: {count} inputs, no bug")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
