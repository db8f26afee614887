"""A vCPU's registers for people: the names of the manuals."""

from __future__ import annotations

from instar.cpu.kvm import uapi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from instar.cpu.kvm.kvm import KvmVcpu


def registers_of(vcpu: KvmVcpu) -> dict[str, int]:
    """Return the registers of a vCPU that stands still, the program counter first."""
    regs = vcpu.get(uapi.GET_REGS, uapi.REGS.size)
    return named(regs, vcpu.get(uapi.GET_SREGS, uapi.SREGS_SIZE))


def named(regs: bytes, sregs: bytes) -> dict[str, int]:
    """Return what ``struct kvm_regs`` and ``struct kvm_sregs`` say."""
    general = dict(zip(uapi.REG_NAMES, uapi.REGS.unpack(regs), strict=True))
    shown: dict[str, int] = {name: general.pop(name) for name in ("rip", "rflags")}
    shown.update(general)
    for n, name in enumerate(uapi.SEGMENT_NAMES):
        base, limit, selector, *_ = uapi.SEGMENT.unpack_from(sregs, n * uapi.SEGMENT.size)
        shown.update({name: selector, f"{name}.base": base, f"{name}.limit": limit})
    for n, name in enumerate(("gdt", "idt")):
        at = uapi.DTABLES_AT + n * uapi.DTABLE.size
        base, limit = uapi.DTABLE.unpack_from(sregs, at)
        shown.update({f"{name}.base": base, f"{name}.limit": limit})
    shown.update(
        zip(uapi.CONTROL_NAMES, uapi.CONTROL.unpack_from(sregs, uapi.CONTROL_AT), strict=True)
    )
    return shown
