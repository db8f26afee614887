"""Numbers and layouts of KVM's interface against those of a C compiler (Linux 6.1, x86-64)."""

from struct import Struct

import pytest

from instar.cpu.kvm import uapi
from instar.cpu.kvm.calls import name_of

REQUESTS = {
    "GET_API_VERSION": 0xAE00,
    "GET_MSR_INDEX_LIST": 0xC004AE02,
    "GET_SUPPORTED_CPUID": 0xC008AE05,
    "SET_USER_MEMORY_REGION": 0x4020AE46,
    "SET_IDENTITY_MAP_ADDR": 0x4008AE48,
    "IRQ_LINE": 0x4008AE61,
    "GET_IRQCHIP": 0xC208AE62,
    "SET_IRQCHIP": 0x8208AE63,
    "SET_GSI_ROUTING": 0x4008AE6A,
    "IRQFD_REQUEST": 0x4020AE76,
    "CREATE_PIT2": 0x4040AE77,
    "IOEVENTFD_REQUEST": 0x4040AE79,
    "SET_CLOCK": 0x4030AE7B,
    "GET_CLOCK": 0x8030AE7C,
    "GET_REGS": 0x8090AE81,
    "GET_SREGS": 0x8138AE83,
    "TRANSLATE": 0xC018AE85,
    "GET_MSRS": 0xC008AE88,
    "GET_LAPIC": 0x8400AE8E,
    "SET_CPUID2": 0x4008AE90,
    "GET_MP_STATE": 0x8004AE98,
    "GET_PIT2": 0x8070AE9F,
    "GET_VCPU_EVENTS": 0x8040AE9F,
    "GET_DEBUGREGS": 0x8080AEA1,
    "ENABLE_CAP": 0x4068AEA3,
    "GET_XSAVE": 0x9000AEA4,
    "SIGNAL_MSI": 0x4020AEA5,
    "GET_XCRS": 0x8188AEA6,
    "GET_NESTED_STATE": 0xC080AEBE,
    "CLEAR_DIRTY_LOG": 0xC018AEC0,
    "GET_SREGS2": 0x8140AECC,
    "GET_XSAVE2": 0x9000AECF,
    "SET_DEVICE_ATTR": 0x4018AEE1,
}


@pytest.mark.parametrize("name", REQUESTS)
def test_request_has_the_kernels_number(name):
    assert getattr(uapi, name) == REQUESTS[name]


def test_layouts_are_as_long_as_the_kernels():
    assert uapi.CONTROL_AT == 224
    assert uapi.SEGMENT.size == 24
    assert uapi.ROUTING_MSI.size == uapi.ROUTING_IRQCHIP.size == 48
    assert uapi.CPUID_ENTRY.size == 40
    assert uapi.DIRTY_GFN.size == 16


@pytest.mark.parametrize("name", [n for n, v in vars(uapi).items() if isinstance(v, Struct)])
def test_layout_has_no_padding_of_a_compilers_choice(name):
    assert getattr(uapi, name).format.startswith("=")


def test_name_of_a_request_tells_neighbours_apart():
    assert name_of(uapi.SET_TSC_KHZ) == "KVM_SET_TSC_KHZ"
    assert name_of(uapi.SET_DEBUGREGS) == "KVM_SET_DEBUGREGS"
    assert name_of(uapi.IRQFD_REQUEST) == "KVM_IRQFD"
    assert name_of(0xAEFF) == "the request 0xaeff"
