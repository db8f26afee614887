#!/usr/bin/env python3
"""Keep the record of every version that a state ever had: ``tests/golden/state.lock`` and one blob each.

    tools/state_lock.py             check: what is declared is what is recorded
    tools/state_lock.py --update    record new states and new versions; what is recorded never changes
    tools/state_lock.py --forget NAME   drop the newest version of NAME, which was never in a release

A released version is read for ever: its fields in the lock and its blob (a record with telling values) may
only be added, and the tests load every blob with today's program.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import re
import sys
from pathlib import Path
from zlib import crc32

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from instar.cpr.encoding import encode  # noqa: E402 - the path comes first
from instar.cpr.errors import StateInvalidError  # noqa: E402
from instar.cpr.state import State, layout, registry, save  # noqa: E402

LOCK = ROOT / "tests" / "golden" / "state.lock"
BLOBS = ROOT / "tests" / "golden" / "state"
DECLARED = re.compile(r"^@state\(", re.MULTILINE)
NUMBERS = re.compile(r"u(\d+)\[(<=)?(\d+)\]")

Fields = dict[str, str]
Lock = dict[str, dict[str, dict[str, object]]]


def declared_states(source: Path = ROOT / "src") -> dict[str, type[State]]:
    """Import every module of the package that declares states and return them by name."""
    for path in sorted((source / "instar").rglob("*.py")):
        if DECLARED.search(path.read_text()) and path.parent.name != "cpr":
            importlib.import_module(".".join(path.relative_to(source).with_suffix("").parts))
    return {name: cls for name, cls in registry().items() if cls.__module__.startswith("instar.")}


def fingerprint(name: str, version: int, fields: Fields) -> str:
    """Return 16 hex digits for a version and its field set."""
    text = json.dumps([name, version, sorted(fields.items())])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def entry(cls: type[State]) -> dict[str, object]:
    """Return what the lock says about the current version of ``cls``."""
    fields = layout(cls)
    return {
        "fingerprint": fingerprint(cls.state_name, cls.state_version, fields),
        "fields": fields,
    }


def problems(lock: Lock, states: dict[str, type[State]]) -> list[str]:
    """Return what is not as recorded, one sentence each."""
    found = [
        f"{name}: is recorded but not declared any more" for name in lock if name not in states
    ]
    for name, cls in sorted(states.items()):
        versions = lock.get(name, {})
        recorded = versions.get(str(cls.state_version))
        if recorded is None:
            found.append(
                f"{name} v{cls.state_version}: is not recorded (tools/state_lock.py --update)"
            )
        elif recorded != entry(cls):
            found.append(f"{name} v{cls.state_version}: fields changed without a new version")
        wanted = {str(v) for v in range(cls.state_oldest, cls.state_version)}
        found += [f"{name} v{v}: is read but not recorded" for v in sorted(wanted - set(versions))]
    return found


def sample(cls: type[State]) -> State:
    """Return a state with a telling value in every field for which ``check()`` allows one."""
    made = cls()
    for name, field in cls.state_fields.items():
        usual = getattr(made, name)
        setattr(made, name, telling(field.wire, f"{cls.state_name}.{name}", usual))
        try:
            made.check()
        except StateInvalidError:
            setattr(made, name, usual)
    return made


def telling(wire: str, path: str, usual: object) -> object:
    """Return a value that is no default and differs from field to field."""
    seed = crc32(path.encode())
    if numbers := NUMBERS.fullmatch(wire):
        mask = (1 << int(numbers[1])) - 1
        count = min(int(numbers[3]), 3) if numbers[2] else int(numbers[3])
        return [(seed + n) & mask for n in range(count)]
    if wire.startswith("state:"):
        inner = sample(registry()[wire.removeprefix("state:").partition("[")[0]])
        return [inner] if wire.endswith("]") else inner
    if wire.startswith(("u", "i")):
        return seed % (1 << (int(wire[1:]) - 1)) if wire != "u1" else 1
    values = {"flag": True, "text": "golden", "blob": b"golden", "fd": -1}
    kind, _, limit = wire.partition("<=")
    value = values.get(kind, usual)
    return value[: int(limit)] if isinstance(value, str | bytes) else value


def blob_of(cls: type[State]) -> bytes:
    """Return the golden blob of the current version."""
    version = cls.state_version
    return encode({"state": cls.state_name, "version": version, "fields": save(sample(cls))})


def update(lock: Lock, states: dict[str, type[State]], blobs: Path) -> list[str]:
    """Add new versions to ``lock`` and write their blobs; return what was added.

    Raises:
        FileExistsError: A blob of that version is already there; it stays as it is.
    """
    added: list[str] = []
    for name, cls in sorted(states.items()):
        version = str(cls.state_version)
        if version in lock.get(name, {}):
            continue
        path = blobs / name / f"v{version}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            file.write(blob_of(cls))
        lock.setdefault(name, {})[version] = entry(cls)
        added.append(f"{name} v{version}")
    return added


def forget(lock: Lock, name: str, blobs: Path) -> str:
    """Drop the newest version of ``name`` from lock and blobs; KeyError if there is none."""
    version = max(lock[name], key=int)
    del lock[name][version]
    if not lock[name]:
        del lock[name]
    (blobs / name / f"v{version}.bin").unlink(missing_ok=True)
    return f"{name} v{version}"


def read_lock(path: Path = LOCK) -> Lock:
    """Return the lock; empty if there is none yet."""
    return json.loads(path.read_text()) if path.exists() else {}


def main() -> int:
    """Run the command line; 1 if something is not as recorded."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--update", action="store_true", help="record what is new")
    parser.add_argument("--forget", metavar="NAME", help="drop a version that was never released")
    options = parser.parse_args()
    lock, states = read_lock(), declared_states()
    if options.forget:
        print("forgotten:", forget(lock, options.forget, BLOBS))
    if options.update:
        print("recorded:", ", ".join(update(lock, states, BLOBS)) or "nothing new")
    if options.update or options.forget:
        LOCK.write_text(json.dumps(lock, indent=1, sort_keys=True) + "\n")
    found = problems(lock, states)
    for problem in found:
        print(problem)
    return 1 if found and not options.forget else 0


if __name__ == "__main__":
    sys.exit(main())
