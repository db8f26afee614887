"""Guest memory: RAM blocks, the back ends that hold them, and the guest's physical address space."""

from instar.memory.address_space import AddressSpace, GuestMemory
from instar.memory.backend import BackendSpec, RamBlock, open_backend

__all__ = ["AddressSpace", "BackendSpec", "GuestMemory", "RamBlock", "open_backend"]
