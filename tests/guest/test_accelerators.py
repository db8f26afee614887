"""What runs the guest when several could be asked."""

from __future__ import annotations

import pytest

OTHERS = {"virt": ("kvm", "interpreter"), "microvm": ("interpreter", "kvm")}


@pytest.mark.parametrize("first", [True, False])
def test_preferred_accelerator_that_cannot_run_the_board_is_named_once(guest, first):
    board = guest.machine.board
    names = OTHERS[board] if first else OTHERS[board][::-1]
    bare = ",x-bare-guest=on" if board == "microvm" else ""
    said = f"-accel {names[0]} does not run -machine {board}: {names[1]} does it"
    machine = guest.machine._replace(words=("-accel", ":".join(names) + bare))
    with type(guest)(machine, guest.kernel).vm() as vm:
        vm.update()
        assert vm.said().count(said) == int(first)
