"""The built-in SBI, as SBI 2.0 has it."""

import pytest
from hart import MASK, RAM, Device, Rig, signed

from instar.cpu.rv64 import EXIT_IDLE

BASE, TIME, IPI, RFENCE, HSM = 0x10, 0x54494D45, 0x735049, 0x52464E43, 0x48534D
SRST, DBCN = 0x53525354, 0x4442434E
FAILED, NOT_SUPPORTED, INVALID_PARAM, INVALID_ADDRESS, ALREADY_AVAILABLE = -1, -2, -3, -5, -6
OTHER = RAM + 0x4000  # where the second hart starts


@pytest.fixture
def rig():
    return Rig(harts=2)


def call(rig, eid, fid=0, *args):
    """Make a call from hart 0 in supervisor mode; return (a0 as a signed number, a1)."""
    rig.program("ecall\n1: wfi\nj 1b")
    rig.supervisor()
    x = rig.hart()["x"]
    x[10:16] = [arg & MASK for arg in (*args, *[0] * (6 - len(args)))]
    x[16], x[17] = fid, eid
    rig.core.load_hart(0, {"x": x})
    rig.run(1000)
    x = rig.hart()["x"]
    return signed(x[10]), x[11]


def test_base_says_version_2(rig):
    assert call(rig, BASE, 0) == (0, 2 << 24)


@pytest.mark.parametrize("fid", [4, 5, 6])
def test_base_machine_identities_are_zero(rig, fid):
    assert call(rig, BASE, fid) == (0, 0)


@pytest.mark.parametrize("eid", [BASE, TIME, IPI, RFENCE, HSM, SRST, DBCN, 0, 1, 2, 8])
def test_probe_finds_what_answers(rig, eid):
    assert call(rig, BASE, 3, eid) == (0, 1)


@pytest.mark.parametrize("eid", [3, 4, 5, 6, 7, 9, 0x504D55, 0x53555350, 0x4E41434C, MASK])
def test_probe_does_not_find_what_is_not_there(rig, eid):
    assert call(rig, BASE, 3, eid) == (0, 0)


@pytest.mark.parametrize(
    ("eid", "fid"),
    [(BASE, 7), (TIME, 1), (IPI, 1), (RFENCE, 3), (HSM, 4), (0x504D55, 0), (MASK, MASK)],
)
def test_unknown_call_is_not_supported(rig, eid, fid):
    assert call(rig, eid, fid) == (NOT_SUPPORTED, 0)


def test_unknown_legacy_call_is_not_supported(rig):
    assert call(rig, 5)[0] == NOT_SUPPORTED


@pytest.mark.parametrize("eid", [TIME, 0])
def test_set_timer_sets_the_deadline(rig, eid):
    call(rig, eid, 0, 12345)
    assert rig.hart()["stimecmp"] == 12345


@pytest.mark.parametrize(("sstc", "cause"), [(True, 0), (False, 2)])
def test_stimecmp_belongs_to_supervisor_mode_only_with_sstc(sstc, cause):
    rig = Rig(sstc=sstc)
    rig.program("csrr a0, stimecmp\n1: wfi\nj 1b")
    rig.supervisor()
    rig.core.load_hart(0, {"stvec": RAM + 4})
    rig.run(10)
    assert rig.hart()["scause"] == cause


def test_timer_of_the_sbi_works_without_sstc():
    rig = Rig(sstc=False)
    rig.program("ecall\n1: wfi\nj 1b")
    rig.supervisor()
    x = rig.hart()["x"]
    x[10], x[17] = 0, TIME
    rig.core.load_hart(0, {"x": x, "stvec": RAM + 4, "mie": 0x20, "mstatus": 2})
    rig.run(10)
    assert rig.hart()["scause"] == (1 << 63) | 5


@pytest.mark.parametrize(("mask", "base"), [(0b100, 0), (0b10, 1), (1, 2), (1 << 63, 0), (1, 64)])
@pytest.mark.parametrize("eid", [IPI, RFENCE])
def test_hart_mask_with_a_hart_that_does_not_exist_is_refused(rig, eid, mask, base):
    assert call(rig, eid, 0, mask, base)[0] == INVALID_PARAM
    assert rig.hart(1)["mip"] == 0


