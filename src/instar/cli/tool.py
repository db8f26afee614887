"""``instar``: the tool beside the monitor, for updates, guest images, state files, and what a host can do.

Exit statuses: 0 done; 1 the host lacks what every VM needs (``doctor``); 2 what was asked for is wrong; 3 the host
refused (network, disk, a missing program); 4 a state file is damaged; 5 another version is needed to read it; 6 an
update was refused, the guest was not stopped; 7 an update failed, the old program goes on; 70 a bug of ours; 130
interrupted. Errors are one sentence on standard error, then a line for each hint.

Source: own.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING, NoReturn

from instar._version import VERSION
from instar.cli.progress import reporter
from instar.errors import ConfigError, InstarError
from instar.image import debian
from instar.image.store import Store, default_root

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from instar.image.manifest import Manifest

    Command = Callable[[argparse.Namespace], None]

INTERRUPTED = 130
PROGRAM = "instar"
EPILOG = """\
exit status: 0 done, 1 the host lacks what every VM needs (doctor), 2 what was asked for is wrong, 3 the host refused,
             4 a state file is damaged, 5 another version is needed to read it,
             6 an update was refused and the guest was not stopped, 7 an update failed and the old program goes on,
             70 a bug, 130 interrupted
files: images are kept in $INSTAR_CACHE, else $XDG_CACHE_HOME/instar, else ~/.cache/instar"""


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, as everything else of ours does."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(message).hint(f"'{self.prog} --help' shows what is allowed")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line; reference docs are made from it."""
    root = _Parser(
        prog=PROGRAM,
        description="Updates, guest images and state files of Instar, and what this host can do.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _runs(commands.add_parser("version", help="print the version"), _version)
    _runs(commands.add_parser("doctor", help="say what this host can do"), _doctor)
    _add_inspect(commands.add_parser("inspect", help="print what is in a state file"))
    _add_update(commands.add_parser("update", help="replace the program of a running VM"))
    image = commands.add_parser("image", help="fetch, find and remove guest images")
    actions = image.add_subparsers(dest="action", required=True, metavar="ACTION")
    pull = _runs(actions.add_parser("pull", help="fetch an image unless it is here"), _pull)
    pull.add_argument("name", choices=[edition.name for edition in debian.EDITIONS.values()])
    pull.add_argument(
        "--arch", choices=list(debian.EDITIONS), help="of image debian; default: riscv64"
    )
    pull.add_argument(
        "--refresh", action="store_true", help="fetch again even if the image is here"
    )
    path = _runs(actions.add_parser("path", help="print where a file of an image is"), _path)
    path.add_argument("name")
    path.add_argument("file", choices=["kernel", "initrd"])
    _runs(actions.add_parser("list", help="print the images that are here"), _list)
    _runs(actions.add_parser("remove", help="remove an image"), _remove).add_argument("name")
    return root


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (without the program's name; by default the process's own) and return its exit status."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        options = parser().parse_args(words)
        run: Command = options.run
        run(options)
    except InstarError as exc:
        _complain(str(exc), getattr(exc, "__notes__", []))
        return exc.exit_status
    except KeyboardInterrupt:
        _complain("interrupted; images and files are as before", [])
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), 1
        )  # the reader has what it wanted; nothing is flushed at it later
    return 0


def _runs(command: argparse.ArgumentParser, run: Command) -> argparse.ArgumentParser:
    command.add_argument("--json", action="store_true", help="print JSON, one object a line")
    command.set_defaults(run=run)
    return command


def _add_inspect(command: argparse.ArgumentParser) -> None:
    _runs(command, _inspect)
    command.add_argument("file", metavar="FILE", help="a path, - for standard input, fd:N")
    command.add_argument("--object", metavar="ID", help="look at this object alone")
    command.add_argument(
        "--offset", metavar="BYTES", type=_offset, default=0, help="where the state begins in FILE"
    )


def _add_update(command: argparse.ArgumentParser) -> None:
    _runs(command, _update)
    command.add_argument("vm", metavar="VM", help="path of its QMP socket")
    command.add_argument(
        "program", metavar="PROGRAM", nargs="?", default="", help="default: where it came from"
    )
    command.add_argument(
        "--check", action="store_true", help="only try it; the guest is not stopped"
    )
    command.add_argument(
        "--budget", metavar="MS", type=_budget, default=-1, help="refuse a longer pause; 0: any"
    )


def _budget(word: str) -> int:
    if not (word.isascii() and word.isdigit() and int(word) <= 600_000):
        raise argparse.ArgumentTypeError(f"{word!r} is not a number of ms up to 600000")
    return int(word)


