"""A ring and its chains by themselves: what is taken is answered, or the guest is to blame."""

import fuzz_paths  # noqa: F401

from instar.cpr import state as states
from instar.errors import GuestError
from instar.testing.fakes import RAM_BASE, make_space
from instar.testing.hostile import Script
from instar.virtio.features import EVENT_IDX, INDIRECT_DESC
from instar.virtio.queue import Queue
from instar.virtio.state import QueueState

SIZE = 8
DESC, AVAIL, USED, DATA = (RAM_BASE + n * 0x1000 for n in range(4))
RAM = 1 << 16


def fuzz(data: bytes) -> None:
    """Features, what is done with chains, then the bytes of descriptors, available ring, used ring and buffers."""
    script = Script(data)
    how = script.number()
    space = make_space(RAM)
    memory = space.memory
    state = QueueState(size=SIZE, desc=DESC, avail=AVAIL, used=USED)
    told = []
    queue = Queue("fuzz", memory, state, 64, lambda: told.append(1))
    queue.features = (INDIRECT_DESC if how & 1 else 0) | (EVENT_IDX if how & 2 else 0)
    queue.enable()
    memory.write(AVAIL, script.bytes(6 + 2 * SIZE))
    memory.write(DESC, script.bytes(16 * SIZE))
    memory.write(DATA, script.bytes(256))
    for _ in range(3):
        turn(queue, script, take=bool(how & 4))
    assert state.in_flight == []
    assert states.load(QueueState, 1, states.save(state)) == state


def turn(queue: Queue, script: Script, *, take: bool) -> None:
    """Take what is there, partly put it back, move the index, answer."""
    state, taken = queue.state, []
    used = state.next_used
    try:
        for chain in queue.peek():
            use(queue, chain)
            if take:
                queue.take(chain)
                taken.append(chain)
            else:
                queue.complete(chain, chain.room & 0xFFFF)
    except GuestError as error:
        assert str(error)
    if taken and script.number() & 1:
        queue.put_back(taken[len(taken) // 2 :])
        taken = taken[: len(taken) // 2]
    try:
        heads = [chain.head for chain in queue.in_flight()]
        assert heads == [chain.head for chain in taken]
    except GuestError:
        pass  # changed meanwhile
    for chain in taken:
        queue.complete(chain, 0)
    queue.notify()
    assert (state.next_used - used) & 0xFFFF <= SIZE
    queue.memory.put_u16(AVAIL + 2, script.number(2))


def use(queue: Queue, chain) -> None:
    """Read and write all of it, as a device may."""
    assert len(chain.read(0, min(chain.size, 4096))) == min(chain.size, 4096)
    chain.write(bytes(min(chain.room, 4096)))
    parts = [*chain.readable, *chain.writable]
    assert sum(len(view) for _, view in parts) == chain.size + chain.room
    assert all(RAM_BASE <= gpa <= gpa + len(view) <= RAM_BASE + RAM for gpa, view in parts)


def seeds() -> list[bytes]:
    """Chains of one, two and many descriptors, plain and indirect."""

    def desc(gpa: int, length: int, flags: int, following: int) -> bytes:
        return (
            gpa.to_bytes(8, "little")
            + length.to_bytes(4, "little")
            + bytes([flags, 0, following, 0])
        )

    avail = bytes([0, 0, 2, 0, 0, 0, 3, 0]).ljust(6 + 2 * SIZE, b"\0")
    plain = b"".join(desc(DATA + 16 * n, 16, 1 | n & 2, n + 1) for n in range(7)) + desc(
        DATA, 9, 2, 0
    )
    table = desc(DATA, 64, 4, 0) * SIZE
    inner = desc(DATA + 0x100, 32, 1, 1) + desc(DATA + 0x200, 32, 2, 0) * 3
    return [bytes([how]) + avail + part + inner for how in range(8) for part in (plain, table)]
