"""Migration and update of a machine: QEMU's vocabulary over the engine ``instar.cpr``."""
