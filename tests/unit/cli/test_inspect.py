"""A state file of any kind and in any condition is printed, or refused by name."""

import io
import json
import os
import re
from pathlib import Path
from struct import pack
from zlib import crc32

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.console import Console

from instar._version import VERSION
from instar.cli import inspect_rich, inspect_text
from instar.cli.inspect import report_on, verdict
from instar.cli.tool import main
from instar.cpr.carriers import ExecCarrier
from instar.cpr.encoding import encode
from instar.cpr.fds import Fds
from instar.cpr.state import APART, registry, save
from instar.cpr.target import Target
from instar.cpr.writer import Writer
from instar.devices.plic.state import PlicState
from instar.devices.virtio_mmio.state import VirtioMmioState
from instar.errors import ConfigError, HostError
from instar.migration.parameters import SettingsState
from instar.virtio.state import QueueState

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "reference" / "inspect.md").read_text()
PLIC = save(PlicState(contexts=3))
MMIO = save(VirtioMmioState(queues=[QueueState(size=8), QueueState(in_flight=[])]))


@pytest.fixture
def file():
    fd = os.memfd_create("state")
    yield fd
    os.close(fd)


def put(fd, objects=(), memories=(), program="0.9"):
    """Write a stream; objects are (id, state, version, record, versions inside)."""
    os.ftruncate(fd, 0)
    writer = Writer(fd, program=program, mode="cpr-exec")
    for ident, name, version, record, inner in objects:
        writer.add(ident, name, version, record, inner)
    for name, data in memories:
        writer.add_bulk(name, memoryview(data))
    writer.finish()


def look(fd, **options):
    return report_on(f"fd:{fd}", **options)


def tool(capsys, *words):
    status = main(["inspect", *words])
    said = capsys.readouterr()
    return status, said.out, said.err


def whole(fd):
    put(
        fd,
        [
            ("plic", "plic", 1, PLIC, {}),
            ("virtio-mmio/0", "virtio-mmio", 1, MMIO, {"virtqueue": 1}),
        ],
        [("ram0", bytearray(b"x" * 5000))],
    )


def fields(report, ident):
    (made,) = (made for made in report["objects"] if made["id"] == ident)
    return {field["name"]: field for field in made["fields"]}


# ---------------------------------------------------------------- a whole file


def test_whole_stream_is_shown_with_what_the_declarations_say(file):
    whole(file)
    report = look(file)
    assert verdict(report) is None
    assert (report["kind"], report["program"], report["mode"]) == ("stream", "0.9", "cpr-exec")
    assert report["memory"] == [{"name": "ram0", "size": 5000}]
    assert fields(report, "plic")["contexts"] == {
        "name": "contexts",
        "value": 3,
        "kind": "u8",
        "unit": "",
        "doc": PlicState.state_fields["contexts"].doc,
        "known": True,
        "optional": False,
    }
    queues = fields(report, "virtio-mmio/0")["queues"]["value"]
    assert [(q["state"], q["version"], q["fields"][0]["value"]) for q in queues] == [
        ("virtqueue", 1, 8),
        ("virtqueue", 1, 0),
    ]


def test_every_declared_state_is_known_to_the_tool():
    lock = json.loads((ROOT / "tests" / "golden" / "state.lock").read_text())
    assert set(lock) - set(registry()) == set()


def test_command_prints_plain_text_in_a_pipe(file, capsys):
    whole(file)
    status, out, err = tool(capsys, f"fd:{file}")
    assert (status, err) == (0, "")
    assert f"fd:{file}: state, format 1, written by Instar 0.9 in mode cpr-exec; 2 objects" in out
    assert re.search(r"^plic: plic v1, \d+ bytes, checksum ok$", out, re.MULTILINE)
    assert re.search(r"^  queues\[0\]\.size +8 +Descriptors,", out, re.MULTILINE)
    assert "\x1b" not in out


