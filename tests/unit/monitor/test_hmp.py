"""HMP lines: grammar, formats, texts; arbitrary text never does more than give an error."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from monitor_fakes import RAM, FakeContext

from instar.cpr.state import save
from instar.errors import CommandError
from instar.monitor import commands
from instar.monitor.command import HMP_COMMANDS
from instar.monitor.commands import WAITS
from instar.monitor.completion import complete
from instar.monitor.format import migration_text, size
from instar.monitor.hmp import execute, parse
from instar.monitor.session import HmpSession
from instar.monitor.state import MAX_HISTORY, MAX_LINE

assert commands
NAMES = sorted(HMP_COMMANDS)


@pytest.fixture
def context():
    return FakeContext()


@settings(max_examples=200)
@given(st.sampled_from(["", *NAMES]), st.text(max_size=20))
def test_parse_any_text_gives_a_command_or_a_command_error(name, rest) -> None:
    try:
        parse(FakeContext(), f"{name} {rest}")
    except CommandError as e:
        assert str(e)


@settings(max_examples=200)
@given(
    st.sampled_from(["x", "xp", "replay_break"]),
    st.text("/0123456789xXabcdefiuogwh$pc+-\" '", max_size=16),
)
def test_parse_formats_and_expressions_give_a_command_or_a_command_error(name, rest) -> None:
    try:
        parse(FakeContext(), f"{name} {rest}")
    except CommandError as e:
        assert str(e)


@pytest.mark.parametrize(
    ("line", "printed"),
    [
        ("", ""),
        ("foo", "unknown command: 'foo'\n"),
        ("info foo", "unknown command: 'info foo'\n"),
        ("migrate", 'migrate: string expected\nTry "help migrate" for more information\n'),
        ("migrate a b",
         'migrate: extraneous characters at the end of line\nTry "help migrate" for more information\n'),
        ("migrate -x a", 'migrate: unsupported option -x\nTry "help migrate" for more information\n'),
        ('migrate "a', 'migrate: unterminated string\nTry "help migrate" for more information\n'),
        ("migrate -d bogus:1", "Error: unknown migration protocol: bogus:1\n"),
        ("migrate_set_parameter nosuch 1", "Error: Parameter 'parameter' does not accept value 'nosuch'\n"),
        ("migrate_set_parameter downtime-limit x", "Error: Parameter 'downtime-limit' expects a number\n"),
        ("migrate_set_parameter cpr-exec-command 'a",
         "Error: Parameter 'cpr-exec-command': no closing quotation; it was not changed\n"),
        ("migrate_set_capability events maybe", "Error: Parameter 'state' expects 'on' or 'off'\n"),
        ("x/2xz 0", "x: invalid char in format: 'z'\nTry \"help x\" for more information\n"),
        ("x/99999999 0", "x: count 99999999 is not in the range of 1 to 65536\nTry \"help x\" for more information\n"),
        ("x 0x1000$", "x: unexpected '$' in expression\nTry \"help x\" for more information\n"),
        ("x $nosuch", "unknown register: '$nosuch'\n"),
        ("x 0x5000", "Cannot access memory\n"),
        ("help nosuch", "Error: there is no command 'nosuch'; 'help' lists all\n"),
        ("help migrate",
         "migrate [-d] [-r] uri -- migrate to URI (using -d to not wait for completion)\n"),
    ],
)  # fmt: skip
def test_line_prints(context, line, printed) -> None:
    assert execute(context, line) == (printed, "")


@pytest.mark.parametrize(
    ("line", "printed"),
    [
        ("xp/1xw 0x80000000", "0000000080000000: 0x00000013\n"),
        ("xp /2xg $pc", "0000000080000000: 0x0000806700000013 0x0000000000000000\n"),
        ("xp /3xh $pc+4-4", "0000000080000000: 0x0013 0x0000 0x8067\n"),
        ("xp /5xw 0x80000000",
         "0000000080000000: 0x00000013 0x00008067 0x00000000 0x00000000\n0000000080000010: 0x00000000\n"),
        ("xp /2db 0x80000004", "0000000080000004: 103 -128\n"),
        ("xp /2ub 0x80000004", "0000000080000004: 103 128\n"),
        ("xp /2ob 0x80000004", "0000000080000004: 0147 0200\n"),
        ("xp /2c 0x80000004", "0000000080000004: 'g' '\\x80'\n"),
        ("x /1xw 0x1000", "0000000000001000: 0x00000013\n"),
        ("x /2i 0x1000", "0x0000000000001000: 00000013  nop\n0x0000000000001004: 00008067  ret\n"),
        ("xp /2xw 0x80000ffc", "0000000080000ffc: 0x00000000\nCannot access memory\n"),
        ("xp /2xg 0x80000ff8", "0000000080000ff8: 0x0000000000000000\nCannot access memory\n"),
    ],
)  # fmt: skip
def test_memory_dump_prints(context, line, printed) -> None:
    assert execute(context, line) == (printed, "")


def test_set_parameter_splits_a_list_as_a_shell_would(context) -> None:
    execute(
        context,
        "migrate_set_parameter cpr-exec-command instar-system -name 'my vm' -incoming file:a\\ b",
    )
    assert context.migration.parameters["cpr-exec-command"] == [
        "instar-system", "-name", "my vm", "-incoming", "file:a b",
    ]  # fmt: skip
    text, _ = execute(context, "info migrate_parameters")
    assert "cpr-exec-command: instar-system -name my vm -incoming file:a b\n" in text


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ("running", "VM status: running\n"),
        ("paused", "VM status: paused\n"),
        ("inmigrate", "VM status: paused (inmigrate)\n"),
        ("postmigrate", "VM status: paused (postmigrate)\n"),
    ],
)
def test_info_status_names_the_state(context, state, text) -> None:
    context.machine.runstate = state
    assert execute(context, "info status") == (text, "")


def test_hint_of_an_error_is_shown(context) -> None:
    def refuse(**_):
        raise CommandError("no").hint("try that")

    context.migration.migrate = refuse
    assert execute(context, "migrate -d x")[0] == "Error: no\nhint: try that\n"


def test_migrate_without_detach_waits_and_typed_keys_stay(context) -> None:
    context.migration.state = {"status": "active"}
    session = HmpSession(context)
    session.feed(b"migrate file:x\rinfo name\r")
    assert session.answer() == b"migrate file:x\r\n"
    assert session.answer() is None
    assert session.poll() is None
    context.migration.state = {"status": "failed", "error-desc": "disk full"}
    assert session.poll() == b"Error: disk full\r\n(instar) "
    assert session.answer() == b"info name\r\ndemo\r\n(instar) "


def test_migrate_that_waits_goes_on_waiting_in_the_new_program(context) -> None:
    context.migration.state = {"status": "device"}
    session = HmpSession(context)
    session.feed(b"migrate file:x\r")
    session.answer()
    after = HmpSession(context, state=session.save())
    assert after.busy
    context.migration.state = {"status": "completed"}
    assert after.poll() == b"(instar) "


def test_saved_session_keeps_line_cursor_and_history(context) -> None:
    session = HmpSession(context)
    session.feed(b"info name\rinfo atus\x1b[D\x1b[D\x1b[D\x1b[D\x1b[")
    session.answer()
    session.answer()
    after = HmpSession(context, state=session.save())
    after.feed(b"Dst\x1b[C\x1b[C\x08\x08 st\r")
    assert after.save().history == "info name"
    assert after.answer().endswith(b"(instar) ")


def test_longest_session_still_fits_its_state(context) -> None:
    session = HmpSession(context)
    session._editor.history = [chr(0x10000 + n) * MAX_LINE for n in range(MAX_HISTORY)]
    save(session.save())


def test_bug_in_a_command_is_text_and_the_prompt_comes_back(context, capfd) -> None:
    context.machine.__class__ = type("Broken", (), {"runstate": "running"})
    session = HmpSession(context)
    session.feed(b"info cpus\r")
    assert b"Error: internal bug (AttributeError in " in session.answer()
    assert "internal bug" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("text", "word", "choices"),
    [
        ("migrate_s", "migrate_s", ["migrate_set_capability", "migrate_set_parameter"]),
        ("info migrate_", "migrate_", ["migrate_capabilities", "migrate_parameters"]),
        ("migrate_set_parameter mo", "mo", ["mode"]),
        ("migrate_set_capability ev", "ev", ["events"]),
        ("migrate_set_capability events o", "o", ["off", "on"]),
        ("help info sta", "sta", ["status"]),
        ("help qu", "qu", ["quit"]),
        ("nosuch x", "x", []),
        ("quit x", "x", []),
    ],
)
def test_complete_gives_what_may_follow(context, text, word, choices) -> None:
    assert complete(context, text) == (word, choices)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (4096, "4 KiB"), (110730, "108 KiB"), (1 << 30, "1 GiB"), (1023, "1023 B")],
)
def test_size_is_short(count, text) -> None:
    assert size(count) == text


def test_info_migrate_has_qemus_layout() -> None:
    ram = {
        "transferred": 110730,
        "remaining": 0,
        "page-size": 4096,
        "total": 0,
        "mbps": 24.61,
        "dirty-sync-count": 2,
    }
    info = {"status": "completed", "total-time": 36, "setup-time": 0, "downtime": 3, "ram": ram,
            "blocked-reasons": ["no"]}  # fmt: skip
    assert migration_text(info) == (
        "Status: \t\tcompleted\n"
        "Time (ms): \t\ttotal=36, setup=0, down=3\n"
        "RAM info:\n"
        "  Throughput (Mbps): \t24.61\n"
        "  Sizes: \t\tpagesize=4 KiB, total=0 B\n"
        "  Transfers: \t\ttransferred=108 KiB, remain=0 B\n"
        "    Channels: \t\tprecopy=0 B, multifd=0 B, postcopy=0 B\n"
        "    Page Types: \tnormal=0, zero=0\n"
        "  Page Rates (pps): \ttransfer=0\n"
        "  Others: \t\tdirty_syncs=2\n"
        "Outgoing migration blocked:\n"
        "  no\n"
    )


def test_info_migrate_failed_says_why() -> None:
    assert (
        migration_text({"status": "failed", "error-desc": "why"}) == "Status: \t\tfailed (why)\n"
    )


def test_info_migrate_shows_the_times_that_are_known() -> None:
    text = migration_text({"status": "completed", "setup-time": 1, "downtime": 66})
    assert text == "Status: \t\tcompleted\nTime (ms): \t\tsetup=1, down=66\n"


def test_info_migrate_after_an_update_shows_the_pause() -> None:
    update = {"old-version": "0.1", "new-version": "0.2", "pause-us": 41200, "check": False, "status": "failed",
              "phases": [{"name": "save", "us": 5000}, {"name": "exec", "us": 100}], "owner": "old-by-guardian",
              "old-pid": 7, "new-pid": 9, "reason": "it crashed", "notes": ["a", "b"], "predicted-pause-us": 40000,
              "rehearsal-pause-us": 1500,
              "program": "/x", "digest": "abc"}  # fmt: skip
    text = migration_text({"status": "completed", "x-update": update})
    assert "Time" not in text
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert lines[1:] == [
        "Update: 0.1 -> 0.2: failed, pause 41.2 ms, predicted 40.0 ms, for the rehearsal 1.5 ms",
        "Program: /x (abc)",
        "Phases (ms): save 5.0, exec 0.1",
        "Guest: with the old program, started by the guardian, process 9 (before: 7)",
        "Reason: it crashed",
        "Note: a",
        "Note: b",
    ]


def test_update_that_is_waited_for_ends_with_its_report() -> None:
    context = FakeContext()
    assert execute(context, "update --check prog") == ("", "update")
    assert context.migration.done == [("update", "prog", True, -1)]
    update = {"status": "running", "check": True, "old-version": "0.1", "old-pid": 7, "new-pid": 7, "owner": "old",
              "phases": []}  # fmt: skip
    context.migration.state = {"x-update": update}
    assert WAITS["update"](context) is None
    update |= {"status": "refused", "reason": "no"}
    assert WAITS["update"](context).startswith("Error: no\nCheck:")


def test_ram_is_where_the_examples_say() -> None:
    assert RAM == 0x8000_0000
