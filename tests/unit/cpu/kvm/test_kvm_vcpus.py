"""The back end as a whole, on a made-up kernel."""

import pytest

from instar.cpu.kvm import vcpus
from instar.cpu.kvm.cpuid import CpuModel
from instar.cpu.kvm.make import KvmOptions
from instar.cpu.kvm.vcpus import KvmVcpus, Wishes
from instar.errors import HostError


class Made:
    """A VM that was made, and is given back or not."""

    vm = None
    vcpus = ()
    cpuid = ()
    supported = ()
    closed = 0

    def close(self):
        self.closed += 1


def refuse(*_):
    raise HostError("KVM_GET_MSR_INDEX_LIST: out of memory")


def test_nothing_is_left_of_a_vm_if_what_is_around_it_cannot_be_made(monkeypatch):
    made = Made()
    monkeypatch.setattr(vcpus, "make", lambda *_: made)
    monkeypatch.setattr(vcpus, "Host", refuse)
    options = KvmOptions(count=1, cpu=CpuModel("host"))
    wishes = Wishes(bug=print, reset=print, shutdown=print)
    with pytest.raises(HostError, match="out of memory"):
        KvmVcpus(None, options, bus=None, wishes=wishes)
    assert made.closed == 1