def test_command_prints_one_line_of_json(file, capsys):
    whole(file)
    status, out, _ = tool(capsys, f"fd:{file}", "--json", "--object", "plic")
    found = json.loads(out)
    assert (status, found["exit-status"], out.count("\n")) == (0, 0, 1)
    assert [made["id"] for made in found["objects"]] == ["plic"]


def test_json_has_the_documented_keys_and_no_others(file, capsys):
    whole(file)
    found = json.loads(tool(capsys, f"fd:{file}", "--json")[1])
    made = found["objects"][0]
    documented = set(re.findall(r"^\| `([\w-]+)` \|", PAGE, re.MULTILINE))
    assert documented == set(found) | set(made) | set(made["fields"][0])


def test_stream_from_a_pipe_is_read_as_one_from_a_file(file):
    whole(file)
    reading, writing = os.pipe()
    os.write(writing, os.pread(file, 1 << 16, 0))
    os.close(writing)
    report = look(reading)
    os.close(reading)
    assert {**report, "file": ""} == {**look(file), "file": ""}


def test_stream_at_an_offset_is_found_there(file):
    whole(file)
    data = os.pread(file, 1 << 16, 0)
    os.pwrite(file, b"?" * 100 + data, 0)
    assert verdict(look(file, offset=100)) is None
    assert verdict(look(file)).exit_status == 4


def test_descriptors_among_the_fields_are_no_fault(file):
    put(
        file, [("x", "migration-settings", SettingsState.state_version, save(SettingsState()), {})]
    )
    assert verdict(look(file)) is None


def test_terminal_view_says_the_same(file):
    whole(file)
    out = Console(file=io.StringIO(), width=200, force_terminal=False)
    inspect_rich.show(look(file), out)
    text = out.file.getvalue()
    assert "queues[0].size" in text
    assert "virtio-mmio/0: virtio-mmio v1" in text


# ---------------------------------------------------------------- another version's file


def test_state_of_a_later_version_is_shown_raw_with_who_reads_it(file, capsys):
    put(
        file,
        [("plic", "plic", 9, {"glow": 5}, {}), ("uart0", "uart16550", 1, {}, {})],
        program="1.5",
    )
    status, out, err = tool(capsys, f"fd:{file}", "--object", "plic")
    assert status == 5
    assert "glow  5                     (this program does not know it)" in out
    assert err == (
        f"instar: fd:{file}: object plic: state plic is v9, this program ({VERSION}) reads v1 to v1; "
        "version 1.5, which wrote it, or a later one is needed\n"
    )
    (made,) = look(file, only="plic")["objects"]
    assert made["needs"] == {"state": "plic", "version": 9, "program": "1.5"}
    assert (made["reads"], made["checksum"]) == (False, "ok")


def test_state_inside_of_a_later_version_is_named(file):
    record = {**MMIO, "queues": [{"version": 2, "fields": {"x": 1}}]}
    put(file, [("slot", "virtio-mmio", 1, record, {"virtqueue": 2})])
    report = look(file)
    assert report["objects"][0]["needs"] == {"state": "virtqueue", "version": 2, "program": "0.9"}
    (queue,) = fields(report, "slot")["queues"]["value"]
    assert [(f["name"], f["known"]) for f in queue["fields"]] == [("x", False)]
    put(file, [("slot", "virtio-mmio", 1, record, {})])
    assert verdict(look(file)).exit_status == 5


def test_unknown_state_is_shown_raw(file):
    put(file, [("lamp", "lamp", 1, {"on": True, "data": b"\x01", "list": [1]}, {})])
    report = look(file)
    assert verdict(report).exit_status == 5
    assert [f["value"] for f in report["objects"][0]["fields"]] == [True, {"hex": "01"}, [1]]


def test_unknown_optional_field_is_read_and_reported(file):
    put(file, [("plic", "plic", 1, {**PLIC, APART: {"glow": 5}}, {})])
    report = look(file)
    assert verdict(report) is None
    assert report["objects"][0]["kept"] == ["glow"]
    assert fields(report, "plic")["glow"]["optional"]
    assert "keeps glow for a newer version" in "\n".join(inspect_text.lines(report))


