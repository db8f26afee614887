"""A driver that does anything, over each device: the device answers or asks for a reset, and works after one."""

from __future__ import annotations

import pytest
from hostile_worlds import MAKERS
from hypothesis import given, settings
from hypothesis import strategies as st

from instar.testing.hostile import Script


@pytest.mark.parametrize("name", MAKERS)
@settings(max_examples=40, deadline=None)
@given(data=st.binary(max_size=400))
def test_any_script_of_a_driver_leaves_a_device_that_works_after_a_reset(name, data):
    MAKERS[name]().run(data)


@pytest.mark.parametrize("name", MAKERS)
@settings(max_examples=15, deadline=None)
@given(chains=st.lists(st.binary(min_size=12, max_size=40), max_size=30))
def test_many_well_made_chains_of_anything_leave_a_device_that_works(name, chains):
    MAKERS[name]().run(b"".join(b"\0" + chain for chain in chains))


def test_script_gives_numbers_and_then_zeros():
    script = Script(b"\1\2\3")
    assert (script.number(), script.number(2), bool(script), script.number(4)) == (
        1,
        0x302,
        False,
        0,
    )
