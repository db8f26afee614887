"""Whether a state can be taken here: sizes, ranges, and what this host's CPU and kernel lack. Nothing is changed.

A structure that is longer than this kernel's is taken if what is more is zero, never cut otherwise.
"""

from __future__ import annotations

from struct import Struct

from instar.cpr.errors import StateInvalidError
from instar.cpu.kvm import cpuid, uapi
from instar.cpu.kvm.msrs import knows
from instar.cpu.kvm.msrs import name_of as msr_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

    from instar.cpu.kvm.host import Host
    from instar.cpu.kvm.kvm import CpuidEntry, KvmVcpu
    from instar.cpu.kvm.msrs import Msrs
    from instar.cpu.kvm.state import KvmVcpuState

_CPUID: Final = Struct("=7I")
_XSTATE_BV_AT: Final = 512  # of an XSAVE area: its header begins there
_TSC_TOLERANCE: Final = 250  # parts per million, as KVM itself takes for the same
_FIXED: Final = (
    ("regs", uapi.REGS.size),
    ("debugregs", uapi.DEBUGREGS_SIZE),
    ("lapic", uapi.LAPIC_SIZE),
    ("events", uapi.EVENTS_SIZE),
)


def pack_cpuid(entries: Sequence[CpuidEntry]) -> bytes:
    """Return CPUID entries as a state has them."""
    return b"".join(_CPUID.pack(*entry) for entry in entries)


def unpack_cpuid(data: bytes) -> list[CpuidEntry]:
    """Return them again."""
    return list(_CPUID.iter_unpack(data))


def exact(path: str, data: bytes, size: int) -> None:
    """Refuse a structure that has not ``size`` bytes."""
    if len(data) != size:
        raise StateInvalidError(f"{path}: {len(data)} bytes, expected {size}", path)


def longest(path: str, data: bytes, size: int) -> None:
    """Refuse a structure that says more than fits into ``size`` bytes here."""
    if data[size:].strip(b"\0"):
        raise StateInvalidError(
            f"{path}: {len(data)} bytes, this kernel takes {size} and the rest is not zero", path
        )


def sized(data: bytes, size: int) -> bytes:
    """Return a structure that :func:`longest` took with exactly ``size`` bytes."""
    return data[:size].ljust(size, b"\0")


def tsc(theirs: int, ours: int, *, can_scale: bool) -> None:
    """Refuse a TSC frequency (kHz) that vCPUs cannot have on this host."""
    if abs(theirs - ours) * 1_000_000 <= ours * _TSC_TOLERANCE or can_scale:
        return
    raise StateInvalidError(
        f"kvm-model.tsc_khz: the guest's TSC runs at {theirs} kHz, this host's at {ours} kHz, and it cannot scale"
    )


def vcpu(path: str, state: KvmVcpuState, host: Host, msrs: Msrs, taker: KvmVcpu) -> None:
    """Refuse the state of a vCPU that this host cannot go on with, but for :func:`features` (StateInvalidError)."""
    for name, size in _FIXED:
        exact(f"{path}.{name}", getattr(state, name), size)
    sregs_for(state, sregs2=host.sregs2, path=path)
    longest(f"{path}.xsave", state.xsave, host.xsave_size)
    _extended(path, state, host)
    _events(path, state, host)
    _nested(path, state, host)
    _msrs(path, state, msrs, taker)


def sregs_for(state: KvmVcpuState, *, sregs2: bool, path: str = "kvm-vcpu") -> bytes:
    """Return the special registers as the structure that this kernel takes.

    Raises:
        StateInvalidError: They are of no known size, or say what this kernel's structure cannot.
    """
    theirs2 = state.sregs_from == "SREGS2"
    exact(f"{path}.sregs", state.sregs, uapi.SREGS2_SIZE if theirs2 else uapi.SREGS_SIZE)
    if theirs2 == sregs2:
        return state.sregs
    head, tail = state.sregs[: uapi.SREGS_TAIL_AT], state.sregs[uapi.SREGS_TAIL_AT :]
    if theirs2 and tail.strip(
        b"\0"
    ):  # else it is an interrupt to inject, which is among the events
        raise StateInvalidError(
            f"{path}.sregs: has page directory pointers, which this kernel cannot take"
        )
    return head + bytes((uapi.SREGS2_SIZE if sregs2 else uapi.SREGS_SIZE) - len(head))


