"""A CPU with a megabyte of RAM, no devices, and programs written straight into memory."""

import ctypes
import mmap

from instar.cpu.rv64 import _core

RAM_BASE = 0x8000_0000


class NoBus:
    """A bus with nothing on it."""

    def mmio_read(self, _gpa, _size):
        return -1

    def mmio_write(self, _gpa, _size, _value):
        return -1

    def sbi(self, _hart, _eid, _fid, _args):
        return (-2, 0)


class BareCore:
    """One hart that starts at RAM_BASE in supervisor mode and counts instructions for time."""

    def __init__(self, *, size=1 << 20, bus=None, harts=1, icount_shift=0):
        self.memory = mmap.mmap(-1, size)
        self.bus = bus or NoBus()
        self._anchor = ctypes.c_char.from_buffer(self.memory)
        self.core = _core.Core(
            ram_addr=ctypes.addressof(self._anchor),
            ram_base=RAM_BASE,
            ram_size=size,
            harts=harts,
            bus=self.bus,
            icount_shift=icount_shift,
        )

    def write(self, address, data):
        at = address - RAM_BASE
        self.memory[at : at + len(data)] = data
        self.core.dma_written(address, len(data))

    def read(self, address, length):
        at = address - RAM_BASE
        return self.memory[at : at + length]

    def start(self, image, *, at=RAM_BASE, a0=0, a1=0):
        self.core.reset()
        self.write(at, image)
        self.core.start_hart(0, at, a0, a1)

    def run_until_idle(self, limit=1_000_000):
        """Run until all harts wait for an interrupt."""
        reason = self.core.run(limit)
        assert reason == _core.EXIT_IDLE, f"run ended with {reason}: {self.core.save_hart(0)}"
