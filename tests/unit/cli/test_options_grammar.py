"""The grammar: words, keys, commas, short flags, JSON, repeats, help and refusals."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.cli.options import Config, Request, parse
from instar.cli.options.entries import OPTIONS
from instar.cli.options.grammar import escape_commas, split_commas
from instar.errors import ConfigError


def config(line: str) -> Config:
    result = parse(line.split())
    assert isinstance(result, Config)
    return result


def refusal(argv: list[str]) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(argv)
    assert caught.value.exit_status == 2
    return "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", []),
        ("a", ["a"]),
        ("a,b", ["a", "b"]),
        ("a,,b", ["a,b"]),
        ("a,,,b", ["a,", "b"]),
        ("a,", ["a"]),
        (",a", ["", "a"]),
        (",,", [","]),
        ("a,,,,b,,", ["a,,b,"]),
    ],
)
def test_split_commas_with_doubled_commas_keeps_them_in_the_part(
    text: str, parts: list[str]
) -> None:
    assert split_commas(text) == parts


@given(st.lists(st.text(st.characters(exclude_characters="\0"), min_size=1), min_size=1))
@settings(max_examples=100)
def test_split_commas_of_escaped_parts_beginning_without_comma_gives_them_back(
    parts: list[str],
) -> None:
    named = [f"k={part}" for part in parts]
    assert split_commas(",".join(map(escape_commas, named))) == named


def test_parse_without_words_gives_a_machine_of_defaults() -> None:
    made = config("")
    assert (made.machine.type, made.smp.cpus, made.memory_size) == ("virt", 1, 128 << 20)


def test_parse_with_a_double_dash_takes_it_as_a_single_one() -> None:
    assert config("--m 64") == config("-m 64")


def test_parse_with_an_alias_takes_it_as_the_option() -> None:
    assert config("-M virt,aux-ram-share=on") == config("-machine virt,aux-ram-share=on")


def test_parse_with_a_repeated_key_option_merges_them() -> None:
    made = config(
        "-object memory-backend-ram,id=r,size=1M -machine memory-backend=r -machine aux-ram-share=on"
    )
    assert (made.machine.memory_backend, made.machine.aux_ram_share) == ("r", True)


def test_parse_with_a_required_key_in_a_second_part_accepts_it() -> None:
    made = config("-icount sleep=off -icount shift=2")
    assert made.icount is not None
    assert (made.icount.shift, made.icount.sleep) == (2, False)


def test_parse_with_a_repeated_text_option_takes_the_last() -> None:
    assert config("-kernel a -kernel b").kernel == "b"


def test_parse_with_an_argument_that_looks_like_an_option_takes_it_as_the_argument() -> None:
    assert config("-kernel k -append -S").append == "-S"


@pytest.mark.parametrize("word", ["on", "yes", "true", "y"])
def test_parse_of_a_flag_with_any_word_for_on_sets_it(word: str) -> None:
    assert config(f"-machine aux-ram-share={word}").machine.aux_ram_share


def test_parse_of_short_flags_accepts_them_with_a_warning() -> None:
    made = config("-chardev socket,id=c,path=/s,server,nowait -mon c")
    assert (made.chardevs[0].server, made.chardevs[0].wait) == (True, False)
    assert made.warnings == [
        "-chardev socket: server is a deprecated short form of server=on",
        "-chardev socket: nowait is a deprecated short form of wait=off",
    ]


def test_parse_of_a_json_object_takes_it_as_keys() -> None:
    argv = [
        "-object",
        '{"qom-type": "memory-backend-memfd", "id": "r", "size": 8192, "share": true}',
    ]
    assert parse(argv) == config("-object memory-backend-memfd,id=r,size=8192,share=on")


def test_parse_of_nested_json_takes_it_as_dotted_keys() -> None:
    text = '{"driver": "raw", "node-name": "d", "file": {"driver": "file", "filename": "/a,b"}}'
    assert parse(["-blockdev", text]) == parse(
        ["-blockdev", "driver=raw,node-name=d,file.driver=file,file.filename=/a,,b"]
    )


@pytest.mark.parametrize(
    "text",
    [
        "{",
        '{"driver": "raw", "driver": "raw"}',
        '{"driver": ["raw"]}',
        '{"driver": null}',
        '{"driver": 1.5}',
        '{"driver": "file", "node-name": "a", "filename": "\\u0000"}',
        '{"driver": "file", "node-name": "a", "filename": "\\ud800"}',
        '{"driver": "file", "node-name": "a", "filename": true}',
        '{"a":' * 100 + "1" + "}" * 100,
        '{"a":' * 20000,
        '{"a": ' + "9" * 5000 + "}",
    ],
)
def test_parse_of_bad_json_is_refused_in_one_sentence(text: str) -> None:
    assert refusal(["-blockdev", text]).startswith("-blockdev")


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["-frobnicate"], "unknown option '-frobnicate'"),
        (["-machin", "virt"], "hint: did you mean -machine?"),
        (["disk.img"], "hint: a disk image is given as -drive file=FILE,format=raw"),
        (["--"], "'--' is not an option"),
        (["-kernel"], "-kernel needs an argument: FILE"),
        (["-smp", "9"], "-smp: cpus='9': allowed is a whole number from 1 to 8"),
        (["-machine", "pc"], "-machine: type='pc': allowed is virt"),
        (
            ["-machine", "virt,acpi=off"],
            "-machine has no key 'acpi'; allowed are type, memory-backend",
        ),
        (["-device", "virtio-blk"], "hint: did you mean virtio-blk-device?"),
        (
            ["-device", "id=x"],
            "-device needs driver=, one of ",
        ),
        (["-device", "virtio-blk-device"], "-device virtio-blk-device needs drive="),
        (["-drive", "file=a,cache=none"], "-drive: cache='none': allowed is writeback"),
        (["-drive", "file"], "-drive: file needs a value: a text of 1 to 4095 bytes"),
        (["-object", "rng-builtin,id=1"], "id='1': allowed is a name: a letter, then"),
        (["-object", "rng-builtin,id=" + "a" * 128], "allowed is a name"),
        (["-machine", "aux-ram-share=maybe"], "allowed is on or off"),
        (["-m", "1000b"], "allowed is a size from 1048576 bytes (1 MiB) to"),
        (["-kernel", "a\0b"], "cannot be a word of a command line"),
        (["-kernel", "\ud800"], "cannot be a word of a command line"),
    ],
)
def test_parse_of_a_wrong_option_names_it_and_what_is_allowed(argv: list[str], text: str) -> None:
    assert text in refusal(argv)


@pytest.mark.parametrize(
    ("line", "topic"),
    [
        ("-h", "help"),
        ("--help", "help"),
        ("-m 64 -version", "version"),
        ("-device help", "device"),
        ("-device virtio-blk-device,help", "device"),
        ("-M ?", "machine"),
        ("-chardev help", "chardev"),
    ],
)
def test_parse_when_a_text_is_asked_for_gives_a_request(line: str, topic: str) -> None:
    assert parse(line.split()) == Request(topic)


def test_config_of_equal_fields_is_equal_and_of_others_is_not() -> None:
    assert config("-m 64") == config("-m 64")
    assert config("-m 64") != config("-m 65")
    assert config("") != Request("help")


def test_config_repr_names_its_fields() -> None:
    assert "SmpConfig(cores=2, cpus=2," in repr(config("-smp 2"))


_NAMES = [f"-{name}" for option in OPTIONS for name in (option.name, *option.aliases)]
_FRAGMENTS = [
    key.name + "="
    for option in OPTIONS
    for keys in (option.keys, *option.variants.values())
    for key in keys
] + [name for option in OPTIONS for name in option.variants]
_VALUES = [
    "on",
    "1",
    "0x10",
    "virt",
    "none",
    "stdio",
    "file:a",
    "unix:/s",
    "mon:stdio",
    "chardev:a",
    "a",
    ",",
    "{",
    "defer",
]
_ARGUMENT = st.lists(st.sampled_from([*_FRAGMENTS, *_VALUES]) | st.text(max_size=6), max_size=6)
_WORDS = st.lists(
    st.sampled_from(_NAMES)
    | st.text(max_size=12)
    | _ARGUMENT.map(",".join)
    | _ARGUMENT.map("".join),
    max_size=8,
)


def outcome(argv: list[str]) -> str:
    try:
        return repr(parse(argv))
    except ConfigError as e:
        return str(e)


@settings(max_examples=300)
@given(_WORDS)
def test_parse_of_any_words_gives_a_result_or_one_sentence(argv: list[str]) -> None:
    assert outcome(argv)
    assert "\n" not in outcome(argv)
