"""Guests without a kernel for tests of KVM: a few instructions that count, talk to ports and take interrupts.

All of them run on a KVM that only knows integer instructions, too. RAM is 48 KiB from 0; what is above, below 64 KiB,
is nobody's and so comes out as an access to a device.
"""

from __future__ import annotations

import mmap
import struct
import threading
import time
from collections.abc import Callable

from instar.cpr.state import load, save
from instar.cpu.kvm import _run, uapi
from instar.cpu.kvm.cpuid import CpuModel
from instar.cpu.kvm.kvm import Kvm
from instar.cpu.kvm.make import KvmOptions
from instar.cpu.kvm.probe import can_run
from instar.cpu.kvm.vcpus import KvmVcpus, Wishes
from instar.errors import InstarError

RAM = 0xC000
TABLES, CODE, DATA, STACK, AP_CODE = 0x1000, 0x4000, 0x6000, 0x7000, 0x8000
GDT, IDT, LAST_TABLE = 0x9000, 0x9800, 0xA000
APIC, IOAPIC = 0xFEE00000, 0xFEC00000
VECTOR = 0x40
PORT, AP_PORT = 0x1F4, 0x2F4  # written here, read four ports above
DEVICE, AP_DEVICE = 0xF000, 0xF010  # written here, read four bytes above
ROUND = 200  # of the checksum loop between two accesses
MASK = 0xFFFFFFFF


def missing() -> str:
    """Say why no such guest can run; empty if it can."""
    try:
        return can_run(Kvm(), plain=True)
    except InstarError as e:
        return str(e)


def _le(value: int, size: int) -> str:
    return value.to_bytes(size, "little").hex()


def loop16(port: int, device: int) -> bytes:
    """Mix a counter into a checksum, for real mode; see :func:`checksums`."""
    return bytes.fromhex(
        "66b801000000"  # mov eax, 1
        "6631c9"  # xor ecx, ecx
        f"66bb{ROUND:02x}000000"  # outer: mov ebx, ROUND
        "66c1c005"  # inner: rol eax, 5
        "6601c8"  # add eax, ecx
        "6641"  # inc ecx
        "664b"  # dec ebx
        "75f3"  # jnz inner
        f"ba{_le(port, 2)}"  # mov dx, port
        "66ef"  # out dx, eax
        "6689c6"  # mov esi, eax
        "83c204"  # add dx, 4
        "66ed"  # in eax, dx
        "6631f0"  # xor eax, esi
        f"66bf{_le(device, 4)}"  # mov edi, device
        "67668907"  # mov [edi], eax
        "6766034704"  # add eax, [edi + 4]
        "ebcc"  # jmp outer
    )


def loop32(port: int, device: int) -> bytes:
    """The same for 32-bit mode."""
    return bytes.fromhex(
        f"b80100000031c9bb{ROUND:02x}000000"
        "c1c00501c8414b75f7"
        f"66ba{_le(port, 2)}ef89c66683c204ed31f0bf{_le(device, 4)}8907034704"
        "ebd8"
    )


def loop64(port: int, device: int) -> bytes:
    """The same for 64-bit mode."""
    return bytes.fromhex(
        f"b80100000031c9bb{ROUND:02x}000000"
        "c1c00501c8ffc1ffcb75f5"
        f"66ba{_le(port, 2)}ef89c66683c204ed31f0bf{_le(device, 4)}8907034704"
        "ebd6"
    )


