"""No update, however wrong, loses a plain service: its clients never lose an answer, and never get one twice."""

from __future__ import annotations

import os
import select

import pytest

from counter_world import EXAMPLE, PATIENCE, Load, Service

SHORT = ("engine.update(sys.argv)", "engine.update(sys.argv, limit_ms=3000)")


@pytest.fixture
def service(tmp_path):
    made = Service(tmp_path, SHORT)
    yield made
    made.end()


@pytest.fixture
def load(service):
    made = Load(service)
    yield made
    made.end()


@pytest.fixture
def caller(service):
    """The client that asks for updates."""
    made = service.connect()
    yield made
    made.close()


def update(service, caller) -> str:
    """Ask for an update; returns what the service says about it."""
    caller.send("!")
    return service.console()


def check_goes_on(service, caller, load, version):
    """It serves, as this version, nothing was lost, and a good version can still take over."""
    answers = [caller.ask()]
    service.become("9")
    assert f"update {version} -> 9: pause" in update(service, caller)
    answers.append(caller.ask())
    assert [shown for _, shown in answers] == [version, "9"]
    numbers = sorted([*load.end(), *(count for count, _ in answers)])
    assert numbers == list(range(1, len(numbers) + 1))


RAISES = {
    "an exception": ("raise ValueError('boom')", "version 2: ValueError: boom"),
    "an end": ("sys.exit(3)", "version 2: it ended before it was ready"),
    "a good end": ("sys.exit(0)", "version 2: it ended before it was ready"),
    "an end with listeners closed": (
        "import atexit\natexit.register(print, end='')\nsys.exit('no')",
        "version 2: it ended before it was ready",
    ),
    "a state that it refuses": (
        "engine.states.clear()\nengine.state('counter', type('Other', (), {'state_name': 'x'}))",
        "version 2: section counter: is of state counter, expected x",
    ),
    "no time": (
        "import time\nwhile True:\n  try: time.sleep(60)\n  except BaseException: pass",
        "version 2: it was not ready within 3000 ms",
    ),
}


@pytest.mark.parametrize("fault", RAISES)
def test_program_that_gives_up_gives_way_to_the_old_one_in_the_same_process(
    service, caller, load, fault
):
    patch, why = RAISES[fault]
    before = service.pid
    service.become("2", patch)
    said = update(service, caller)
    assert said.startswith(f"update failed: {why}; version 1 goes on: pause")
    assert (service.pid, service.process.poll()) == (before, None)
    check_goes_on(service, caller, load, "1")


LOST = {
    "kill -9": "os.kill(os.getpid(), 9)",
    "segfault": "os.kill(os.getpid(), 11)",
    "an end behind everybody's back": "os._exit(0)",
    "a stop": "os.kill(os.getpid(), 19)",
    "a hang that hears nothing": (
        "import signal, time\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\ntime.sleep(60)"
    ),
    "its descriptors": "os.closerange(3, 300)\nraise ValueError('boom')",
}


@pytest.mark.parametrize("fault", LOST)
def test_program_that_is_lost_is_replaced_by_the_guardian(service, caller, load, fault):
    service.become("2", LOST[fault])
    said = update(service, caller)
    assert said.startswith("update failed: the new program ")
    assert f"version 1 goes on as process {service.pid}: pause" in said
    assert service.process.wait() is not None
    assert service.pid != service.process.pid
    check_goes_on(service, caller, load, "1")


def test_program_that_forks_before_it_fails_leaves_one_service(service, caller, load):
    service.become(
        "2", "if os.fork() == 0:\n  raise SystemExit\nos.wait()\nraise ValueError('boom')"
    )
    assert update(service, caller).startswith("update failed: version 2: ValueError: boom")
    check_goes_on(service, caller, load, "1")


def test_signal_to_end_that_comes_in_between_is_for_the_new_program(service, caller, load):
    handler = "import signal\nsignal.signal(15, lambda *_: print('told to end', flush=True))\n"
    service.become("2", f"{handler}os.kill(os.getpid(), 15)")
    assert update(service, caller) == "told to end"
    assert "update 1 -> 2: pause" in service.console()
    check_goes_on(service, caller, load, "2")


@pytest.mark.parametrize("number", [9, 19])
def test_guardian_that_is_killed_or_stopped_costs_nothing(service, caller, load, number):
    service.become("2", f"os.kill(engine._adopted.info['guardian'], {number})")
    assert "update 1 -> 2: pause" in update(service, caller)
    check_goes_on(service, caller, load, "2")


DIES = """engine.notifiers.add(lambda event, _: event == "done" and not engine.failed and os.kill(os.getpid(), 9))
print(engine.ready()"""


def test_old_program_that_is_killed_in_the_pause_is_started_again(tmp_path):
    service = Service(tmp_path, ("print(engine.ready()", DIES))
    load, caller = Load(service), service.connect()
    try:
        said = update(service, caller)
        assert f"version 1 goes on as process {service.pid}: pause" in said
        check_goes_on(service, caller, load, "1")
    finally:
        load.end()
        caller.close()
        service.end()


def text(change=("", "")) -> str:
    return EXAMPLE.read_text().replace('Engine("1")', 'Engine("2")').replace(*change)


