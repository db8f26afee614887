"""Real processes that replace themselves, in the circumstances that go wrong."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60  # seconds until a hung program fails the test; nothing is measured

PRELUDE = """
import json, os, resource, sys, threading
from instar.cpr.engine import Engine
from instar.cpr.errors import CprError
from instar.cpr.state import State, fd, state, text, u
NEXT = [sys.executable, os.environ["NEXT"], *sys.argv[1:]]

def fds():
    listed = sorted(int(n) for n in os.listdir("/proc/self/fd"))
    return [n for n in listed if os.path.lexists(f"/proc/self/fd/{n}")]  # not the listing's own

def say(**news):
    print(json.dumps(news), flush=True)

def attempt(engine, argv=NEXT, rehearse=False):  # what stands by has tests of its own
    try:
        engine.update(argv, rehearse=rehearse, guardian=False)
    except CprError as exc:
        return f"{type(exc).__name__}: {exc}"
"""

STATE = """
@state("thing", version=1)
class Thing(State):
    count: int = u(64, "A number.")
    null: int = fd("A descriptor.")
"""

OLD = f"""{PRELUDE}{STATE}
engine = Engine("old")
thing = engine.state("thing", Thing)
engine.ready()
if engine.failed:
    say(failed=engine.failed, count=thing.count)
    sys.exit()