# Copy 64 values from a port to memory and from there to the other port, for ever.
STRINGS = bytes.fromhex(
    "be00600000"  # again: mov esi, DATA
    "66baf801b940000000"  # mov dx, PORT + 4; mov ecx, 64
    "bf00600000f36d"  # mov edi, DATA; rep insd
    "66baf401b940000000"  # mov dx, PORT; mov ecx, 64
    "f36febde"  # rep outsd; jmp again
)
# Start the second processor at AP_CODE; what follows is run by the first.
START_AP = bytes.fromhex(
    "bb0000e0fe"  # mov ebx, APIC
    "c783f0000000ff010000"  # enabled, spurious vector 0xff
    "c7830003000000450c00"  # INIT to all others
    "b9d0070000e2fe"  # wait
    "c7830003000008460c00"  # start-up at page 8
    "b9d0070000e2fe"
    "c7830003000008460c00"
)
# Count interrupts of a periodic timer and say each time how many there were.
TIMER = bytes.fromhex(
    "bb0000e0fe"
    "c783f0000000ff010000"
    "c783e003000003000000"  # divide by 16
    "c7832003000040000200"  # periodic, vector 0x40
    "c78380030000400d0300"  # every 200000 * 16 ns
    "66baf401fb"  # mov dx, PORT; sti
    "f48b042500600000ef"  # again: hlt; mov eax, [DATA]; out dx, eax
    "ebf5"  # jmp again
)
HANDLER = bytes.fromhex(
    "ff042500600000"  # inc dword [DATA]
    "c783b000000000000000"  # end of interrupt
    "48cf"  # iretq
)
# The same for line 5 as a level, masked while it is acknowledged: so kernels move interrupts, or serve them later.
MASKING_HANDLER = bytes.fromhex(
    "ff042500600000"
    f"c7071a000000c74710{_le(1 << 16 | 1 << 15 | VECTOR, 4)}"  # edi is the IOAPIC
    "c783b000000000000000"
    f"c74710{_le(1 << 15 | VECTOR, 4)}"
    "48cf"
)
# Count interrupts of line 5, an edge or a level, and say each time how many there were.
LINE_5 = {
    trigger: bytes.fromhex(
        "bb0000e0fe"
        "c783f0000000ff010000"
        "b0ffe621e6a1"  # mov al, 0xff; out 0x21, al; out 0xa1, al: not by the PICs
        "bf0000c0fe"  # mov edi, IOAPIC
        "c7071b000000c7471000000000"  # high half of line 5: the first LAPIC
        f"c7071a000000c74710{_le(bits, 4)}"  # low half
        "66baf401"  # mov dx, PORT
        "fa8b042500600000ef"  # again: cli; mov eax, [DATA]; out dx, eax
        "fbf4ebf3"  # sti; hlt; jmp again: no interrupt comes between the two
    )
    for trigger, bits in {"edge": VECTOR, "level": 1 << 15 | VECTOR}.items()
}
# Say the TSC, low half first, for ever.
READ_TSC = bytes.fromhex(
    "66baf401"  # mov dx, PORT
    "0f3189d6"  # again: rdtsc; mov esi, edx
    "66baf401ef"  # mov dx, PORT; out dx, eax
    "89f0efebf2"  # mov eax, esi; out dx, eax; jmp again
)
TRIPLE_FAULT = bytes.fromhex("0f0b")  # ud2, with nobody to take it


def checksums(count: int) -> list[int]:
    """What the checksum loop writes to its port, computed here."""
    said, x, n = [], 1, 0
    for k in range(1, count + 1):
        for _ in range(ROUND):
            x = ((x << 5 | x >> 27) + n) & MASK
            n += 1
        said.append(x)
        x = (x ^ from_port(k)) + from_device(k) & MASK
    return said


def from_port(k: int) -> int:
    """What a port answers the k-th time."""
    return k * 0x9E3779B1 & MASK


def from_device(k: int) -> int:
    """What the device in memory answers the k-th time."""
    return k * 0x85EBCA6B & MASK


