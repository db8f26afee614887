"""Made-up hosts, as KVM_GET_SUPPORTED_CPUID would describe them."""

from instar.cpu.kvm.features import EAX, EBX, ECX, EDX, MODELS, PLACES


def host(features, vendor="AuthenticAMD"):
    """Entries of a host with exactly these features."""
    parts = [int.from_bytes(vendor[n : n + 4].encode(), "little") for n in (0, 4, 8)]
    rows = {
        (0, 0): [0x1F, parts[0], parts[2], parts[1]],
        (1, 0): [0x00A10F11, 0x00010800, 0, 0],
        (4, 0): [0, 0, 0, 0],
        (6, 0): [0, 0, 0, 0],
        (7, 0): [1, 0, 0, 0],
        (7, 1): [0, 0, 0, 0],
        (0xB, 0): [0, 0, 0, 1],
        (0xD, 0): [0xE7, 0x980, 0x980, 0],
        (0xD, 1): [0, 0x980, 0, 0],
        (0xD, 2): [0x100, 0x240, 0, 0],
        (0xD, 5): [0x40, 0x340, 0, 0],
        (0xD, 6): [0x200, 0x380, 0, 0],
        (0xD, 7): [0x400, 0x580, 0, 0],
        (0x40000000, 0): [0x40000001, 0x4B4D564B, 0x564B4D56, 0x4D],
        (0x40000001, 0): [0x01007EFB, 0, 0, 0],
        (0x80000001, 0): [0x00A10F11, 0, 0, 0],
        (0x80000007, 0): [0, 0, 0, 0],
        (0x80000008, 0): [0x3030, 0, 0x7001, 0],
        (0x8000001D, 3): [0x03C04163, 0x03C0003F, 0x7FFF, 1],
        (0x8000001E, 0): [9, 9, 9, 0],
    }
    for name in features.split():
        (function, index, register), bit = PLACES[name]
        rows[function, index][register - EAX] |= 1 << bit
    return [(f, i, int(f in (4, 7, 0xB, 0xD)), *row) for (f, i), row in rows.items()]


EVERYTHING = " ".join(sorted({name for _, _, names in MODELS.values() for name in names.split()}))


def register(entries, function, index, place):
    """One register of an entry."""
    return next(e[place] for e in entries if e[:2] == (function, index))


def has(entries, name):
    (function, index, place), bit = PLACES[name]
    return bool(register(entries, function, index, place) >> bit & 1)


__all__ = ["EAX", "EBX", "ECX", "EDX", "EVERYTHING", "has", "host", "register"]
