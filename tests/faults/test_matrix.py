"""No failed update loses the guest: the cases of :mod:`fault_cases`, side by side in a few machines."""

from __future__ import annotations

import ctypes
import re
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import pytest
from fault_cases import LINUX, TICKER
from fault_lane import Case, Lane
from fault_places import NEW_STEPS, SETTLE_STEPS

from instar.migration.takeover import TAKEOVER
from loaded_guests import Linux, LoadedGuest, Ticker

LANES = 4  # of the bare-metal guest; most of a case is waiting
README = Path(__file__).parents[2] / "README.md"
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER


def start_ticker(folder: Path, program: Path, extra: list[str]) -> LoadedGuest:
    return Ticker(folder, *extra, program=program, busy=False)


def start_linux(folder: Path, program: Path, extra: list[str]) -> LoadedGuest:
    return Linux(folder, *extra, program=program)


class Lanes:
    """Machines with one kind of guest, and the cases that wait for one of them."""

    def __init__(self, start, count: int, cases: list[Case]) -> None:
        self.start = start
        self.free: SimpleQueue[Lane | None] = SimpleQueue()
        if cases:
            self.free.put(Lane(start))  # booting needs the host to itself
        for _ in range(count - 1):
            self.free.put(None)
        self.pool = ThreadPoolExecutor(count)
        self.results: dict[str, Future[str]] = {
            str(case): self.pool.submit(self.run, case) for case in cases
        }

    def run(self, case: Case) -> str:
        lane = self.free.get()
        try:
            lane = lane or Lane(self.start)
            return lane.run(case)
        except BaseException as e:
            if lane is not None:
                e.add_note(lane.said())
                lane.close()
                lane = None
            raise
        finally:
            self.free.put(lane)

    def close(self) -> None:
        self.pool.shutdown(cancel_futures=True)
        while not self.free.empty():
            lane = self.free.get()
            if lane is not None:
                lane.close()


def chosen(request: pytest.FixtureRequest, name: str) -> list[Case]:
    """The cases of this module's test ``name`` that were selected."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    return [
        item.callspec.params["case"]
        for item in items
        if item.path == request.path and item.originalname == name
    ]


@pytest.fixture(scope="module")
def lanes(request: pytest.FixtureRequest):
    """The lanes, at work on what was selected; what guardians start are our children then, as under an init."""
    prctl = ctypes.CDLL(None).prctl
    prctl(_SUBREAPER, 1, 0, 0, 0)
    made = [
        Lanes(start_linux, 1, chosen(request, test_linux_survives.__name__)),
        Lanes(start_ticker, LANES, chosen(request, test_ticker_survives.__name__)),
    ]
    yield made
    for some in made:
        some.close()
    prctl(_SUBREAPER, 0, 0, 0, 0)


@pytest.mark.parametrize("case", LINUX, ids=str)
def test_linux_survives(lanes: list[Lanes], case: Case) -> None:
    assert lanes[0].results[str(case)].result() in case.expected


@pytest.mark.parametrize("case", TICKER, ids=str)
def test_ticker_survives(lanes: list[Lanes], case: Case) -> None:
    assert lanes[1].results[str(case)].result() in case.expected


def test_every_step_of_the_new_program_is_in_the_matrix() -> None:
    assert {step.event for step in TAKEOVER} - {*NEW_STEPS, *SETTLE_STEPS} == set()


def test_readme_has_the_count_that_the_last_run_wrote() -> None:
    (count,) = re.findall(
        r"^\*\*(\d+) failed updates, 0 guests lost\*\*", README.read_text(), re.M
    )
    assert int(count) == len(TICKER) + len(LINUX), "cases were added or removed: make matrix"
