"""Whether this host's KVM can run a guest, found out by running one for a moment.

A KVM may be there and not be what it seems: one without hardware virtualization below it may interpret a guest's
instructions and not know all of them. A kernel would die of that early and without a word.

Source: own; AMD64 Architecture Programmer's Manual 2, 5.3 (long-mode paging).
"""

from __future__ import annotations

import _thread
import errno
import mmap
import os

from instar import signals
from instar.cpu.kvm import _run, boot, uapi
from instar.cpu.kvm.exits import internal_error
from instar.errors import InstarError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from instar.cpu.kvm.kvm import Kvm, KvmVcpu, KvmVm

TIME_LIMIT_S: Final = 2.0
_RAM: Final = 0x5000
_TABLES: Final = 0x1000  # three levels, the last maps 2 MiB at 0
_CODE: Final = 0x4000
_PRESENT: Final = 3  # and writable
_LARGE: Final = 1 << 7
_PLAIN: Final = 0x51  # what comes out of the port
_KERNEL: Final = 0x52
_PAYLOAD: Final = bytes.fromhex(
    "48b88877665544332211"  # mov rax, 0x1122334455667788
    "4889042500001000"  # mov [0x100000], rax: comes out
    "8b1c2500001000"  # mov ebx, [0x100000]: comes out, all ones are the answer
    "8d4352"  # lea eax, [rbx + 0x52]
    "e6f4"  # out 0xf4, al
    # What any kernel needs and an interpreter may not know.
    "0f20e0"  # mov rax, cr4
    "0d00060000"  # or eax, OSFXSR | OSXMMEXCPT
    "0f22e0"  # mov cr4, rax
    "660fefc0"  # pxor xmm0, xmm0
    "660f6fc8"  # movdqa xmm1, xmm0
    "0fae142500480000"  # ldmxcsr [0x4800]
    "480fc70c2500480000"  # cmpxchg16b [0x4800]
    "b052"  # mov al, 0x52
    "e6f4"  # out 0xf4, al
)
_MXCSR_AT: Final = 0x4800
_MXCSR: Final = 0x1F80


def can_run(kvm: Kvm, *, plain: bool = False) -> str:
    """Return "" if a guest runs here, or why not, in a sentence.

    It takes some milliseconds, and at most ``TIME_LIMIT_S`` where KVM does not come back.

    Args:
        kvm: The device.
        plain: Only integer instructions with paging and accesses to devices; not what a kernel needs.
    """
    try:
        vm = kvm.create_vm()
        try:
            return _in_vm(kvm, vm, plain=plain)
        finally:
            vm.close()
    except InstarError as e:
        return f"KVM is there and cannot make a guest: {e}"


def _in_vm(kvm: Kvm, vm: KvmVm, *, plain: bool) -> str:
    vm.create_irqchip()
    with mmap.mmap(-1, _RAM) as ram:
        _fill(ram)
        vm.set_memory(0, 0, _RAM, _run.address_of(ram))
        vcpu = vm.create_vcpu(0)
        try:
            vcpu.set_cpuid(kvm.supported_cpuid())
            sregs, regs = boot.long_mode(_CODE, _TABLES, {})
            vcpu.set(uapi.SET_SREGS, sregs)
            vcpu.set(uapi.SET_REGS, regs)
            return _judge(vcpu, plain=plain)
        finally:
            vcpu.close()


def _fill(ram: mmap.mmap) -> None:
    for n in range(2):
        uapi.U64.pack_into(ram, _TABLES + n * 0x1000, _TABLES + (n + 1) * 0x1000 | _PRESENT)
    uapi.U64.pack_into(ram, _TABLES + 0x2000, _PRESENT | _LARGE)
    ram[_CODE : _CODE + len(_PAYLOAD)] = _PAYLOAD
    ram[_MXCSR_AT : _MXCSR_AT + 4] = _MXCSR.to_bytes(4, "little")


def _judge(vcpu: KvmVcpu, *, plain: bool) -> str:
    """Let it run with a watcher beside it and say what is wrong with what came out."""
    expected = [
        (uapi.EXIT_MMIO, 0x1122334455667788),
        (uapi.EXIT_MMIO, -1),
        (uapi.EXIT_IO, _PLAIN),
        *(() if plain else ((uapi.EXIT_IO, _KERNEL),)),
    ]
    watcher = _Watcher(vcpu)
    try:
        for reason, value in expected:
            said = _step(vcpu, reason, value)
            if said:
                return said
    finally:
        watcher.end()
    return ""


def _step(vcpu: KvmVcpu, reason: int, value: int) -> str:
    shared = vcpu.shared
    error = _run.run(vcpu.fd)
    if error == errno.EINTR:
        return f"KVM did not come back from a few instructions within {TIME_LIMIT_S:.0f} s"
    if error:
        return f"KVM does not run a guest: {os.strerror(error).lower()} ({errno.errorcode[error]})"
    (came,) = uapi.U32.unpack_from(shared, uapi.RUN_EXIT_AT)
    if came == uapi.EXIT_INTERNAL_ERROR:
        return f"KVM runs no kernel here: {internal_error(shared)}"
    if came != reason:
        name = uapi.EXIT_NAMES.get(came, f"exit {came}")
        return f"KVM came out with KVM_{name} where KVM_{uapi.EXIT_NAMES[reason]} was due"
    found = _answer(shared, reason)
    return "" if found == value else f"KVM runs instructions wrongly: {found:#x}, not {value:#x}"


def _answer(shared: mmap.mmap, reason: int) -> int:
    """Return what the guest wrote, -1 for a read, which gets all ones."""
    if reason == uapi.EXIT_IO:
        at: int = uapi.RUN_IO.unpack_from(shared, uapi.RUN_UNION_AT)[-1]
        return shared[at]
    _, data, size, write = uapi.RUN_MMIO.unpack_from(shared, uapi.RUN_UNION_AT)
    if write:
        return int.from_bytes(data[:size], "little")
    at = uapi.RUN_MMIO_DATA_AT
    shared[at : at + size] = b"\xff" * size
    return -1


class _Watcher:
    """Kicks this thread out of the guest when its time is over."""

    __slots__ = ("_done", "_over", "_target", "_vcpu")

    def __init__(self, vcpu: KvmVcpu) -> None:
        _run.accept_kicks()
        self._vcpu = vcpu
        self._target = _thread.get_native_id()
        self._done = _thread.allocate_lock()
        self._over = _thread.allocate_lock()
        self._done.acquire()
        self._over.acquire()
        signals.start_thread(self._watch)

    def _watch(self) -> None:
        if not self._done.acquire(timeout=TIME_LIMIT_S):
            self._vcpu.shared[uapi.RUN_IMMEDIATE_EXIT] = 1
            _run.kick(self._target)
        self._over.release()

    def end(self) -> None:
        """Return when it is gone: it must not kick a thread that does something else."""
        self._done.release()
        self._over.acquire()
