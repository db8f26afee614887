"""A core for tests of single instructions and short programs: RAM, optional devices, registers in and out."""

import ctypes
import mmap

from instar.cpu.rv64 import _core
from instar.cpu.rv64.asm import assemble

RAM = 0x8000_0000
SIZE = 4 << 20
MASK = (1 << 64) - 1


class Device:
    """A bus with one register window that remembers what it was asked; everything else is not there."""

    base = 0x1000_0000

    def __init__(self):
        self.log = []
        self.value = 0
        self.calls = []
        self.answer = (0, 0)
        self.on_access = lambda: None

    def mmio_read(self, gpa, size):
        self.log.append(("read", gpa, size))
        self.on_access()
        return self.value if gpa >> 12 == self.base >> 12 else -1

    def mmio_write(self, gpa, size, value):
        self.log.append(("write", gpa, size, value))
        self.on_access()
        return 0 if gpa >> 12 == self.base >> 12 else -1

    def sbi(self, hart, eid, fid, args):
        self.calls.append((hart, eid, fid, args))
        return self.answer


class Rig:
    """A core with its RAM and bus."""

    def __init__(
        self,
        *,
        harts=1,
        icount_shift=0,
        flush_everything=False,
        sstc=True,
        defers=False,
        bus=None,
        size=SIZE,
    ):
        self.ram = mmap.mmap(-1, size)
        self._anchor = ctypes.c_char.from_buffer(self.ram)
        self.bus = bus or Device()
        self.core = _core.Core(
            ram_addr=ctypes.addressof(self._anchor),
            ram_base=RAM,
            ram_size=size,
            harts=harts,
            bus=self.bus,
            icount_shift=icount_shift,
            flush_everything=flush_everything,
            sstc=sstc,
            defers=defers,
        )

    def write(self, address, data):
        self.ram[address - RAM : address - RAM + len(data)] = data
        self.core.dma_written(address, len(data))

    def read(self, address, size):
        return int.from_bytes(self.ram[address - RAM : address - RAM + size], "little")

    def put(self, address, value, size=8):
        self.write(address, value.to_bytes(size, "little"))

    def program(self, text, at=RAM):
        """Assemble to an address; return the symbols."""
        made = assemble(text, at)
        self.write(at, made.image)
        return made.symbols

    def machine(self, pc=RAM, hart=0, **fields):
        """Let a hart go on in machine mode."""
        self.core.load_hart(hart, {"pc": pc, "priv": 3, "hsm": 0, "wfi": 0, **fields})

    def supervisor(self, pc=RAM, hart=0):
        self.core.start_hart(hart, pc, hart, 0)

    def run(self, limit=100_000):
        return self.core.run(limit)

    def hart(self, index=0):
        return self.core.save_hart(index)

    def x(self, number, hart=0):
        return self.core.save_hart(hart)["x"][number]

    def one(self, word, x, size=4):
        """Execute one instruction with these registers; return the hart after it."""
        self.write(RAM, word.to_bytes(size, "little"))
        self.machine(x=x)
        self.run(1)
        return self.hart()


def registers(**values):
    """Return 32 registers with some set, as x5=1."""
    x = [0] * 32
    for name, value in values.items():
        x[int(name[1:])] = value & MASK
    return x


def signed(value, bits=64):
    value &= (1 << bits) - 1
    return value - (value >> (bits - 1) << bits)
