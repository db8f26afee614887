"""The memory that a back end sees: the guest's RAM and the rings between us."""

from __future__ import annotations

import fcntl
import mmap
import os

from instar.errors import ConfigError
from instar.vhostuser import protocol as p

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

    from instar.cpr.fds import Fds
    from instar.memory.address_space import RamRegion

RINGS_GPA: Final = 1 << 56  # where the back end sees our rings; no guest has RAM there
FD_OWNER: Final = "vhost-user"
RINGS: Final = 1  # id of the rings' named descriptor
_SHRINK_AND_GROW: Final = 0x0002 | 0x0004  # F_SEAL_*: a back end must not cut memory off under us


def share(ident: str, ram: Sequence[RamRegion], *, inert: bool = False) -> None:
    """Refuse RAM that the back end cannot see, and let nobody cut off what it can (in a rehearsal: that is done).

    Raises:
        ConfigError: a block is private.
    """
    for block in {region.block.id: region.block for region in ram}.values():
        if block.fd < 0 or not block.share:
            raise ConfigError(
                f"chardev {ident}: vhost-user needs shared RAM, and {block.id} is private; nothing was created"
            ).hint("-object memory-backend-memfd,id=ram0,size=... -machine memory-backend=ram0")
        if inert:
            continue
        try:
            fcntl.fcntl(block.fd, fcntl.F_ADD_SEALS, _SHRINK_AND_GROW)
        except OSError:  # a file of the user's: it can be truncated by whoever may write it anyway
            continue


def map_rings(fds: Fds, name: str, size: int, *, inert: bool = False) -> mmap.mmap:
    """Map the memory of the rings, that of the program before if there was one; in a rehearsal a copy of it.

    Raises:
        ConfigError: In a rehearsal: the program before has none.
    """
    fd = fds.find(name, RINGS)
    if inert and fd < 0:
        raise ConfigError(f"{name}: the program before has no rings, so its back end is a new one")
    if fd < 0:
        fd = os.memfd_create("vhost-user-rings", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SHRINK_AND_GROW)
        fds.resave(name, RINGS, fd, kind="memory", owner=FD_OWNER)
    return mmap.mmap(fd, size, mmap.MAP_PRIVATE if inert else mmap.MAP_SHARED)


def table(ram: Sequence[RamRegion], rings: int, size: int) -> tuple[bytes, list[int]]:
    """Return the memory table (SET_MEM_TABLE) and its descriptors; ``rings`` is the descriptor of ``size`` bytes."""
    regions = [(r.base, r.size, r.start, r.block.fd) for r in ram]
    regions.append((RINGS_GPA, size, 0, rings))
    data = p.TABLE.pack(len(regions), 0)
    data += b"".join(p.REGION.pack(gpa, size, gpa, start) for gpa, size, start, _ in regions)
    return data, [fd for *_, fd in regions]