@pytest.mark.parametrize(
    ("mask", "base", "pending"),
    [(0b10, 0, [0, 2]), (1, 1, [0, 2]), (0b11, 0, [2, 2]), (0, 7, [0, 0]), (0, MASK, [2, 2])],
)
def test_ipi_reaches_the_harts_of_its_mask(rig, mask, base, pending):
    assert call(rig, IPI, 0, mask, base)[0] == 0
    assert [rig.hart(n)["mip"] for n in range(2)] == pending


@pytest.mark.parametrize("fid", [0, 1, 2])
@pytest.mark.parametrize("size", [0, 1, 4096, 1 << 40, MASK])
@pytest.mark.parametrize("start", [0, 0xFFF, MASK - 5])
def test_remote_fence_of_any_range_succeeds(rig, fid, start, size):
    assert call(rig, RFENCE, fid, 0b11, 0, start, size)[0] == 0


def test_hart_start_starts_in_supervisor_mode(rig):
    rig.program("wfi", OTHER)
    assert call(rig, HSM, 0, 1, OTHER, 99)[0] == 0
    hart = rig.hart(1)
    assert (hart["pc"], hart["priv"], hart["satp"], hart["hsm"]) == (OTHER + 4, 1, 0, 0)
    assert (hart["x"][10], hart["x"][11]) == (1, 99)


@pytest.mark.parametrize(
    ("hart", "address", "error"),
    [
        (0, OTHER, ALREADY_AVAILABLE),
        (2, OTHER, INVALID_PARAM),
        (MASK, OTHER, INVALID_PARAM),
        (1, 0, INVALID_ADDRESS),
        (1, MASK, INVALID_ADDRESS),
    ],
)
def test_hart_start_that_cannot_be_is_refused(rig, hart, address, error):
    assert call(rig, HSM, 0, hart, address)[0] == error
    assert rig.hart(1)["hsm"] == 1


@pytest.mark.parametrize(("hart", "answer"), [(0, (0, 0)), (1, (0, 1)), (2, (INVALID_PARAM, 0))])
def test_hart_status_says_started_or_stopped(rig, hart, answer):
    assert call(rig, HSM, 2, hart) == answer


def test_hart_stop_stops_this_hart(rig):
    call(rig, HSM, 1)
    assert (rig.hart()["hsm"], rig.run(10)) == (1, EXIT_IDLE)


def test_hart_suspend_waits_and_goes_on_with_an_interrupt(rig):
    call(rig, HSM, 3, 0)
    suspended = rig.hart()
    rig.core.load_hart(0, {"mie": 2, "mip": 2})
    rig.run(1)
    assert (suspended["hsm"], suspended["pc"]) == (4, RAM + 4)
    assert (rig.hart()["hsm"], rig.x(10)) == (0, 0)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (0x80000000, NOT_SUPPORTED),
        (0x10000000, NOT_SUPPORTED),
        (1, INVALID_PARAM),
        (0x80000001, INVALID_PARAM),
    ],
)
def test_hart_suspend_of_another_kind_is_refused(rig, kind, error):
    assert call(rig, HSM, 3, kind)[0] == error
    assert rig.hart()["hsm"] == 0


@pytest.mark.parametrize("eid", [DBCN, SRST])
def test_machine_extension_goes_to_the_bus_with_its_arguments(rig, eid):
    rig.bus.answer = (-3, 17)
    assert call(rig, eid, 2, 5, 6, 7) == (-3, 17)
    assert rig.bus.calls == [(0, eid, 2, (5, 6, 7, 0, 0, 0))]


@pytest.mark.parametrize(("answer", "result"), [((0, 65), 65), ((-1, 0), -1)])
def test_legacy_console_returns_value_or_error_in_a0(rig, answer, result):
    rig.bus.answer = answer
    assert call(rig, 2)[0] == result


def test_bus_answer_that_is_no_pair_is_raised():
    rig = Rig(bus=Device())
    rig.bus.answer = None
    with pytest.raises(TypeError):
        call(rig, SRST, 0)
    assert signed(rig.x(10)) == FAILED


def test_ecall_from_user_mode_traps_to_the_kernel(rig):
    rig.program("ecall")
    rig.program("wfi", OTHER)
    rig.supervisor()
    rig.core.load_hart(0, {"priv": 0, "stvec": OTHER})
    rig.run(10)
    assert (rig.hart()["scause"], rig.hart()["priv"]) == (8, 1)