thing.count, thing.null = 41, os.open("/dev/null", os.O_RDONLY)
"""

NEW = f"""{PRELUDE}{STATE}
engine = Engine("new")
thing = engine.state("thing", Thing)
report = engine.ready()
"""


def run(tmp_path, old, new="", *, environ=None):
    """Run ``old``; ``new`` is the program that it may update to. Returns what they said, and the errors."""
    for name, text in (("old.py", old), ("new.py", new)):
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        [sys.executable, tmp_path / "old.py", "argument"],
        env={
            "PYTHONPATH": str(ROOT / "src"),
            "NEXT": str(tmp_path / "new.py"),
            "PATH": "/bin",
            **(environ or {}),
        },
        capture_output=True,
        check=False,
        timeout=PATIENCE,
        text=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr.splitlines()


def test_update_keeps_pid_arguments_and_state_and_nothing_else(tmp_path):
    old = OLD + "say(pid=os.getpid(), fds=fds(), environ=dict(os.environ))\nattempt(engine)"
    new = NEW + (
        "say(pid=os.getpid(), fds=fds(), environ=dict(os.environ), argv=sys.argv[1:],"
        " count=thing.count, null=os.readlink(f'/proc/self/fd/{thing.null}'), lost=report.lost,"
        " phases=[e.phase for e in report.phases])"
    )
    (before, after), errors = run(tmp_path, old, new)
    assert errors == []
    assert {key: after[key] for key in before} == before
    assert after["argv"] == ["argument"]
    assert (after["count"], after["null"], after["lost"]) == (41, "/dev/null", [])
    assert after["phases"] == ["prepare", "rehearse", "stop", "save", "exec", "load"]


def test_update_of_a_script_is_like_a_start_by_its_path(tmp_path):
    program = tmp_path / "service.py"
    shown = "say(argv=sys.argv, file=os.path.abspath(__file__), path=sys.path[0], comm=open('/proc/self/comm').read())"
    old = OLD + f"attempt(engine, [{str(program)!r}, 'first'])"
    program.write_text(f"#!{sys.executable}\n{NEW}{shown}")
    program.chmod(0o755)
    said, errors = run(tmp_path, old)
    assert errors == []
    assert said[0]["argv"] == [str(program), "first"]
    assert (said[0]["file"], said[0]["path"]) == (str(program), str(tmp_path))
    assert not said[0]["comm"].strip().isdigit()


def test_update_with_named_standard_streams_leaves_them_to_children(tmp_path):
    old = OLD + "engine.fds.save('out', 0, 1)\nattempt(engine)"
    new = NEW.replace("report =", "out = engine.fds.find('out', 0)\nreport =") + (
        "say(inherited=[os.get_inheritable(n) for n in (out, thing.null)])"
    )
    said, errors = run(tmp_path, old, new)
    assert errors == []
    assert said == [{"inherited": [True, False]}]


def test_update_writes_what_print_held_back(tmp_path):
    old = OLD + "sys.stdout.write(json.dumps({'held': True}) + chr(10))\nattempt(engine)"
    said, errors = run(tmp_path, old, NEW + "say(count=thing.count)")
    assert errors == []
    assert said == [{"held": True}, {"count": 41}]


def test_update_with_other_threads_running_is_done_by_one(tmp_path):
    old = OLD + (
        "stop = threading.Event()\n"
        "for _ in range(4): threading.Thread(target=stop.wait, daemon=True).start()\n"
        "attempt(engine)"
    )
    new = NEW + (
        "import time\n"
        "while len(os.listdir('/proc/self/task')) > 1: time.sleep(0.01)  # who collects the old memory\n"
        "say(threads=os.listdir('/proc/self/task'), pid=os.getpid())"
    )
    said, errors = run(tmp_path, old, new)
    assert errors == []
    assert said[0]["threads"] == [str(said[0]["pid"])]


def test_update_with_closed_standard_streams_works(tmp_path):
    old = OLD + "os.close(0); os.close(2)\nattempt(engine)"
    said, _ = run(tmp_path, old, NEW + "say(count=thing.count, fds=fds())")
    assert said[0]["count"] == 41
    assert 0 not in said[0]["fds"]


@pytest.mark.parametrize("script", [False, True])
def test_update_with_few_descriptors_allowed_works(tmp_path, script):
    program = tmp_path / "wrapper"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} "$NEXT" "$@"\n')
    program.chmod(0o755)
    argv = f"[{str(program)!r}]" if script else "NEXT"
    old = OLD + f"resource.setrlimit(resource.RLIMIT_NOFILE, (30, 30))\nattempt(engine, {argv})"
    said, errors = run(tmp_path, old, NEW + "say(count=thing.count, lost=report.lost, fds=fds())")
    assert errors == []
    assert said == [{"count": 41, "lost": [], "fds": [0, 1, 2, 3, 4]}]


def test_update_without_free_descriptors_is_aborted_and_leaks_nothing(tmp_path):
    old = OLD + (
        "before = fds()\n"  # its own file is far above the limits
        "for spare in range(1, 5):\n"
        "    resource.setrlimit(resource.RLIMIT_NOFILE, (len(before) - 1 + spare, 1000))\n"
        "    say(spare=spare, error=attempt(engine, ['/bin/true']))\n"
        "    resource.setrlimit(resource.RLIMIT_NOFILE, (1000, 1000))\n"
        "    say(same=fds() == before, environ='INSTAR_CPR_STATE' in os.environ)\n"
        "    if spare == 3: attempt(engine)\n"
    )
    said, errors = run(tmp_path, old, NEW + "say(count=thing.count)")
    assert errors == []
    assert [news["error"] for news in said[:6:2]] == [
        "TargetError: execvp /bin/true failed: Too many open files"
    ] + [
        "UpdateAbortedError: update stopped in phase 'save': Too many open files; the old program goes on"
    ] * 2
    assert said[1:6:2] == [{"same": True, "environ": False}] * 3
    assert said[6] == {"count": 41}


def test_update_beyond_the_length_of_arguments_is_aborted(tmp_path):
    old = OLD + (
        "before = fds()\n"
        "say(error=attempt(engine, ['/bin/true', 'x' * (1 << 20)]), same=fds() == before)\n"
        "attempt(engine)"
    )
    said, errors = run(tmp_path, old, NEW + "say(count=thing.count)")
    assert errors == []
    assert said[0] == {
        "error": "ExecFailedError: execvp /bin/true failed: Argument list too long",
        "same": True,
    }
    assert said[1] == {"count": 41}


def test_what_the_new_program_does_not_ask_for_is_reported_and_closed(tmp_path):
    old = OLD + "engine.fds.save('log', 2, os.open('/dev/zero', os.O_RDONLY))\nattempt(engine)"
    new = f"{PRELUDE}engine = Engine('new')\nreport = engine.ready()\nsay(lost=report.lost, fds=fds())"
    said, errors = run(tmp_path, old, new)
    assert errors == []
    assert said[0]["fds"] == [0, 1, 2, 200]  # the last is its own file, for a way back
    assert said[0]["lost"] == [
        "state thing",
        "descriptor log/2 (fd 4)",
        "descriptor thing.null/0 (fd 3)",
    ]


def test_what_the_new_program_says_that_it_drops_is_closed_without_a_word(tmp_path):
    new = (
        f"{PRELUDE}engine = Engine('new')\nengine.drop('thing')\n"
        "report = engine.ready()\nsay(lost=report.lost, fds=fds())"
    )
    said, errors = run(tmp_path, OLD + "say(error=attempt(engine, rehearse=True))", new)
    assert errors == []
    assert said == [{"lost": [], "fds": [0, 1, 2, 200]}]


def test_state_that_the_new_program_does_not_read_brings_the_old_one_back(tmp_path):
    newer = OLD.replace("version=1", "version=2, oldest=2")
    said, errors = run(tmp_path, newer + "attempt(engine)", NEW)
    assert errors[-1].endswith(
        "StateTooNewError: thing: record is v2, this program reads up to v1"
    )
    why = "version new: thing: record is v2, this program reads up to v1"
    assert said == [{"failed": why, "count": 41}]


def test_state_of_another_class_brings_the_old_program_back(tmp_path):
    new = NEW.replace('@state("thing"', '@state("other"')
    said, errors = run(tmp_path, OLD + "attempt(engine)", new)
    assert errors[-1].endswith("section thing: is of state thing, expected other")
    assert said[0]["count"] == 41


STEPS = """
    more: int = u(8, "More.", since=2)

    @step(1, 2)
    def up(record): return {**record, "more": 0}

    @step(2, 1)
    def down(record): return {name: record[name] for name in ("count", "null")}
