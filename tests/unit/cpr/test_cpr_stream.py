"""The stream: what is written is read, in turns; torn and damaged ones are refused and named."""

import os
from struct import pack
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.cpr import writer as writer_module
from instar.cpr.encoding import encode
from instar.cpr.errors import CprError, StateCorruptError, StateInvalidError, StateTooNewError
from instar.cpr.manifest import read_manifest
from instar.cpr.stream import PAGE, Reader
from instar.cpr.writer import Writer, data_extents

MIB = 1 << 20


@pytest.fixture
def file():
    fd = os.memfd_create("stream")
    yield fd
    os.close(fd)


def written(fd, records=(), memories=(), offset=0):
    writer = Writer(fd, offset=offset, program="1.2", mode="cpr-exec", info={"config": [1]})
    for name, record in records:
        writer.add(name, f"state-{name}", 3, record)
    for name, data in memories:
        writer.add_bulk(name, memoryview(data))
    writer.finish()
    return writer


def content(fd):
    return os.pread(fd, 1 << 26, 0)


def test_manifest_is_there_after_the_constructor(file):
    written(file, [("plic", {"a": 1}), ("uart0", {"b": 2})], [("ram0", bytes(PAGE))])
    manifest = Reader(file).manifest
    assert (manifest.program, manifest.mode, manifest.info) == ("1.2", "cpr-exec", {"config": [1]})
    assert [(s.id, s.state, s.version, s.offset) for s in manifest.objects.values()] == [
        ("plic", "state-plic", 3, 0),
        ("uart0", "state-uart0", 3, len(encode({"a": 1}))),
    ]
    assert [(b.name, b.size) for b in manifest.bulk.values()] == [("ram0", PAGE)]


def test_manifest_costs_one_read(file, monkeypatch):
    written(file, [("plic", {"a": 1})])
    reads = []
    plain = os.pread
    monkeypatch.setattr(os, "pread", lambda *args: reads.append(args) or plain(*args))
    assert Reader(file).record("plic") == {"a": 1}
    assert len(reads) == 1


@settings(max_examples=25)
@given(
    st.dictionaries(
        st.text(st.characters(codec="ascii", categories=["L"]), min_size=1, max_size=8),
        st.dictionaries(st.text(max_size=4), st.integers(0, 9) | st.binary(max_size=300)),
        max_size=6,
    ),
    st.integers(0, 5000),
)
def test_read_what_was_written_gives_the_records(records, offset):
    fd = os.memfd_create("stream")
    try:
        written(fd, records.items(), offset=offset)
        reader = Reader(fd, offset=offset)
        assert {name: reader.record(name) for name in records} == records
        reader.finish()
    finally:
        os.close(fd)


pages = st.lists(st.sampled_from([b"\0", b"\0", b"x", b"yz"]), max_size=12)


@settings(max_examples=25)
@given(pages, st.integers(0, 300), st.integers(1, 5 * PAGE))
def test_bulk_in_turns_of_any_size_gives_the_memory(kinds, tail, budget):
    memory = b"".join(kind.ljust(PAGE, b"\0") for kind in kinds) + b"t" * tail
    fd = os.memfd_create("stream")
    try:
        writer = Writer(fd, program="1", mode="normal")
        writer.add_bulk("ram0", memoryview(memory))
        while not writer.step(budget):
            pass
        target = bytearray(len(memory))
        reader = Reader(fd)
        reader.load_bulk({"ram0": memoryview(target)})
        while not reader.step(budget):
            pass
        assert target == memory
    finally:
        os.close(fd)


def test_bulk_of_zeros_is_not_written(file):
    writer = written(file, memories=[("ram0", bytes(3 * MIB))])
    assert writer.written == os.fstat(file).st_size < 300


def test_bulk_longer_than_a_chunk_with_holes_gives_the_memory(file):
    memory = bytearray(3 * MIB + 5)
    memory[10] = memory[MIB + PAGE] = memory[2 * MIB] = memory[-1] = 7
    written(file, memories=[("ram0", memory), ("rom", b"r" * 10)])
    ram, rom = bytearray(len(memory)), bytearray(10)
    reader = Reader(file)
    reader.load_bulk({"ram0": memoryview(ram), "rom": memoryview(rom)})
    reader.finish()
    assert (ram, rom) == (memory, b"r" * 10)


def test_bulk_extents_leave_the_rest_untouched(file):
    memory = bytearray(b"x" * 4 * PAGE)
    writer = Writer(file, program="1", mode="normal")
    writer.add_bulk("ram0", memoryview(memory), [(PAGE, PAGE)])
    writer.finish()
    target = bytearray(4 * PAGE)
    reader = Reader(file)
    reader.load_bulk({"ram0": memoryview(target)})
    reader.finish()
    assert target == bytes(PAGE) + b"x" * PAGE + bytes(2 * PAGE)