def _update(options: argparse.Namespace) -> None:
    from instar.cli.update import update  # noqa: PLC0415 - the others need no socket

    update(
        options.vm,
        options.program,
        check=options.check,
        budget_ms=options.budget,
        as_json=options.json,
    )


def _offset(word: str) -> int:
    if not (word.isascii() and word.isdigit() and int(word) < 1 << 63):
        raise argparse.ArgumentTypeError(f"{word!r} is not a number of bytes up to 2**63-1")
    return int(word)


def _inspect(options: argparse.Namespace) -> None:
    from instar.cli import inspect, inspect_text  # noqa: PLC0415 - all of the machine declares states

    report = inspect.report_on(options.file, offset=options.offset, only=options.object)
    error = inspect.verdict(report)
    if options.json:
        print(json.dumps({**report, "exit-status": error.exit_status if error else 0}))
    elif report["format"] and sys.stdout.isatty():
        from instar.cli import inspect_rich  # noqa: PLC0415 - rich is slow to import

        inspect_rich.show(report)
    elif report["format"]:
        print("\n".join(inspect_text.lines(report)))
    if error:
        raise error


def _doctor(options: argparse.Namespace) -> None:
    from instar.cli.doctor.command import doctor  # noqa: PLC0415 - nobody else looks at the host

    doctor(as_json=options.json)


def _version(options: argparse.Namespace) -> None:
    print(json.dumps({"version": VERSION}) if options.json else f"{PROGRAM} {VERSION}")


def _pull(options: argparse.Namespace) -> None:
    store = Store(default_root())
    with reporter(as_json=options.json) as report:
        manifest, changed = debian.pull(
            store, report, refresh=options.refresh, edition=_edition(options)
        )
    if options.json:
        print(json.dumps({"event": "done", "changed": changed, **_described(store, manifest)}))
    else:
        state = "is ready" if changed else "is here already"
        print(f"image '{manifest.name}' {state}: {_contents(manifest)}")


def _edition(options: argparse.Namespace) -> debian.Edition:
    """Return the image that is meant: by its name, or ``debian`` and the architecture."""
    for edition in debian.EDITIONS.values():
        by_name = options.name == edition.name and options.arch in {None, edition.architecture}
        if by_name or (options.name == debian.NAME and options.arch == edition.architecture):
            return edition
    raise ConfigError(f"image '{options.name}' is not for {options.arch}; nothing was fetched")


def _path(options: argparse.Namespace) -> None:
    store = Store(default_root())
    manifest = store.find(options.name)
    if manifest is None:
        raise _absent(store, options.name)
    blob = manifest.kernel if options.file == "kernel" else manifest.initrd
    path = store.blob_path(blob)
    if not store.present(blob):
        raise ConfigError(
            f"{path} of image '{options.name}' is missing or has another length"
        ).hint(f"'instar image pull {options.name}' mends it")
    print(json.dumps({"path": path, **blob._asdict()}) if options.json else path)


def _list(options: argparse.Namespace) -> None:
    store = Store(default_root())
    for name in store.names():
        manifest = store.find(name)
        if manifest is None:
            continue  # removed meanwhile
        if options.json:
            print(json.dumps(_described(store, manifest)))
        else:
            print(f"{name}: {_contents(manifest)}")


def _remove(options: argparse.Namespace) -> None:
    store = Store(default_root())
    if options.name not in store.names():
        raise _absent(store, options.name)
    with (
        reporter(as_json=options.json) as report,
        store.writing(lambda: report("waiting for a pull", 0.0)) as writer,
    ):
        writer.remove(options.name)
    text = json.dumps({"event": "removed", "name": options.name})
    print(text if options.json else f"image '{options.name}' is removed")


def _absent(store: Store, name: str) -> InstarError:
    error = ConfigError(f"there is no image '{name}' in {store.root}")
    return error.hint(f"'instar image pull {debian.NAME}' fetches one")


def _contents(manifest: Manifest) -> str:
    size = sum(blob.size for blob in (manifest.kernel, manifest.initrd))
    packages = ", ".join(f"{name} {version}" for name, version in manifest.packages.items())
    return f"{packages} ({size / (1 << 20):.1f} MiB)"


def _described(store: Store, manifest: Manifest) -> dict[str, object]:
    return {
        "name": manifest.name,
        "packages": manifest.packages,
        "kernel": store.blob_path(manifest.kernel),
        "initrd": store.blob_path(manifest.initrd),
    }


def _complain(text: str, notes: Sequence[str]) -> None:
    head = f"{PROGRAM}:"
    if sys.stderr.isatty() and "NO_COLOR" not in os.environ:
        head = f"\x1b[1;31m{head}\x1b[0m"
    print("\n".join([f"{head} {text}", *notes]), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
