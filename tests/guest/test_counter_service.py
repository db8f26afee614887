"""The example that updates itself, with real clients: what a reader of it is promised."""

import pytest

from counter_world import EXAMPLE, Service


@pytest.fixture
def service(tmp_path):
    made = Service(tmp_path)
    yield made
    made.end()


@pytest.fixture
def clients(service):
    made = [service.connect() for _ in range(5)]
    yield made
    for client in made:
        client.close()


def test_counter_service_is_under_50_lines():
    lines = EXAMPLE.read_text().splitlines()
    assert len(lines) < 50


def test_counter_service_20_updates_keep_clients_count_listener_and_pid(service, clients):
    answers = [client.ask() for client in clients]
    before = service.descriptors()
    for number in range(2, 22):
        service.become(str(number))
        clients[number % 5].send("!")
        assert f"-> {number}: pause" in service.console()
        answers += [client.ask() for client in clients]
    assert [count for count, _ in answers] == list(range(1, 21 * 5 + 1))
    assert [version for _, version in answers] == [str(n // 5 + 1) for n in range(21 * 5)]
    assert service.descriptors() == before
    assert service.process.poll() is None
    newcomer = service.connect()
    assert newcomer.ask() == (106, "21")
    newcomer.close()


def test_counter_service_requests_sent_during_the_update_are_answered(service, clients):
    service.become("2")
    clients[0].send("!")
    for client in clients:
        client.send("hello\n" * 3)
    late = service.connect()
    late.send("hello\n")
    counts = [client.answer()[0] for client in clients for _ in range(3)] + [late.answer()[0]]
    assert sorted(counts) == list(range(1, 17))
    late.close()


def test_counter_service_client_that_leaves_is_forgotten(service, clients):
    for client in clients:
        client.ask()  # now the service has all of them
    before = service.descriptors()
    leaving = service.connect()
    leaving.ask()
    leaving.close()
    clients[0].ask()
    service.become("2")
    clients[0].send("!")
    service.console()
    clients[0].ask()
    assert service.descriptors() == before


def missing(service):
    service.file.unlink()


def directory(service):
    service.file.unlink()
    service.file.mkdir()


def not_executable(service):
    service.replace(lambda path: path.write_text(service.text))
    service.file.chmod(0o644)


def no_interpreter(service):
    service.replace(lambda path: path.write_text("#!/no/such/interpreter\n"))


def no_program(service):
    service.replace(lambda path: path.write_text("this is not a program\n"))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (missing, "No such file or directory"),
        (directory, "Permission denied"),
        (not_executable, "Permission denied"),
        (no_interpreter, "No such file or directory"),
        (no_program, "Exec format error"),
    ],
)
def test_counter_service_failing_update_goes_on_and_leaks_nothing(service, clients, spoil, reason):
    first = [client.ask() for client in clients]
    text, before = service.file.read_text(), service.descriptors()
    spoil(service)
    for _ in range(3):
        clients[1].send("!")
        assert service.console() == f"execvp {service.file} failed: {reason}"
        first += [client.ask() for client in clients]
    assert service.descriptors() == before
    assert first == [(n, "1") for n in range(1, 21)]
    remove = service.file.rmdir if service.file.is_dir() else lambda: None
    remove()
    service.replace(lambda path: path.write_text(text.replace('"1"', '"2"')))
    clients[1].send("!")
    assert "-> 2: pause" in service.console()
    assert [client.ask() for client in clients] == [(n, "2") for n in range(21, 26)]
    assert service.descriptors() == before