def features(path: str, packed: bytes, host: Host) -> None:
    """Refuse a CPUID with features that this host lacks (StateInvalidError)."""
    lacking = cpuid.lacking(unpack_cpuid(packed), host.cpuid)
    if lacking:
        shown = ", ".join(lacking[:8]) + (" and more" if len(lacking) > 8 else "")
        raise StateInvalidError(f"{path}.cpuid: the guest uses {shown}, which this host lacks")


def _extended(path: str, state: KvmVcpuState, host: Host) -> None:
    """Refuse components of the extended state that this host does not have."""
    possible = cpuid.extended_components(host.cpuid)
    if len(state.xsave) >= _XSTATE_BV_AT + 8:
        (used,) = uapi.U64.unpack_from(state.xsave, _XSTATE_BV_AT)
        _refuse_bits(f"{path}.xsave", used & ~possible)
    if state.xcrs and not host.xcrs:
        raise StateInvalidError(f"{path}.xcrs: this kernel has no extended control registers")
    if not state.xcrs:
        return
    exact(f"{path}.xcrs", state.xcrs, uapi.XCRS_SIZE)
    count, flags = uapi.XCRS_HEAD.unpack_from(state.xcrs)
    if count > uapi.MAX_XCRS or flags:
        raise StateInvalidError(
            f"{path}.xcrs: {count} registers, limit {uapi.MAX_XCRS}; flags {flags}"
        )
    for n in range(count):
        at = uapi.XCRS_HEAD.size + n * uapi.XCR.size
        number, _, value = uapi.XCR.unpack_from(state.xcrs, at)
        if number == 0:
            _refuse_bits(f"{path}.xcrs", value & ~possible)


def _refuse_bits(path: str, bits: int) -> None:
    if bits:
        raise StateInvalidError(
            f"{path}: has components {bits:#x} of the extended state, which this host lacks"
        )


def _events(path: str, state: KvmVcpuState, host: Host) -> None:
    flags = int.from_bytes(state.events[uapi.EVENTS_FLAGS_AT : uapi.EVENTS_FLAGS_AT + 4], "little")
    if flags & ~host.events:
        raise StateInvalidError(
            f"{path}.events: flags {flags:#x}, this kernel takes {host.events:#x}"
        )


def _nested(path: str, state: KvmVcpuState, host: Host) -> None:
    if not state.nested:
        return
    if len(state.nested) < uapi.NESTED_LEAST:
        raise StateInvalidError(
            f"{path}.nested: {len(state.nested)} bytes, at least {uapi.NESTED_LEAST}"
        )
    flags, _, size = uapi.NESTED_HEAD.unpack_from(state.nested)
    if size != len(state.nested):
        raise StateInvalidError(f"{path}.nested: {len(state.nested)} bytes, says {size}")
    if flags & uapi.NESTED_GUEST_MODE and size > host.nested_size:
        raise StateInvalidError(
            f"{path}.nested: the guest runs a guest ({size} bytes), this host takes {host.nested_size}"
        )


def _msrs(path: str, state: KvmVcpuState, msrs: Msrs, taker: KvmVcpu) -> None:
    """Refuse registers that hold something and do not exist here."""
    here = set(msrs.indices)
    for index, value in zip(state.msr_indices, state.msr_values, strict=True):
        if value and index not in here and not knows(taker, index):
            raise StateInvalidError(
                f"{path}: the guest uses {msr_name(index)} ({value:#x}), which this host lacks"
            )
