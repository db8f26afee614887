"""A prepared start: byte code and configuration from a rehearsal, used only where nothing has changed."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from marshal import dumps, loads

import pytest

from instar import prepared
from instar.cli.options import parse
from instar.cli.options.plain import from_plain, to_plain
from instar.cli.preparing import prepare
from instar.prepared import LENGTH, VARIABLE, config_of, stamp, take_over, was_used

WORDS = ["-m", "64M"]
PLAIN = {"what": "they mean"}
NAMES = ("things", "things.one", "things.two")
BROKEN = """def fails():
    raise RuntimeError("here")
"""


@pytest.fixture(autouse=True)
def nothing_used(monkeypatch):
    monkeypatch.setattr(prepared, "_found", [])
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of two modules, imported; forgotten again afterwards."""
    folder = tmp_path / "things"
    folder.mkdir()
    (folder / "__init__.py").write_text("from things import two\n")
    (folder / "one.py").write_text(BROKEN)
    (folder / "two.py").write_text("from things.one import fails\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(prepared, "OURS", "things")
    importlib.import_module("things")
    yield folder
    forget()


def forget() -> None:
    for name in NAMES:
        sys.modules.pop(name, None)


def made() -> bytes:
    """What a rehearsal would hand over, the modules in the order in which they were finished."""
    return prepare(WORDS, PLAIN, [name for name in sys.modules if name in NAMES])


def taken(data: bytes) -> bool:
    fd = os.memfd_create("test")
    try:
        os.write(fd, data)
        return take_over({VARIABLE: str(fd)})
    finally:
        os.close(fd)


def ready(data: bytes) -> None:
    """Let it be taken over in a process that has nothing of it yet."""
    forget()
    assert taken(data)


def test_modules_are_made_at_once_from_what_was_prepared(package):
    data = made()
    (package / "one.py").chmod(0)  # nobody reads it
    ready(data)
    assert was_used()
    one, two = sys.modules["things.one"], sys.modules["things.two"]
    assert two.fails is one.fails
    assert (sys.modules["things"].one, sys.modules["things"].two) == (one, two)
    assert importlib.import_module("things.one") is one


def look(name: str) -> tuple[object, ...]:
    """What people and tools see of a module."""
    module = sys.modules[name]
    spec = module.__spec__
    return (
        *(module.__name__, module.__file__, module.__cached__, module.__package__),
        *(getattr(module, "__path__", None), type(module.__loader__), module.__loader__.name),
        *(spec.name, spec.origin, spec.cached, spec.has_location, spec.submodule_search_locations),
        module.__loader__ is spec.loader,
    )


@pytest.mark.parametrize("name", NAMES)
def test_modules_look_as_always_once_the_start_is_over(package, name):
    data, before = made(), look(name)
    ready(data)
    prepared.release()
    assert look(name) == before


def test_traceback_of_a_prepared_module_names_its_file_and_line(package):
    ready(made())
    with pytest.raises(RuntimeError) as caught:
        sys.modules["things.one"].fails()
    last = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert (last.filename, last.lineno) == (str(package / "one.py"), 2)
    assert last.line == 'raise RuntimeError("here")'


def test_reload_of_a_prepared_module_reads_its_file(package):
    ready(made())
    prepared.release()
    (package / "one.py").write_text("changed = True")
    assert importlib.reload(sys.modules["things.one"]).changed


def test_module_that_was_not_prepared_comes_from_its_file(package):
    data = made()
    (package / "late.py").write_text("from things.one import fails")
    ready(data)
    late = importlib.import_module("things.late")
    assert late.fails is sys.modules["things.one"].fails
    sys.modules.pop("things.late")


def test_module_that_fails_means_an_ordinary_start_with_nothing_of_it(package):
    (package / "two.py").write_text("from things.one import fails\nfails()")
    forget()
    with pytest.raises(RuntimeError):
        importlib.import_module("things")
    data = prepare(WORDS, PLAIN, order_of_broken(package))
    forget()
    assert not taken(data)
    assert not was_used()
    assert set(NAMES) & set(sys.modules) == set()
    assert not any(isinstance(finder, prepared.Prepared) for finder in sys.meta_path)


def order_of_broken(package) -> list[str]:
    """Let the modules be there as if they had been imported, for their byte code to be prepared."""
    for name, path in (("things.one", "one.py"), ("things.two", "two.py")):
        spec = importlib.util.spec_from_file_location(name, package / path)
        sys.modules[name] = importlib.util.module_from_spec(spec)
    return ["things.one", "things.two"]


def test_configuration_is_that_of_the_same_words_alone(package):
    ready(made())
    assert config_of(WORDS) == PLAIN
    assert config_of([*WORDS, "-S"]) is None


def test_release_leaves_nothing_behind(package):
    ready(made())
    prepared.release()
    assert config_of(WORDS) is None
    assert not any(isinstance(finder, prepared.Prepared) for finder in sys.meta_path)
    assert was_used()


def test_file_that_changed_since_means_an_ordinary_start(package):
    data = made()
    os.utime(package / "one.py", ns=(1, 1))
    assert not taken(data)


def test_file_that_is_gone_means_an_ordinary_start(package):
    data = made()
    (package / "one.py").unlink()
    assert not taken(data)


def test_other_interpreter_means_an_ordinary_start(package, monkeypatch):
    data = made()
    monkeypatch.setattr(sys, "version", "another")
    assert not taken(data)


def joined(index: object, rest: object = None) -> bytes:
    first = dumps(index)
    return len(first).to_bytes(LENGTH, "little") + first + dumps([] if rest is None else rest)


ROW = (__file__, "", False, os.stat(__file__).st_mtime_ns, os.stat(__file__).st_size, 0)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"short",
        bytes(64),
        b"\xff" * 64,
        joined(None),
        joined((stamp(), WORDS, None)),
        joined((stamp(), WORDS, None, [])),
        joined((stamp(), WORDS, None, {"a": None})),
        joined((stamp(), WORDS, None, {"a": ROW})),
        joined((stamp(), WORDS, None, {"a": ROW}), ["no code"]),
        joined((stamp(), WORDS, None, {"a": ROW}), 7),
        bytes(prepared.MAX_SIZE + 1),
    ],
)
def test_damaged_data_mean_an_ordinary_start(data):
    assert not taken(data)
    assert not was_used()


