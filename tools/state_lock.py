#!/usr/bin/env python3
"""Keep the record of every version that a state ever had: ``tests/golden/state.lock`` and one blob each.

    tools/state_lock.py             check: what is declared is what is recorded
    tools/state_lock.py --update    record new states and new versions; what is recorded never changes
    tools/state_lock.py --forget NAME   drop the newest version of NAME, which was never in a release

A released version is read for ever: its fields in the lock and its blobs (records with telling values; one more for
each optional field, as ``v1+name.bin``) may only be added, and the tests load every blob with today's program. The lock
has the blobs' digests. What is in the lock of a tag ``v*`` was released: it can be neither changed nor forgotten.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from zlib import crc32

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))

from instar.cpr.encoding import encode  # noqa: E402 - the path comes first
from instar.cpr.errors import StateInvalidError  # noqa: E402
from instar.cpr.state import State, layout, optional_layout, registry, save  # noqa: E402

LOCK = ROOT / "tests" / "golden" / "state.lock"
BLOBS = ROOT / "tests" / "golden" / "state"
DECLARED = re.compile(r"^@state\(", re.MULTILINE)
NUMBERS = re.compile(r"u(\d+)\[(<=)?(\d+)\]")

Fields = dict[str, str]
Lock = dict[str, dict[str, dict[str, Any]]]


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
    """Return what the lock says about the current version of ``cls``, but for its blobs."""
    fields, optional = layout(cls), optional_layout(cls)
    made: dict[str, object] = {
        "fingerprint": fingerprint(cls.state_name, cls.state_version, fields),
        "fields": fields,
    }
    return {**made, "optional": optional} if optional else made


def problems(lock: Lock, states: dict[str, type[State]]) -> list[str]:
    """Return what is not as recorded, one sentence each."""
    found = [
        f"{name}: is recorded but not declared any more" for name in lock if name not in states
    ]
    for name, cls in sorted(states.items()):
        versions = lock.get(name, {})
        recorded = versions.get(str(cls.state_version))
        found += [f"{name} v{cls.state_version}: {why}" for why in version_problems(cls, recorded)]
        wanted = {str(v) for v in range(cls.state_oldest, cls.state_version)}
        found += [f"{name} v{v}: is read but not recorded" for v in sorted(wanted - set(versions))]
    return found


def version_problems(cls: type[State], recorded: dict[str, object] | None) -> list[str]:
    """Return what is wrong with the current version of ``cls``; optional fields may have been added, nothing else."""
    if recorded is None:
        return ["is not recorded (tools/state_lock.py --update)"]
    now = entry(cls)
    if any(recorded[key] != now[key] for key in ("fingerprint", "fields")):
        return ["fields changed without a new version"]
    old, new = recorded.get("optional", {}), now.get("optional", {})
    changed = [name for name in old if old[name] != new.get(name)]
    added = [name for name in new if name not in old]
    return [f"optional field {name} changed without a new version" for name in changed] + [
        f"optional field {name} is not recorded (tools/state_lock.py --update)" for name in added
    ]


def digest(path: Path) -> str:
    """Return 16 hex digits for a blob."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def blob_problems(lock: Lock, blobs: Path) -> list[str]:
    """Return which blobs are changed, missing or not recorded, one sentence each."""
    recorded = {
        f"{name}/{file}": recorded_digest
        for name, versions in lock.items()
        for version in versions.values()
        for file, recorded_digest in version.get("blobs", {}).items()
    }
    there = {str(path.relative_to(blobs)): digest(path) for path in sorted(blobs.glob("*/*"))}
    return [
        *(f"{file}: is recorded but not there" for file in recorded if file not in there),
        *(f"{file}: is not recorded" for file in there if file not in recorded),
        *(
            f"{file}: was changed; blobs never change"
            for file in there
            if recorded.get(file, there[file]) != there[file]
        ),
    ]


