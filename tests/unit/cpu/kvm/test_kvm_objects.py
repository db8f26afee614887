"""Requests to the kernel: what is packed, what is made of an answer, and what a refusal says."""

import errno
import os
import struct

import pytest

from instar.cpu.kvm import calls, kvm, uapi
from instar.cpu.kvm.kvm import Kvm, KvmVcpu, KvmVm, get_cpuid
from instar.errors import HostError


class Kernel:
    """Answers requests with functions of the buffer or number; refuses all others."""

    def __init__(self, **answers):
        self.answers = {getattr(uapi, name): answer for name, answer in answers.items()}
        self.asked = []

    def ioctl(self, _fd, request, argument):
        """As fcntl.ioctl."""
        self.asked.append((calls.name_of(request), bytes(argument)))
        return self._answer(request, argument)

    def call(self, _fd, request, value):
        """As the compiled one."""
        self.asked.append((calls.name_of(request), value))
        return self._answer(request, value)

    def _answer(self, request, argument):
        if request not in self.answers:
            raise OSError(errno.EINVAL, "")
        return self.answers[request](argument)


@pytest.fixture
def kernel(monkeypatch):
    def install(**answers):
        made = Kernel(**answers)
        for module in (calls, kvm):
            monkeypatch.setattr(module.fcntl, "ioctl", made.ioctl)
            monkeypatch.setattr(module._run, "call", made.call)
        return made

    return install


def device():
    made = Kvm.__new__(Kvm)
    made.fd, made._known = 7, {}
    return made


def vcpu():
    made = KvmVcpu.__new__(KvmVcpu)
    made.kvm, made.fd, made.number = device(), 9, 2
    return made


def test_device_of_another_version_is_refused(kernel):
    kernel(GET_API_VERSION=lambda _: 11)
    with pytest.raises(HostError, match="speaks version 11 of its interface, 12 is needed"):
        Kvm(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))


def test_refusal_names_request_subject_and_reason(kernel):
    kernel()
    with pytest.raises(HostError) as caught:
        KvmVm(device(), 8).set_memory(1, 0x1000, 4096, 0)
    assert str(caught.value) == (
        "the kernel refused KVM_SET_USER_MEMORY_REGION of slot 1, 4096 bytes at 0x1000:"
        " invalid argument (EINVAL)"
    )
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.fault == "host"


def test_cpuid_is_asked_with_more_room_until_it_fits(kernel):
    def answer(buffer):
        room = struct.unpack_from("=I", buffer)[0]
        if room < 100:
            raise OSError(errno.E2BIG, "")
        struct.pack_into("=II", buffer, 0, 2, 0)
        uapi.CPUID_ENTRY.pack_into(buffer, 8, 1, 0, 0, 2, 3, 4, 5)
        return 0

    made = kernel(GET_SUPPORTED_CPUID=answer)
    found = get_cpuid(7, uapi.GET_SUPPORTED_CPUID)
    assert found == [(1, 0, 0, 2, 3, 4, 5), (0,) * 7]
    assert [struct.unpack_from("=I", data)[0] for _, data in made.asked] == [64, 128]


def test_cpuid_that_never_fits_ends(kernel):
    def answer(_buffer):
        raise OSError(errno.E2BIG, "")

    kernel(GET_SUPPORTED_CPUID=answer)
    with pytest.raises(HostError, match="KVM_GET_SUPPORTED_CPUID of 256 entries"):
        get_cpuid(7, uapi.GET_SUPPORTED_CPUID)


def test_list_of_registers_is_as_long_as_the_kernel_says(kernel):
    def answer(buffer):
        room = struct.unpack_from("=I", buffer)[0]
        struct.pack_into("=I", buffer, 0, 3)
        if room < 3:
            raise OSError(errno.E2BIG, "")
        struct.pack_into("=3I", buffer, 4, 0x10, 0x174, 0xC0000081)
        return 0

    kernel(GET_MSR_INDEX_LIST=answer)
    assert device().msr_indices() == (0x10, 0x174, 0xC0000081)


def test_capability_is_asked_once(kernel):
    made = kernel(CHECK_EXTENSION=lambda number: number)
    asked = device()
    assert [asked.has("XSAVE2"), asked.has("XSAVE2")] == [208, 208]
    assert len(made.asked) == 1


