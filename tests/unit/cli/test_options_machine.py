"""Machine, boot and process options: topology, memory, clocks, names, incoming."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.cli.options import Config, IcountConfig, RtcConfig, SmpConfig, parse, to_argv
from instar.cli.options.config import AccelConfig
from instar.cli.options.resolve import format_date, parse_date
from instar.errors import ConfigError


def config(*argv: str) -> Config:
    result = parse(argv)
    assert isinstance(result, Config)
    return result


def smp(text: str) -> list[int]:
    made: SmpConfig = config("-smp", text).smp
    return [made.cpus, made.maxcpus, made.sockets, made.cores, made.threads]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4", [4, 4, 1, 4, 1]),
        ("cpus=4", [4, 4, 1, 4, 1]),
        ("4,sockets=2", [4, 4, 2, 2, 1]),
        ("4,threads=2", [4, 4, 1, 2, 2]),
        ("sockets=2,cores=2,threads=2", [8, 8, 2, 2, 2]),
        ("2,maxcpus=4", [2, 4, 1, 4, 1]),
        ("cores=3", [3, 3, 1, 3, 1]),
    ],
)
def test_smp_with_parts_of_a_topology_completes_it(text: str, expected: list[int]) -> None:
    assert smp(text) == expected


@pytest.mark.parametrize(
    "text", ["3,cores=2", "4,maxcpus=2", "sockets=8,cores=8", "1,sockets=2", "0", "-1", "4.0"]
)
def test_smp_with_a_contradiction_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^-smp"):
        parse(["-smp", text])


def smp_or_one(text: str) -> list[int]:
    try:
        return smp(text)
    except ConfigError:
        return [1, 1, 1, 1, 1]


@settings(max_examples=100)
@given(
    st.dictionaries(
        st.sampled_from(["cpus", "maxcpus", "sockets", "cores", "threads"]), st.integers(1, 8)
    )
)
def test_smp_of_any_numbers_is_consistent_or_refused(numbers: dict[str, int]) -> None:
    text = ",".join(f"{key}={number}" for key, number in numbers.items())
    cpus, maxcpus, sockets, cores, threads = smp_or_one(text)
    assert sockets * cores * threads == maxcpus
    assert 1 <= cpus <= maxcpus <= 8


def test_memory_of_a_named_backend_is_its_size() -> None:
    made = config(
        "-object", "memory-backend-memfd,id=ram0,size=1G", "-machine", "memory-backend=ram0"
    )
    backend = made.memory_backends[0]
    assert (made.memory_size, backend.size, backend.kind) == (1 << 30, 1 << 30, "memfd")


@pytest.mark.parametrize(
    ("kind", "share"), [("memfd", True), ("ram", False), ("file,mem-path=/x", False)]
)
def test_memory_backend_without_share_has_its_kinds_default(kind: str, share: bool) -> None:
    made = config("-object", f"memory-backend-{kind},id=r,size=4k")
    assert made.memory_backends[0].share is share


def test_memory_of_another_size_than_the_backend_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"-m says 536870912 bytes .512 MiB., but memory backend 'r'"
    ):
        parse(
            ["-object", "memory-backend-ram,id=r,size=1G", "-M", "memory-backend=r", "-m", "512"]
        )


@pytest.mark.parametrize(
    "argv",
    [
        ["-M", "memory-backend=r"],
        ["-object", "rng-builtin,id=r", "-M", "memory-backend=r"],
        ["-m", "1048577b"],
        ["-object", "memory-backend-ram,id=r,size=5000"],
        ["-object", "memory-backend-file,id=r,size=4k"],
        ["-object", "memory-backend-ram,id=r,size=4k", "-object", "rng-builtin,id=r"],
    ],
)
def test_memory_that_cannot_be_is_refused(argv: list[str]) -> None:
    with pytest.raises(ConfigError):
        parse(argv)


def test_memory_backend_that_nobody_names_is_a_warning() -> None:
    assert config("-object", "memory-backend-ram,id=r,size=4k").warnings == [
        "memory backend 'r' is used by nothing"
    ]


@pytest.mark.parametrize(("text", "shift"), [("0", 0), ("shift=10", 10), ("auto", 3)])
def test_icount_shift_is_fixed(text: str, shift: int) -> None:
    assert config("-icount", text).icount == IcountConfig(shift=shift)


@pytest.mark.parametrize("text", ["11", "sleep=off", "shift=1,align=on", "-1"])
def test_icount_with_what_is_not_offered_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^-icount"):
        parse(["-icount", text])


def test_rtc_with_a_date_starts_there() -> None:
    assert config("-rtc", "base=2000-02-29T12:00:01,clock=vm").rtc == RtcConfig(
        base="fixed", start=951825601, clock="vm"
    )


@pytest.mark.parametrize("base", ["utc", "localtime"])
def test_rtc_with_a_name_keeps_it(base: str) -> None:
    assert config("-rtc", f"base={base}").rtc.base == base


@pytest.mark.parametrize(
    "text",
    ["2023-02-29", "2023-13-01", "1969-12-31", "2023-1-1", "20230101", "2023-01-01T24:00:00", "2023-01-01T1",
     "0000-00-00", "now", "²023-01-01", "2023:01:01"],
)  # fmt: skip
def test_rtc_with_a_date_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^-rtc"):
        parse(["-rtc", f"base={text}"])


@settings(max_examples=100)
@given(st.integers(0, 253402300799))
def test_parse_date_of_a_formatted_date_gives_it_back(seconds: int) -> None:
    assert parse_date(format_date(seconds)) == seconds


def test_uuid_in_capitals_becomes_lower_case() -> None:
    text = "12345678-9ABC-DEF0-1234-56789ABCDEF0"
    assert config("-uuid", text).uuid == text.lower()


@pytest.mark.parametrize("text", ["", "1234", "12345678-9abc-def0-1234-56789abcdefg", "-" * 36])
def test_uuid_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^-uuid"):
        parse(["-uuid", text])


@pytest.mark.parametrize(("text", "seed"), [("0", 0), ("0xffffffffffffffff", (1 << 64) - 1)])
def test_seed_in_64_bits_is_taken(text: str, seed: int) -> None:
    assert config("-seed", text).seed == seed


@pytest.mark.parametrize("text", ["-1", "0x10000000000000000", "x", ""])
def test_seed_outside_64_bits_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^-seed"):
        parse(["-seed", text])


def test_name_with_a_comma_and_a_process_name_gives_both() -> None:
    made = config("-name", "web,,1,process=web1")
    assert (made.name, made.process_name) == ("web,1", "web1")


def test_name_of_a_process_longer_than_the_kernel_keeps_is_refused() -> None:
    with pytest.raises(ConfigError, match="1 to 15 bytes"):
        parse(["-name", "process=" + "x" * 16])


def test_switches_are_all_read() -> None:
    line = (
        "-S -no-reboot -no-shutdown -pidfile /p -nographic -no-user-config -display none "
        "-accel tcg,thread=single -cpu rv64,sstc=off,x-flush-everything=on"
    )
    made = config(*line.split())
    assert made.start_paused
    assert made.no_reboot
    assert made.no_shutdown
    assert (made.pidfile, made.accel) == ("/p", AccelConfig(kind="interpreter"))
    assert (made.cpu.sstc, made.cpu.flush_everything) == (False, True)


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["-append", "x"], "-append is only allowed with -kernel"),
        (["-initrd", "x"], "-initrd is only allowed with -kernel"),
        (["-kernel", ""], "-kernel needs the name of a file"),
        (["-pidfile", ""], "-pidfile needs the name of a file"),
        (["-display", "gtk"], "there is no display; only none is allowed"),
        (["-accel", "xen"], "allowed is interpreter, tcg or kvm"),
        (["-accel", "tcg,thread=multi"], "allowed is single"),
    ],
)
def test_boot_and_process_options_with_a_mistake_are_refused(argv: list[str], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        parse(argv)


@pytest.mark.parametrize(
    ("word", "uri"),
    [
        ("defer", "defer"),
        ("memfd:", "memfd:"),
        ("file:vm.state", "file:vm.state"),
        ("file:a,b", "file:a,b"),
        ("file:a,offset=1M", "file:a,offset=1048576"),
        ("file:a,offset=0", "file:a"),
        ("main,addr.transport=file,addr.filename=a,,b,addr.offset=0x10", "file:a,b,offset=16"),
        ("channel-type=main,addr.transport=file,addr.filename=a", "file:a"),
        ("main,addr.transport=memfd", "memfd:"),
        ('{"channel-type":"main","addr":{"transport":"file","filename":"a","offset":4}}', "file:a,offset=4"),
    ],
)  # fmt: skip
def test_incoming_in_every_form_gives_the_uri(word: str, uri: str) -> None:
    assert config("-incoming", word).incoming == uri


CPR = "cpr,addr.transport=socket,addr.type=unix,addr.path=/c"


@pytest.mark.parametrize(
    ("word", "uri"),
    [
        ("unix:/m", "unix:/m"),
        ("tcp:0:4444", "tcp:0:4444"),
        ("tcp::4444", "tcp:localhost:4444"),
        ("main,addr.transport=socket,addr.type=unix,addr.path=/m", "unix:/m"),
        ("main,addr.transport=socket,addr.type=inet,addr.host=h,addr.port=1", "tcp:h:1"),
        ("defer", "defer"),
    ],
)
def test_incoming_with_a_cpr_channel_gives_both(word: str, uri: str) -> None:
    made = config("-incoming", CPR, "-incoming", word)
    assert (made.incoming, made.incoming_cpr) == (uri, "/c")


def test_incoming_given_twice_takes_the_last() -> None:
    assert config("-incoming", "defer", "-incoming", "file:x").incoming == "file:x"


@pytest.mark.parametrize(
    "word",
    [
        "",
        "bogus:1",
        "file:",
        "file:,offset=1",
        "file:a,offset=x",
        "cpr,addr.transport=socket,addr.type=unix,addr.path=/s",  # a main channel is missing
        "cpr,addr.transport=socket,addr.type=inet,addr.host=h,addr.port=1",
        "cpr,addr.transport=file,addr.filename=a",
        "unix:/main",  # a cpr channel is missing
        "tcp:0:0",
        "unix:",
        "unix:" + "x" * 108,
        "main,addr.transport=socket,addr.type=unix",
        "main,addr.transport=socket,addr.type=unix,addr.path=a,addr.port=1",
        "main,addr.transport=file",
        "main,addr.transport=memfd,addr.filename=a",
        "main,addr.transport=memfd,addr.offset=1",
        "main,addr.transport=file,addr.filename=",
        "main,addr.transport=file,addr.filename=a,,offset=3",
        "main,addr.transport=file,addr.filename=a,addr.mode=1",
        '{"channel-type":"main","addr":{"transport":"file","filename":"a","offset":true}}',
        '{"channel-type":"main","addr":{"transport":"file","filename":"a","offset":-1}}',
    ],
)
def test_incoming_from_what_is_not_offered_is_refused(word: str) -> None:
    with pytest.raises(ConfigError, match=r"^-incoming"):
        parse(["-incoming", word])


def test_add_fd_lists_inherited_descriptors_and_is_written_out_again():
    config = parse(["-add-fd", "fd=5,set=2,opaque=a,,b", "-add-fd", "set=2,fd=7"])
    wishes = [(wish.fd, wish.set, wish.opaque) for wish in config.add_fds]
    assert wishes == [(5, 2, "a,b"), (7, 2, "")]
    assert parse(to_argv(config)).add_fds == config.add_fds