REFUSED = {
    "no program of ours": ("#!/bin/sh\n", "it ended without an answer"),
    "a program that serves at once": (
        "#!/bin/sh\nexec sleep 60\n", "it did not answer within 3 s",
    ),
    "a bad syntax": (text(("import os", "import os os")), "SyntaxError: invalid syntax"),
    "a missing module": (text(("import os", "import no_such_module")), "No module named"),
    "a bug before the engine": (text(('Engine("2")', 'Engine("2", bad=1)')), "TypeError"),
    "a bug after it": (text(("listener = socket", "listener = sockets")), "NameError: name 'sockets'"),
    "a crash": (text(("print(engine", "os.kill(os.getpid(), 11)\nprint(engine")), "it ended without"),
    "another state": (text(('@state("counter"', '@state("other"')), "is of state counter, expected other"),
    "a new field": (text(("    listener:", "    more: int = u(8, 'More.')\n    listener:")), "unknown in v1"),
    "a state that it forgets": (text(('engine.state("counter", Counter)', "Counter()")), "state counter would be lost"),
    "clients that it forgets": (text(('fds.group("clients"', 'fds.copy().group("clients"')), "descriptor clients ("),
}  # fmt: skip


@pytest.mark.parametrize("fault", REFUSED)
def test_program_that_could_not_take_over_is_refused_while_the_old_one_serves(
    service, caller, load, fault
):
    program, why = REFUSED[fault]
    load.wait()  # so that it has all clients, and none comes or goes
    before = service.descriptors()
    service.replace(lambda path: path.write_text(program))
    said = update(service, caller)
    assert said.startswith(f"rehearsal of {service.file}: ")
    assert why in said
    assert said.endswith("; nothing changed")
    assert service.descriptors() == before
    assert service.process.poll() is None
    check_goes_on(service, caller, load, "1")


def test_way_back_that_is_another_version_by_now_refuses_the_update(service, caller, load):
    service.file.write_text(text())  # in place: on a way back it would be executed too
    said = update(service, caller)
    assert said == "the way back is version 2 by now, this is 1; nothing changed"
    service.file.write_text(service.text)
    check_goes_on(service, caller, load, "1")


def test_rehearsal_whose_old_program_is_killed_ends_by_itself(service, caller):
    hangs = text(("print(engine.ready()", "import time\ntime.sleep(60)\nprint(engine.ready()"))
    service.replace(lambda path: path.write_text(hangs))
    before = service.children()
    caller.send("!")
    started = service.wait_for_children(2 + len(before))  # the guardian is the other one
    watched = [os.pidfd_open(pid) for pid in started]
    service.process.kill()
    for process in watched:
        assert select.select([process], [], [], PATIENCE)[0] == [process]
        os.close(process)


UP = """
    words: int = u(64, "Words so far.", since=2)

    @step(1, 2)
    def more(record): return {**record, "words": 0}

    @step(2, 1)
    def less(record): return {name: record[name] for name in ("count", "listener")}


socket.setdefaulttimeout"""


def test_older_program_gets_the_state_that_it_reads_and_back_up_again(service, caller, load):
    newer = text(("state, u", "state, step, u"))
    newer = newer.replace('"counter", version=1', '"counter", version=2')
    newer = newer.replace("socket.setdefaulttimeout", UP, 1)
    answers = []
    for program, way in [(newer, "1 -> 2"), (service.text, "2 -> 1")] * 3:
        service.replace(lambda path, program=program: path.write_text(program))
        assert f"update {way}: pause" in update(service, caller)
        answers.append(caller.ask())
    assert [version for _, version in answers] == ["2", "1"] * 3
    numbers = sorted([*load.end(), *(count for count, _ in answers)])
    assert numbers == list(range(1, len(numbers) + 1))


IN_USE = """raise StateInvalidError("counter: words are in use")


socket.setdefaulttimeout"""


def test_older_program_is_refused_if_it_has_no_place_for_what_is_in_use(service, caller, load):
    newer = text(("state, u", "state, step, u"))
    newer = newer.replace("import CprError", "import CprError, StateInvalidError")
    newer = newer.replace('"counter", version=1', '"counter", version=2')
    newer = newer.replace("socket.setdefaulttimeout", UP, 1)
    newer = newer.replace('return {name: record[name] for name in ("count", "listener")}', IN_USE)
    newer = newer.replace("socket.setdefaulttimeout\n", "", 1)
    service.replace(lambda path: path.write_text(newer))
    assert "update 1 -> 2: pause" in update(service, caller)
    service.replace(lambda path: path.write_text(service.text))
    said = update(service, caller)
    assert said == f"rehearsal of {service.file}: counter: words are in use; nothing changed"
    count, version = caller.ask()
    assert version == "2"
    numbers = sorted([*load.end(), count])
    assert numbers == list(range(1, len(numbers) + 1))


def test_older_program_whose_versions_are_not_written_is_refused(tmp_path):
    service = Service(tmp_path, ("version=1", "version=2, oldest=2"))
    caller = service.connect()
    try:
        service.replace(lambda path: path.write_text(EXAMPLE.read_text()))
        wanted = "the reader wants state counter as v1, this program (1) writes v2"
        said = f"rehearsal of {service.file}: counter: {wanted}; nothing changed"
        assert update(service, caller) == said
        assert caller.ask() == (1, "1")
    finally:
        caller.close()
        service.end()