"""


def test_update_to_an_older_program_writes_what_it_reads_and_reports_what_is_lost(tmp_path):
    newer = OLD.replace("version=1", "version=2").replace("state, text", "state, step, text")
    newer = newer.replace('"A descriptor.")\n', f'"A descriptor.")\n{STEPS}')
    newer = newer.replace(
        "thing.count, thing.null = 41,", "thing.more = 7\nthing.count, thing.null = 41,"
    )
    said, errors = run(
        tmp_path,
        newer + "say(error=attempt(engine, rehearse=True))",
        NEW
        + "say(count=thing.count, lost=report.lost, null=os.readlink(f'/proc/self/fd/{thing.null}'))",
    )
    assert errors == []
    assert said == [{"count": 41, "lost": ["field thing.more"], "null": "/dev/null"}]


def test_check_tells_what_would_happen_and_changes_nothing(tmp_path):
    old = OLD + (
        "before = fds()\n"
        "answer = engine.check(NEXT)\n"
        "say(program=answer.program, reads=answer.reads['thing'], same=fds() == before)\n"
        "try: engine.check(['/bin/false'])\n"
        "except CprError as exc: say(error=str(exc), same=fds() == before, count=thing.count)\n"
    )
    said, errors = run(tmp_path, old, NEW + "say(never=True)")
    assert errors == []
    assert said == [
        {"program": "new", "reads": [1, 1], "same": True},
        {
            "error": "rehearsal of /bin/false: it ended without an answer: it is not a version of this program;"
            " nothing changed",
            "same": True,
            "count": 41,
        },
    ]


def test_children_of_the_new_program_inherit_nothing(tmp_path):
    new = NEW + (
        "import subprocess\n"
        "shown = subprocess.run(['/bin/sh', '-c', 'env; ls /proc/self/fd'], stdout=-1, close_fds=False, text=True)\n"
        "say(shown=shown.stdout.split())"
    )
    said, errors = run(tmp_path, OLD + "attempt(engine)", new)
    assert errors == []
    assert not [word for word in said[0]["shown"] if word.startswith("INSTAR")]
    assert [word for word in said[0]["shown"] if word.isdigit()] == [
        "0",
        "1",
        "2",
        "3",
    ]  # 3: ls itself


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("abc", "'abc': not a"),
        ("", "'': not a"),
        ("999", "999: not an open"),
        ("1", "1: not an open"),
    ],
)
def test_start_with_a_hostile_variable_is_one_clear_error(tmp_path, value, shown):
    said, errors = run(tmp_path, OLD + "say(started=True)", environ={"INSTAR_CPR_STATE": value})
    assert said == []
    assert f"PeerError: INSTAR_CPR_STATE={shown}" in errors[-2]
    assert (
        errors[-1] == "hint: without INSTAR_CPR_STATE in the environment the program starts afresh"
    )


def test_descriptor_exchanged_between_two_updates_refuses_the_second(tmp_path):
    old = OLD + (
        "engine.fds.save('log', 0, os.open('/dev/zero', os.O_RDONLY))\n"
        "log = engine.fds.find('log', 0)\n"
        "os.close(log); os.open('/dev/full', os.O_WRONLY)\n"
        "say(error=attempt(engine))"
    )
    said, errors = run(tmp_path, old, NEW)
    assert errors == []
    assert said[0]["error"].startswith(
        "UpdateRefusedError: descriptor log/0 (fd 4) is not what was saved"
    )


def test_update_1000_descriptors_keeps_them_all(tmp_path):
    old = OLD + (
        "resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))\n"
        "for n in range(1000): engine.fds.save('pipe', n, os.eventfd(n + 1))\n"
        "attempt(engine)"
    )
    new = NEW.replace(
        "report =",
        "kept = [os.eventfd_read(engine.fds.find('pipe', n)) for n in range(1000)]\nreport =",
    )
    news = "say(kept=kept == list(range(1, 1001)), lost=report.lost)"
    said, errors = run(tmp_path, old, new + news)
    assert errors == []
    assert said == [{"kept": True, "lost": []}]