def test_data_extents_are_what_is_not_a_hole(file):
    os.ftruncate(file, 1 << 30)
    os.pwrite(file, b"x", 5 * PAGE)
    assert list(data_extents(file, 1 << 30)) == [(5 * PAGE, PAGE)]
    assert list(data_extents(file, 5 * PAGE)) == []
    assert list(data_extents(file, 5 * PAGE + 10)) == [(5 * PAGE, 10)]


def test_step_writes_about_the_budget(file):
    writer = Writer(file, program="1", mode="normal")
    writer.add_bulk("ram0", memoryview(b"x" * (8 * MIB)))
    assert not writer.step(2 * MIB)
    assert 2 * MIB <= writer.written < 4 * MIB


def test_write_to_pipe_that_is_full_ends_the_turn_and_goes_on():
    source, sink = os.pipe()
    try:
        os.set_blocking(sink, False)
        writer = Writer(sink, program="1", mode="normal")
        writer.add_bulk("ram0", memoryview(b"x" * MIB))
        assert not writer.step(4 * MIB)
        got = os.read(source, 1 << 22)
        assert len(got) == writer.written < MIB
        while not writer.step(MIB):
            got += os.read(source, 1 << 22)
        assert b"x" * MIB in got + os.read(source, 1 << 22)
    finally:
        os.close(source)
        os.close(sink)


def test_read_from_pipe_needs_no_seeking():
    source, sink = os.pipe()
    try:
        written(sink, [("plic", {"a": 1})], [("ram0", b"r" * 100)])
        reader = Reader(source)
        target = bytearray(100)
        reader.load_bulk({"ram0": memoryview(target)})
        reader.finish()
        assert (target, reader.record("plic")) == (b"r" * 100, {"a": 1})
    finally:
        os.close(source)
        os.close(sink)


def test_offset_in_pipe_is_refused():
    source, sink = os.pipe()
    try:
        with pytest.raises(StateInvalidError, match="cannot seek"):
            Writer(sink, offset=1, program="1", mode="normal")
    finally:
        os.close(source)
        os.close(sink)


# ---------------------------------------------------------------- what a writer refuses


def test_add_id_twice_is_refused(file):
    writer = Writer(file, program="1", mode="normal")
    writer.add("a", "s", 1, {})
    with pytest.raises(StateInvalidError, match="taken"):
        writer.add("a", "s", 1, {})


@pytest.mark.parametrize("name", ["", "x" * 256])
def test_add_name_out_of_range_is_refused(file, name):
    with pytest.raises(StateInvalidError):
        Writer(file, program="1", mode="normal").add_bulk(name, memoryview(b""))


def test_add_beyond_the_limits_is_refused(file, monkeypatch):
    monkeypatch.setattr(writer_module, "MAX_SECTIONS", 10)
    with pytest.raises(StateInvalidError, match="the stream is full"):
        Writer(file, program="1", mode="normal").add("a", "s", 1, {"x": b"0123456789"})


def test_manifest_beyond_its_limit_is_refused(file, monkeypatch):
    monkeypatch.setattr(writer_module, "MAX_MANIFEST", 10)
    with pytest.raises(StateInvalidError, match="manifest: "):
        Writer(file, program="1", mode="normal").finish()


def test_add_after_the_manifest_was_written_is_a_type_error(file):
    writer = written(file)
    with pytest.raises(TypeError, match="already written"):
        writer.add("late", "s", 1, {})


def test_write_error_passes_through():
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        with pytest.raises(OSError, match="No space left"):
            written(full)
    finally:
        os.close(full)


# ---------------------------------------------------------------- what a reader refuses


def read_all(fd):
    reader = Reader(fd)
    for name in reader.manifest.objects:
        reader.record(name)
    reader.load_bulk(
        {b.name: memoryview(bytearray(b.size)) for b in reader.manifest.bulk.values()}
    )
    reader.finish()


@settings(max_examples=60)
@given(st.data())
def test_read_torn_stream_is_refused_wherever_it_ends(data):
    fd = os.memfd_create("stream")
    try:
        written(fd, [("plic", {"a": 1}), ("uart", {"b": b"x" * 50})], [("ram0", b"x" * 100)])
        os.ftruncate(fd, data.draw(st.integers(0, os.fstat(fd).st_size - 1)))
        with pytest.raises(StateCorruptError, match="torn"):
            read_all(fd)
    finally:
        os.close(fd)


@settings(max_examples=100)
@given(st.data())
def test_read_stream_with_one_wrong_byte_is_refused(data):
    fd = os.memfd_create("stream")
    try:
        written(fd, [("plic", {"a": 1}), ("uart", {"b": b"x" * 50})], [("ram0", b"x" * 100)])
        whole = content(fd)
        at = data.draw(st.integers(0, len(whole) - 1))
        os.pwrite(fd, bytes([whole[at] ^ data.draw(st.integers(1, 255))]), at)
        with pytest.raises(CprError):
            read_all(fd)
    finally:
        os.close(fd)


