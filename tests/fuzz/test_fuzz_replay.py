"""Every fuzz target with its seeds, what was found once, and some hundred variations of both."""

from __future__ import annotations

import fuzz_targets
import pytest

from instar import log

COUNT = 200  # variations a target; `make fuzz` goes on from there


@pytest.fixture(autouse=True)
def log_as_it_was():
    """The targets are quiet; the tests after them look at warnings."""
    yield
    log.set_level("warning")


@pytest.mark.parametrize("name", fuzz_targets.names())
def test_seeds_found_inputs_and_variations_show_no_bug(name):
    target = fuzz_targets.load(name)
    inputs = [*target.seeds(), *fuzz_targets.found(name)]
    for data in [b"", *inputs, *fuzz_targets.mutated(inputs, 1, COUNT)]:
        target.fuzz(data)