def test_stream_of_another_format_needs_another_version(file):
    whole(file)
    os.pwrite(file, pack("<I", 2), 8)
    error = verdict(look(file))
    assert (error.exit_status, "stream format 2" in str(error)) == (5, True)


# ---------------------------------------------------------------- a damaged file


def test_damaged_object_is_named_and_the_others_are_shown(file, capsys):
    put(file, [("a", "plic", 1, PLIC, {}), ("b", "plic", 1, PLIC, {})])
    end = os.fstat(file).st_size - 20
    os.pwrite(file, b"\xff", end - 1)
    status, out, err = tool(capsys, f"fd:{file}")
    assert status == 4
    assert err.startswith(f"instar: fd:{file}: section b: checksum 0x")
    assert "b: plic v1" in out
    assert "  contexts   3" in out
    assert [made["checksum"] for made in look(file)["objects"]] == ["ok", "damaged"]


def test_torn_file_says_which_objects_are_missing(file):
    put(file, [(name, "plic", 1, PLIC, {}) for name in "abc"])
    os.ftruncate(file, os.fstat(file).st_size - 20 - len(encode(PLIC)) - 5)
    report = look(file)
    assert [made["checksum"] for made in report["objects"]] == ["ok", "missing", "missing"]
    assert [text.partition(",")[0] for text in report["damage"]] == [
        "section b: torn",
        "section c: torn",
    ]


def test_damaged_memory_is_found(file):
    put(file, [], [("ram0", bytearray(b"x" * 5000))])
    os.pwrite(file, b"y", os.fstat(file).st_size - 100)
    assert "chunk 0: checksum" in str(verdict(look(file)))


def test_impossible_value_is_damage_that_names_the_path(file):
    put(file, [("plic", "plic", 1, {**PLIC, "contexts": 256}, {})])
    error = verdict(look(file))
    assert (error.exit_status, "object plic: plic.contexts: 256 is not u8" in str(error)) == (
        4,
        True,
    )


@pytest.mark.parametrize("content", [b"", b"\x89INST", b"\x7fELF" * 9, b"INSTARFD", bytes(100)])
def test_file_that_is_no_state_is_refused(file, content, capsys):
    os.write(file, content)
    status, out, err = tool(capsys, f"fd:{file}")
    assert (status, out) == (4, "")
    assert err.count("\n") == 1


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_damage_to_a_stream_is_reported_and_never_raised(data):
    fd = os.memfd_create("state")
    try:
        whole(fd)
        size = os.fstat(fd).st_size
        for at in data.draw(st.lists(st.integers(0, size - 1), min_size=1, max_size=4)):
            os.pwrite(fd, data.draw(st.binary(min_size=1, max_size=9)), at)
        os.ftruncate(fd, data.draw(st.integers(0, size + 5)))
        report = look(fd)
        assert "\x1b" not in "\n".join(inspect_text.lines(report))
        json.dumps(report)
    finally:
        os.close(fd)