class Devices:
    """What guests talk to; it outlives any VM, as devices' state does."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.machine: Machine | None = None  # the last one that was made
        self.said: dict[int, list[int]] = {}  # by port
        self.read: dict[int, int] = {}  # how often, by port or address

    def pio_write(self, port: int, size: int, value: int) -> int:
        with self.lock:
            self.said.setdefault(port, []).append(value)
        return 0

    def pio_read(self, port: int, size: int) -> int:
        return from_port(self._again(port))

    def mmio_write(self, gpa: int, size: int, value: int) -> int:
        if gpa & ~0xFFF == IOAPIC:
            self.machine.vcpus.ioapic.mmio_write(gpa & 0xFFF, size, value)
        return 0

    def mmio_read(self, gpa: int, size: int) -> int:
        if gpa & ~0xFFF == IOAPIC:
            return self.machine.vcpus.ioapic.mmio_read(gpa & 0xFFF, size)
        return from_device(self._again(gpa))

    def _again(self, where: int) -> int:
        with self.lock:
            self.read[where] = self.read.get(where, 0) + 1
            return self.read[where]

    def wait_for(self, count: int, port: int = PORT) -> None:
        """Return when a port was written so often."""
        self.wait_until(lambda: len(self.said.get(port, ())) >= count)

    def wait_until(self, happened: Callable[[], object]) -> None:
        """Return when something has happened."""
        deadline = time.monotonic() + 30
        while not happened():
            assert time.monotonic() < deadline, f"not within 30 s: {self.report()}"
            time.sleep(0.001)

    def report(self) -> str:
        """Return what is known of a guest that does not go on."""
        machine = self.machine
        if machine is None:
            return "there is no machine"
        registers = {name: hex(value) for name, value in machine.vcpus.registers(0).items()}
        lapic = machine.vcpus.parked(
            lambda: machine.vcpus.vcpus[0].get(uapi.GET_LAPIC, uapi.LAPIC_SIZE)
        )
        said = {port: values[-3:] for port, values in self.said.items()}
        pending = lapic[0x100:0x180].hex(), lapic[0x200:0x280].hex()
        return f"{machine.wishes} {machine.bugs} said {said} pending {pending} {registers}"


class Machine:
    """vCPUs with the RAM of a guest, and what they came out with."""

    def __init__(
        self, ram: mmap.mmap, devices: Devices, *, vcpus: int = 1, **options: int
    ) -> None:
        self.bugs: list[BaseException] = []
        self.wishes: list[str] = []
        self.expected: list[str] = []
        self.vcpus = KvmVcpus(
            Kvm(),
            KvmOptions(count=vcpus, cpu=CpuModel("host"), **options),
            bus=devices,
            wishes=Wishes(
                bug=self.bugs.append,
                reset=lambda: self.wishes.append("reset"),
                shutdown=lambda: self.wishes.append("shutdown"),
            ),
        )
        devices.machine = self
        self.vcpus.memory.add(0, RAM, _run.address_of(ram))

    def start(self) -> None:
        self.vcpus.clock_start()
        self.vcpus.resume()

    def stop(self) -> None:
        self.vcpus.pause()
        self.vcpus.clock_stop()
        assert (self.bugs, self.wishes) == ([], self.expected)

    def save(self) -> list[dict]:
        return [save(item.save_state()) for item in self.vcpus.states]

    def load(self, records: list[dict]) -> None:
        states = [
            load(item.state_class, item.state_class.state_version, record)
            for item, record in zip(self.vcpus.states, records, strict=True)
        ]
        for item, state in zip(self.vcpus.states, states, strict=True):
            check = getattr(item, "check_against", bool)
            check(state)
        for item, state in zip(self.vcpus.states, states, strict=True):
            item.load_state(state)

    def close(self) -> None:
        self.vcpus.pause()
        self.vcpus.close()


def new_ram(fd: int = -1) -> mmap.mmap:
    return mmap.mmap(fd, RAM)


def boot_real(machine: Machine, ram: mmap.mmap) -> None:
    put(ram, CODE, loop16(PORT, DEVICE))
    machine.vcpus.reset()
    machine.vcpus.start_real(CODE)


def boot_protected(machine: Machine, ram: mmap.mmap) -> None:
    put(ram, CODE, loop32(PORT, DEVICE))
    machine.vcpus.reset()
    machine.vcpus.start_protected(CODE, {"rbx": 0x1234})


def boot_long(machine: Machine, ram: mmap.mmap, code: bytes = b"") -> None:
    """Start 64-bit code with interrupts at VECTOR handled by HANDLER."""
    put(ram, CODE, code or loop64(PORT, DEVICE))
    put(ram, AP_CODE, loop16(AP_PORT, AP_DEVICE))
    handler = CODE + 0x800
    put(ram, handler, HANDLER)
    put(ram, GDT, struct.pack("<4Q", 0, 0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF))
    gate = struct.pack("<HHBBHII", handler, 0x10, 0, 0x8E, 0, 0, 0)
    put(ram, IDT + 16 * VECTOR, gate)
    put(ram, TABLES, struct.pack("<Q", TABLES + 0x1000 | 3))
    put(ram, TABLES + 0x1000, struct.pack("<4Q", TABLES + 0x2000 | 3, 0, 0, LAST_TABLE | 3))
    put(ram, TABLES + 0x2000, struct.pack("<Q", 0x83))
    for chip in (APIC, IOAPIC):
        put(ram, LAST_TABLE + 8 * (chip >> 21 & 511), struct.pack("<Q", chip | 0x9B))
    machine.vcpus.reset()
    machine.vcpus.start_long_mode(CODE, TABLES, {"rsp": STACK}, (GDT, 31))
    first = machine.vcpus.vcpus[0]
    sregs = bytearray(first.get(uapi.GET_SREGS, uapi.SREGS_SIZE))
    uapi.DTABLE.pack_into(sregs, uapi.DTABLES_AT + uapi.DTABLE.size, IDT, 16 * VECTOR + 15)
    first.set(uapi.SET_SREGS, bytes(sregs))


def put(ram: mmap.mmap, at: int, data: bytes) -> None:
    ram[at : at + len(data)] = data