def test_vm_is_made_again_if_a_signal_came(kernel):
    answers = [OSError(errno.EINTR, ""), 5]

    def answer(_value):
        said = answers.pop(0)
        if isinstance(said, OSError):
            raise said
        return said

    kernel(CREATE_VM=answer)
    assert device().create_vm().fd == 5


def test_registers_up_to_the_first_that_cannot_be_read_come_back(kernel):
    def answer(buffer):
        for n in range(2):
            uapi.MSR_ENTRY.pack_into(buffer, 8 + 16 * n, 0, 0, 100 + n)
        return 2

    kernel(GET_MSRS=answer)
    assert vcpu().msrs([1, 2, 3, 4]) == [100, 101]


def test_registers_are_written_in_order(kernel):
    made = kernel(SET_MSRS=lambda _: 1)
    assert vcpu().set_msrs([(0x10, 1), (0x174, 1 << 63)]) == 1
    assert made.asked[0][1] == struct.pack("=IIIIQIIQ", 2, 0, 0x10, 0, 1, 0x174, 0, 1 << 63)


def test_nested_state_is_as_long_as_it_says(kernel):
    def answer(buffer):
        uapi.NESTED_HEAD.pack_into(buffer, 0, 0, 1, 128)
        return 0

    kernel(GET_NESTED_STATE=answer)
    assert len(vcpu().nested_state(8320)) == 128


@pytest.mark.parametrize(("valid", "found"), [(1, 0x5678), (0, -1)])
def test_address_that_is_not_mapped_has_none(kernel, valid, found):
    def answer(buffer):
        uapi.TRANSLATION.pack_into(buffer, 0, 0x1234, 0x5678, valid, 1, 0)
        return 0

    kernel(TRANSLATE=answer)
    assert vcpu().translate(0x1234) == found


def test_guest_without_kvmclock_is_not_told_of_a_stop(kernel):
    kernel()
    assert vcpu().clock_was_stopped() is False
    kernel(KVMCLOCK_CTRL=lambda _: 0)
    assert vcpu().clock_was_stopped() is True


def test_kernel_without_tsc_offsets_is_known(kernel):
    kernel()
    assert vcpu().has_tsc_offset() is False


@pytest.mark.parametrize(
    ("arguments", "flags", "match"),
    [
        ({}, 0, 0),
        ({"match": 3}, uapi.IOEVENTFD_DATAMATCH, 3),
        ({"port": True, "on": False}, uapi.IOEVENTFD_PIO | uapi.IOEVENTFD_DEASSIGN, 0),
        ({"match": 0}, uapi.IOEVENTFD_DATAMATCH, 0),
    ],
)
def test_event_descriptor_for_writes_says_which(kernel, arguments, flags, match):
    made = kernel(IOEVENTFD_REQUEST=lambda _: 0)
    KvmVm(device(), 8).ioeventfd(0xFEB00050, 4, 11, **arguments)
    assert uapi.IOEVENTFD.unpack(made.asked[0][1]) == (match, 0xFEB00050, 4, 11, flags)


def test_event_descriptor_on_a_line_may_come_with_one_for_acknowledgements(kernel):
    made = kernel(IRQFD_REQUEST=lambda _: 0)
    machine = KvmVm(device(), 8)
    machine.irqfd(5, 11)
    machine.irqfd(5, 11, 12)
    machine.irqfd_off(5, 11)
    assert [uapi.IRQFD.unpack(data) for _, data in made.asked] == [
        (11, 5, 0, -1),
        (11, 5, uapi.IRQFD_RESAMPLE, 12),
        (11, 5, uapi.IRQFD_DEASSIGN, -1),
    ]


def test_message_has_both_halves_of_its_address(kernel):
    made = kernel(SIGNAL_MSI=lambda _: 1)
    assert KvmVm(device(), 8).signal_msi(0x1_FEE00000, 0x31) == 1
    assert uapi.MSI.unpack(made.asked[0][1]) == (0xFEE00000, 1, 0x31, 0, 0)


def test_message_for_nobody_is_not_taken_and_any_other_refusal_is_one(kernel):
    def fails(number):
        raise OSError(number, "")

    kernel(SIGNAL_MSI=lambda _: fails(errno.EPERM))
    assert KvmVm(device(), 8).signal_msi(0xFEEFF000, 0x31) == 0
    kernel(SIGNAL_MSI=lambda _: fails(errno.EINVAL))
    with pytest.raises(HostError, match="KVM_SIGNAL_MSI"):
        KvmVm(device(), 8).signal_msi(0xFEEFF000, 0x31)