def test_every_torn_end_means_an_ordinary_start(package):
    data = made()
    assert not any(taken(data[:size]) for size in range(0, len(data), 37))


@pytest.mark.parametrize("value", ["", "x", "-1", "1" * 30, "1000000"])
def test_variable_that_names_no_descriptor_is_taken_out_and_ignored(value):
    environ = {VARIABLE: value, "OTHER": "1"}
    assert not take_over(environ)
    assert environ == {"OTHER": "1"}


@pytest.mark.parametrize(
    "line",
    [
        "",
        "-name x -uuid 00000000-0000-0000-0000-000000000001 -icount 3 -smp 2 -no-reboot -rtc base=localtime",
        "-drive if=none,id=d,file=/d,format=raw,throttling.bps-total=9 -device virtio-blk-device,drive=d",
        "-netdev tap,id=n,ifname=t -device virtio-net-device,netdev=n -child name=c,command=true",
        "-device virtio-serial-device -chardev null,id=c -device virtconsole,chardev=c -sandbox on",
    ],
)
def test_configuration_that_went_through_plain_values_is_the_same(line):
    config = parse(line.split())
    again = from_plain(loads(dumps(to_plain(config))))
    assert again == config
    assert again.warnings == config.warnings


@pytest.mark.parametrize("plain", [None, 7, [], {}, {None: "Config"}, {None: "os"}])
def test_plain_values_that_are_no_configuration_are_refused(plain):
    with pytest.raises((KeyError, TypeError, AttributeError)):
        from_plain(plain)