values = st.recursive(
    st.integers(-(1 << 63), (1 << 64) - 1)
    | st.text(max_size=9)
    | st.binary(max_size=9)
    | st.none()
    | st.booleans(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["version", "fields", "state", "hex", "+", "a"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.sampled_from([*MMIO, "+", "\x1b[2J"]), values), st.sampled_from([1, 2]))
def test_any_record_is_shown_and_nothing_in_it_reaches_the_terminal(record, version):
    fd = os.memfd_create("state")
    try:
        put(fd, [("slot", "virtio-mmio", version, record, {}), ("lamp", "lamp", 1, record, {})])
        report = look(fd)
        assert "\x1b" not in "\n".join(inspect_text.lines(report))
        json.dumps(report)
        inspect_rich.show(report, Console(file=io.StringIO(), width=100))
    finally:
        os.close(fd)


# ---------------------------------------------------------------- a table of descriptors


def host_item(**change):
    record = save(SettingsState(mode="cpr-exec"))
    return {
        "id": "settings",
        "state": "migration-settings",
        "version": SettingsState.state_version,
        "record": record,
        **change,
    }


def frame(value):
    body = encode(value)
    return b"INSTARFD" + pack("<III", 1, len(body), crc32(body)) + body


def test_table_that_a_carrier_wrote_is_shown(file):
    fds = Fds()
    fds.save("disk", 0, file, kind="block", owner="block backends")
    target = Target.open("/bin/sh")
    carrier = ExecCarrier(target, ["sh", "-c", "true"])
    info = {"report": {"old_version": "0.7", "mode": "cpr-exec"}, "host": [host_item()]}
    carrier.save(fds, info)
    report = look(carrier._memfd)
    carrier.drop()
    target.close()
    assert verdict(report) is None
    assert (report["kind"], report["program"], report["mode"]) == ("table", "0.7", "cpr-exec")
    assert [(row["name"], row["owner"]) for row in report["descriptors"]] == [
        ("disk", "block backends")
    ]
    assert fields(report, "settings")["mode"]["value"] == "cpr-exec"
    assert "descriptor disk/0: block of block backends, number" in "\n".join(
        inspect_text.lines(report)
    )


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (frame({})[:-1], "table: torn"),
        (frame({"a": 1})[:-1] + b"\x02", "table: checksum"),
        (frame([]), "table: is not a record"),
        (b"INSTARFD" + pack("<III", 1, 1 << 31, 0), "limit 67108864"),
        (frame({"info": {"host": [host_item(record=7)]}}), "object settings: has no record"),
        (frame({"info": {"host": [7]}}), "object : has no record"),
    ],
)
def test_damaged_table_is_named(file, content, text):
    os.write(file, content)
    assert text in str(verdict(look(file)))


def test_table_of_another_format_needs_another_version(file):
    os.write(file, b"INSTARFD" + pack("<III", 7, 0, 0))
    assert verdict(look(file)).exit_status == 5


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.sampled_from(["fds", "info", "argv"]), values))
@example({"fds": None, "info": {"version": None, "hex": "\x1b"}})
def test_any_table_is_shown_or_refused(record):
    fd = os.memfd_create("state")
    try:
        os.write(fd, frame(record))
        report = look(fd)
        assert "\x1b" not in "\n".join(inspect_text.lines(report))
        inspect_rich.show(report, Console(file=io.StringIO(), width=100))
    finally:
        os.close(fd)


# ---------------------------------------------------------------- what cannot be looked at


def test_object_that_is_not_there_says_which_are(file, capsys):
    whole(file)
    status, _, err = tool(capsys, f"fd:{file}", "--object", "plicc")
    assert status == 2
    assert err.splitlines()[1] == "hint: there are plic, virtio-mmio/0"


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        ("/nonexistent/file", HostError, "cannot open /nonexistent/file: No such file"),
        ("a\0b", HostError, "embedded null byte"),
        ("fd:x", ConfigError, "the number of an open descriptor is needed"),
        ("fd:999999", HostError, "cannot be read: Bad file descriptor"),
        ("/", HostError, "cannot read /: Is a directory"),
        ("/dev/null", HostError, "cannot read /dev/null: it is no file"),
    ],
)
def test_file_that_cannot_be_read_says_why(name, error, text):
    with pytest.raises(error, match=text):
        report_on(name)


def test_pipe_that_nobody_writes_to_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(HostError, match="it is no file"):
        report_on(str(tmp_path / "pipe"))


@pytest.mark.parametrize("word", ["-1", "x", "1" * 30])
def test_offset_that_is_none_is_refused(word, capsys):
    status, _, err = tool(capsys, "fd:0", f"--offset={word}")
    assert (status, "is not a number of bytes" in err) == (2, True)
