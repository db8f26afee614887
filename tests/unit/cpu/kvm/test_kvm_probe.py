"""What is said of a KVM that does not run a guest as it should."""

import errno

import pytest

from instar.cpu.kvm import probe, uapi

WRITE = (0x100000, b"\x88\x77\x66\x55\x44\x33\x22\x11", 8, 1)
READ = (0x100000, bytes(8), 4, 0)


class Vcpu:
    """Comes out with these exits in turn, or with an error."""

    fd = 0

    def __init__(self, *exits):
        self.exits = list(exits)
        self.shared = bytearray(3 * 4096)

    def accept_kicks(self):
        """Nobody kicks here."""

    def run(self, _fd):
        reason, layout, *values = self.exits.pop(0)
        if not layout:
            return reason
        uapi.RUN_EXIT.pack_into(self.shared, uapi.RUN_EXIT_AT, reason, 0, 0, 0)
        layout.pack_into(self.shared, uapi.RUN_UNION_AT, *values)
        return 0


def port(value):
    return (uapi.EXIT_IO, uapi.RUN_IO, 1, 1, 0xF4, 1, 4096 + value)


GOOD = [
    (uapi.EXIT_MMIO, uapi.RUN_MMIO, *WRITE),
    (uapi.EXIT_MMIO, uapi.RUN_MMIO, *READ),
    port(0x51),
    port(0x52),
]


@pytest.fixture
def judge(monkeypatch):
    def run(*exits, plain=False):
        vcpu = Vcpu(*exits)
        vcpu.shared[4096 : 4096 + 256] = bytes(range(256))
        monkeypatch.setattr(probe, "_run", vcpu)
        return probe._judge(vcpu, plain=plain)

    return run


def test_kvm_that_runs_everything_is_fine(judge):
    assert judge(*GOOD) == ""
    assert judge(*GOOD[:3], plain=True) == ""


def test_kvm_that_does_not_come_back_is_found_out(judge):
    assert judge(GOOD[0], (errno.EINTR, None)) == (
        "KVM did not come back from a few instructions within 2 s"
    )


def test_kvm_that_refuses_to_run_says_why(judge):
    assert "does not run a guest: invalid argument (EINVAL)" in judge((errno.EINVAL, None))


def test_kvm_that_does_not_know_an_instruction_shows_it(judge):
    said = judge(*GOOD[:3], (uapi.EXIT_INTERNAL_ERROR, uapi.RUN_INTERNAL, 1, 0))
    assert said == "KVM runs no kernel here: an instruction could not be emulated"


def test_kvm_that_computes_wrongly_is_found_out(judge):
    assert judge(*GOOD[:2], port(0x50)) == "KVM runs instructions wrongly: 0x50, not 0x51"
    assert "0x0, not 0x11223344" in judge(
        (uapi.EXIT_MMIO, uapi.RUN_MMIO, 0x100000, bytes(8), 8, 1)
    )


def test_kvm_that_comes_out_otherwise_is_found_out(judge):
    assert judge((uapi.EXIT_SHUTDOWN, uapi.U64, 0)) == (
        "KVM came out with KVM_EXIT_SHUTDOWN where KVM_EXIT_MMIO was due"
    )