def taken_back(released: Lock, lock: Lock) -> list[str]:
    """Return which parts of a released lock are no longer in ``lock`` as they were, one sentence each."""
    found: list[str] = []
    for name, versions in released.items():
        for version, old in versions.items():
            new = lock.get(name, {}).get(version)
            if new is None:
                found.append(f"{name} v{version}: was released and is not recorded any more")
                continue
            kept = all(
                old.get(key, {}).items() <= new.get(key, {}).items()
                for key in ("optional", "blobs")
            )
            if not kept or old["fields"] != new["fields"]:
                found.append(f"{name} v{version}: was released and is recorded otherwise now")
    return found


def released_lock() -> Lock:
    """Return the lock of the newest release (tag ``v*``) in the history of this work; empty before the first."""
    found = _git("describe", "--tags", "--abbrev=0", "--match", "v*")
    text = _git("show", f"{found.strip()}:{LOCK.relative_to(ROOT)}") if found else ""
    return json.loads(text) if text else {}


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


def sample(cls: type[State]) -> State:
    """Return a state with a telling value in every field for which ``check()`` allows one."""
    made = cls()
    for name, field in cls.state_needed.items():
        _try(made, name, field.wire)
    return made


def _try(made: State, name: str, wire: str) -> None:
    """Give a field a telling value if ``check()`` allows it."""
    usual = getattr(made, name)
    setattr(made, name, telling(wire, f"{made.state_name}.{name}", usual))
    try:
        made.check()
    except StateInvalidError:
        setattr(made, name, usual)


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


def blob_of(cls: type[State], optional: str = "") -> bytes:
    """Return the golden blob of the current version, with one optional field or none."""
    version = cls.state_version
    live = sample(cls)
    if optional:
        _try(live, optional, cls.state_fields[optional].wire)
    return encode({"state": cls.state_name, "version": version, "fields": save(live)})


def update(lock: Lock, states: dict[str, type[State]], blobs: Path) -> list[str]:
    """Add new versions to ``lock`` and write their blobs; return what was added.

    Raises:
        FileExistsError: A blob of that version is already there; it stays as it is.
    """
    added: list[str] = []
    for name, cls in sorted(states.items()):
        version = str(cls.state_version)
        recorded = lock.setdefault(name, {}).get(version)
        there = recorded.get("optional", {}) if recorded else {}
        wanted = [one for one in optional_layout(cls) if one not in there]
        files = {f"v{version}+{one}.bin": blob_of(cls, one) for one in wanted}
        if recorded is None:
            files[f"v{version}.bin"] = blob_of(cls)
            recorded = lock[name][version] = {**entry(cls), "blobs": {}}
        for file, content in files.items():
            path = blobs / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as out:
                out.write(content)
            recorded["blobs"][file] = digest(path)
            added.append(f"{name} {path.stem}")
        if wanted:
            recorded["optional"] = {**there, **{one: optional_layout(cls)[one] for one in wanted}}
    return added


def forget(lock: Lock, name: str, blobs: Path, released: Lock) -> str:
    """Drop the newest version of ``name`` from lock and blobs.

    Raises:
        KeyError: There is none.
        ValueError: It was released; nothing was changed.
    """
    version = max(lock[name], key=int)
    if version in released.get(name, {}):
        raise ValueError(f"{name} v{version} was released: it stays; make a new version")
    for file in lock[name].pop(version)["blobs"]:
        (blobs / name / file).unlink(missing_ok=True)
    if not lock[name]:
        del lock[name]
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
        print("forgotten:", forget(lock, options.forget, BLOBS, released_lock()))
    if options.update:
        print("recorded:", ", ".join(update(lock, states, BLOBS)) or "nothing new")
    if options.update or options.forget:
        LOCK.write_text(json.dumps(lock, indent=1, sort_keys=True) + "\n")
    found = problems(lock, states) + blob_problems(lock, BLOBS)
    found += taken_back(released_lock(), lock)
    for problem in found:
        print(problem)
    return 1 if found and not options.forget else 0


if __name__ == "__main__":
    sys.exit(main())
