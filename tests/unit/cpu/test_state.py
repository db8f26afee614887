"""The harts' state: defaults are the reset state, contradictions are refused."""

import pytest
from hart import Rig

from instar.cpr.errors import StateInvalidError
from instar.cpr.state import load, save
from instar.cpu.rv64.state import CoreState, HartState


def test_hart_state_default_is_a_hart_after_reset():
    assert HartState(**Rig().hart()) == HartState()


def test_core_state_default_is_a_new_core():
    assert CoreState(**Rig().core.save_shared()) == CoreState()


def test_hart_state_survives_its_record():
    state = HartState(**Rig().hart())
    state.x[5] = (1 << 64) - 1
    assert load(HartState, 1, save(state)) == state


@pytest.mark.parametrize("fields", [{"priv": 2}, {"hsm": 2}, {"mstatus": 2 << 11}])
def test_hart_state_contradiction_is_refused(fields):
    with pytest.raises(StateInvalidError, match="is not one of"):
        HartState(**fields).check()


@pytest.mark.parametrize("fields", [{"turn": 8}, {"turn_left": 2001}])
def test_core_state_out_of_range_is_refused(fields):
    with pytest.raises(StateInvalidError, match="limit"):
        CoreState(**fields).check()
