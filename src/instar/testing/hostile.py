"""A guest's driver that does what bytes say: loops, wild addresses, lengths of 0 and 4 GiB, indexes that move.

Property tests and fuzz targets share it: any bytes are a script.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from instar.testing.virtio_driver import INDIRECT, NEXT, WRITE

if TYPE_CHECKING:
    from collections.abc import Callable

    from instar.testing.virtio_driver import Ring, VirtioDriver

STEPS = 64  # of one script: it stays short, whatever its bytes
_CONTENT = 96  # bytes of a buffer that a script may fill
_LENGTHS = (0, 1, 8, 16, 0x7FFF_FFFF, 0xFFFF_FFFF, 0xFFFF_F000, 1 << 20)


class Script:
    """Numbers out of bytes that somebody made up; zeros after their end.

    Args:
        data: Anything.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        """Whether something is left."""
        return self._at < len(self._data)

    def bytes(self, size: int) -> bytes:
        """Return the next ``size`` bytes, fewer at the end."""
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self, size: int = 1) -> int:
        """Return the next number of ``size`` bytes."""
        return int.from_bytes(self.bytes(size), "little")


class HostileDriver:
    """Drive a slot as a script says.

    Args:
        driver: Started; its RAM is used.
        act: Lets the host's side of the device do something; it is given any number from 0 to 255.
    """

    def __init__(self, driver: VirtioDriver, act: Callable[[int], object]) -> None:
        self.driver = driver
        self._act = act
        self._heap = driver.rings[0].desc
        self._count = len(driver.rings)
        self._size = driver.rings[0].size
        self._buffers = (driver.heap + 0xFFF) & ~0xFFF

    def restart(self) -> None:
        """Reset the device and begin anew, as a driver that is loaded again."""
        self.driver.heap = self._heap
        self.driver.start(queues=self._count, size=self._size)

    def run(self, data: bytes) -> None:
        """Do what ``data`` says, at most STEPS steps of it."""
        script = Script(data)
        steps = (
            self._chain, self._chain, self._descriptor, self._offer, self._index,
            self._register, self._kick, self._host, self._indirect, self._overwrite, self._restart,
        )  # fmt: skip
        for _ in range(STEPS):
            if not script:
                break
            step = steps[script.number() % len(steps)]
            step(script, self.driver.rings[script.number() % self._count])

    def _chain(self, script: Script, ring: Ring) -> None:
        """Offer a chain that is well made; what is in it may be anything."""
        count = script.number() % 4 + 1
        first = script.number()
        for n in range(count):
            gpa, length, flags = self._buffer(script)
            more = NEXT if n + 1 < count else 0
            slot, following = (first + n) % ring.size, (first + n + 1) % ring.size
            self.driver.put_desc(ring.desc, slot, gpa, length, flags | more, following)
        self.driver.offer(first % ring.size, queue=ring.index)
        self.driver.kick(ring.index)

    def _buffer(self, script: Script) -> tuple[int, int, int]:
        kind = script.number()
        gpa = self._buffers + 0x1000 * (kind & 0xF)
        if kind & 0x80:
            return gpa, script.number(2) % 0x2000, WRITE
        content = script.bytes(min(script.number(), _CONTENT))
        self.driver.memory.write(gpa, content)
        return gpa, len(content), 0

    def _descriptor(self, script: Script, ring: Ring) -> None:
        index = script.number() % ring.size
        gpa, length = self._address(script, ring), self._length(script)
        flags, following = script.number() & 7, script.number()
        self.driver.put_desc(ring.desc, index, gpa, length, flags, following)

    def _address(self, script: Script, ring: Ring) -> int:
        kind = script.number() % 6
        if kind == 0:
            return script.number(8)
        known = (0, ring.desc, ring.used, self.driver.end - 8, self._buffers)
        return known[kind - 1] + script.number(2)

    def _length(self, script: Script) -> int:
        kind = script.number()
        return script.number(2) if kind & 1 else _LENGTHS[(kind >> 1) % len(_LENGTHS)]

    def _offer(self, script: Script, ring: Ring) -> None:
        self.driver.offer(script.number(), queue=ring.index)

    def _index(self, script: Script, ring: Ring) -> None:
        ring.next_avail = script.number(2)
        self.driver.memory.put_u16(ring.avail + 2, ring.next_avail)

    def _register(self, script: Script, ring: Ring) -> None:
        del ring
        offset = script.number(2) % 0x200
        size = 1 << script.number() % 4
        self.driver.write(offset, script.number(size), size)
        self.driver.read(offset, size)

    def _kick(self, script: Script, ring: Ring) -> None:
        del script
        self.driver.kick(ring.index)

    def _host(self, script: Script, ring: Ring) -> None:
        del ring
        self._act(script.number())

    def _indirect(self, script: Script, ring: Ring) -> None:
        """Offer a table elsewhere, of any descriptors, one of which may be a table again."""
        table, count = self._buffers + 0x10000, script.number() % 8
        for n in range(count):
            gpa, length = self._address(script, ring), self._length(script)
            flags, following = script.number() & 7, script.number() % 8
            self.driver.put_desc(table, n, gpa, length, flags, following)
        slot = script.number() % ring.size
        size = 16 * count + script.number() // 255
        self.driver.put_desc(ring.desc, slot, table, size, INDIRECT, 0)
        self.driver.offer(slot, queue=ring.index)

    def _overwrite(self, script: Script, ring: Ring) -> None:
        """Change a buffer, or the rings, under the device's hands."""
        gpa = (self._buffers, ring.desc, ring.avail, ring.used)[script.number() % 4]
        self.driver.memory.write(gpa + script.number() * 4, script.bytes(16))

    def _restart(self, script: Script, ring: Ring) -> None:
        del script, ring
        self.restart()