def test_read_damaged_section_names_it(file):
    written(file, [("plic", {"a": 1}), ("uart0", {"b": 2})])
    whole = bytearray(content(file))
    whole[whole.rindex(encode({"b": 2})) + 3] ^= 1
    os.pwrite(file, whole, 0)
    reader = Reader(file)
    assert reader.record("plic") == {"a": 1}
    with pytest.raises(StateCorruptError, match="section uart0: checksum"):
        reader.record("uart0")


def test_read_unknown_object_is_refused(file):
    written(file)
    with pytest.raises(StateCorruptError, match="section nope: is not in the stream"):
        Reader(file).record("nope")


def test_read_section_that_is_no_record_is_refused(file):
    writer = Writer(file, program="1", mode="normal")
    writer.add("odd", "s", 1, [1])  # type: ignore[arg-type]
    writer.finish()
    with pytest.raises(StateCorruptError, match="section odd: is not a record"):
        Reader(file).record("odd")


def test_read_something_else_shows_its_magic(file):
    os.write(file, b"QEVM" + bytes(100))
    with pytest.raises(StateCorruptError, match="bad magic 5145564d00000000"):
        Reader(file)


def test_read_format_from_the_future_says_both(file):
    os.write(file, pack("<8sIII", b"\x89INSTAR\n", 2, 0, 0))
    with pytest.raises(StateTooNewError, match="stream format 2, this program reads 1"):
        Reader(file)


def test_read_huge_manifest_is_refused_before_reading(file):
    os.write(file, pack("<8sIII", b"\x89INSTAR\n", 1, 1 << 31, 0))
    with pytest.raises(StateCorruptError, match="manifest: 2147483648 bytes, limit"):
        Reader(file)


@pytest.mark.parametrize("views", [{}, {"ram0": 8}, {"ram0": 9, "more": 1}, {"other": 9}])
def test_load_bulk_into_other_memories_is_refused(file, views):
    written(file, memories=[("ram0", bytes(9))])
    with pytest.raises(StateInvalidError, match="memory: stream has"):
        Reader(file).load_bulk({name: memoryview(bytearray(n)) for name, n in views.items()})


def test_step_without_memories_needs_no_load_bulk(file):
    written(file, [("plic", {})])
    assert Reader(file).step(1)


@pytest.mark.parametrize(
    ("number", "length", "start", "why"),
    [
        (1, 1, 0, "out of range"),
        (0, 0, 0, "out of range"),
        (0, MIB + 1, 0, "out of range"),
        (0, 4, 7, "outside the memory"),
        (0, 4, 1 << 63, "outside the memory"),
        (0xFFFFFFFF, 0, 5, "5 chunks announced, 0 read"),
    ],
)
def test_read_hostile_chunk_is_refused(file, number, length, start, why):
    written(file, memories=[("ram0", bytes(10))])
    end = os.fstat(file).st_size - 20
    os.pwrite(file, pack("<IIQI", number, length, start, crc32(b"abcd")) + b"abcd", end)
    with pytest.raises(StateCorruptError, match=why):
        read_all(file)


OBJECT = {"id": "a", "state": "s", "version": 1, "offset": 0, "length": 0, "crc": 0}
GOOD = {"program": "1", "mode": "m", "info": {}, "objects": [OBJECT], "bulk": []}


@pytest.mark.parametrize(
    "change",
    [
        {"extra": 1},
        {"program": 1},
        {"mode": "m" * 256},
        {"info": []},
        {"objects": {}},
        {"objects": [1]},
        {"objects": [OBJECT, OBJECT]},
        {"objects": [OBJECT] * 65537},
        {"objects": [{**OBJECT, "offset": 1}]},
        {"objects": [{**OBJECT, "length": -1}]},
        {"objects": [{**OBJECT, "version": True}]},
        {"objects": [{**OBJECT, "id": "a\x1b[2J"}]},
        {"objects": [{**OBJECT, "inner": []}]},
        {"objects": [{**OBJECT, "inner": {"s": "1"}}]},
        {"objects": [{**OBJECT, "inner": {str(n): 1 for n in range(257)}}]},
        {
            "objects": [
                {**OBJECT, "length": 1 << 28},
                {**OBJECT, "id": "b", "offset": 1 << 28, "length": 1},
            ]
        },
        {"bulk": [{"name": "r", "size": 1 << 64}]},
        {"bulk": [{"name": "r", "size": 1}] * 2},
    ],
)
def test_manifest_malformed_is_refused(change):
    with pytest.raises(StateCorruptError, match=r"^manifest"):
        read_manifest({**GOOD, **change})


def test_manifest_that_is_no_record_is_refused():
    with pytest.raises(StateCorruptError):
        read_manifest([])
