"""What a guest sees of CPUID: the host's, or a model's part of it, for each vCPU.

Entries are those of KVM_GET_SUPPORTED_CPUID with bits taken away, never with bits that the host lacks. Topology is
one socket with a core for each vCPU. Of a model are features and signature; name, caches and the highest leaf stay the
host's.

Source: Linux Documentation/virt/kvm/api.rst 4.46; AMD64 Architecture Programmer's Manual 3, appendix E; Intel SDM 2,
CPUID, leaves 4, 0xB, 0xD, 0x1F.
"""

from __future__ import annotations

from instar.cpu.kvm import uapi
from instar.cpu.kvm.features import (
    ALIASES,
    EAX,
    EBX,
    ECX,
    EDX,
    FEATURES_ONLY,
    KVMS,
    MODELS,
    OURS,
    PLACES,
    TILES,
    UNSAVED,
    WORDS,
)
from instar.cpu.kvm.state import CPU_TEXT
from instar.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Final

    from instar.cpu.kvm.features import Word
    from instar.cpu.kvm.kvm import CpuidEntry

HOST: Final = ("host", "max")
_TOPOLOGY: Final = (0xB, 0x1F)
_HYPERVISOR: Final = 0x40000000
_HYPERVISOR_LAST: Final = 0x40000001
_EXTENDED_STATE: Final = 0xD
_LEGACY_AREA: Final = 576  # x87, SSE and the header of an XSAVE area
_SMT, _CORE = 1 << 8, 2 << 8
_L3: Final = 3
_TILE_DATA: Final = 18
# Components of the extended state and the feature without which there are none; 0 and 1 are always there.
_COMPONENTS: Final = {
    2: "avx",
    3: "mpx",
    4: "mpx",
    5: "avx512f",
    6: "avx512f",
    7: "avx512f",
    9: "pku",
    17: "amx-tile",
    18: "amx-tile",
}


class CpuModel:
    """What ``-cpu`` says.

    Args:
        text: ``host`` or a name of ``MODELS``, then ``+feature``, ``-feature``, ``feature=on|off``, ``enforce``.

    Attributes:
        text: In one spelling: what two programs compare.

    Raises:
        ConfigError: There is no such model or feature, or there are more features than a state can hold.
    """

    __slots__ = ("_off", "_on", "name", "text")

    def __init__(self, text: str) -> None:
        self.name, *options = text.split(",")
        if self.name not in HOST and self.name not in MODELS:
            known = ", ".join(("host", *MODELS))
            raise ConfigError(f"-cpu {self.name}: there is no such model; there are {known}")
        self._on: set[str] = set()
        self._off: set[str] = set()
        for option in options:
            self._take(option)
        changes = [f"+{name}" for name in sorted(self._on)]
        changes += [f"-{name}" for name in sorted(self._off)]
        self.text = ",".join((self.name, *changes))
        if len(self.text) > CPU_TEXT:
            raise ConfigError(
                f"-cpu {self.name}: {len(self.text)} bytes of features, at most {CPU_TEXT} cross an update"
            )

    def _take(self, option: str) -> None:
        if option in ("enforce", "check", "enforce=on", "check=on", "migratable=on"):
            return  # a model whose features are not all here is always refused
        if option[:1] in ("+", "-") and option[1:2] in ("+", "-"):
            raise ConfigError(f"-cpu {self.name}: {option!r} has two signs, a feature has one")
        name, _, value = option.removeprefix("+").removeprefix("-").partition("=")
        name = ALIASES.get(name, name)
        if name not in PLACES or value not in ("", "on", "off"):
            raise ConfigError(f"-cpu {self.name}: {option!r} is no feature of a CPU")
        on = value != "off" and not option.startswith("-")
        (self._on if on else self._off).add(name)
        (self._off if on else self._on).discard(name)

    def entries(self, host: Sequence[CpuidEntry]) -> list[CpuidEntry]:
        """Return the model's part of what KVM supports on this host.

        Raises:
            ConfigError: The host lacks a feature, or is of another vendor; named.
        """
        host = _whole(host)
        vendor, signature, features = MODELS.get(self.name, ("", 0, ""))
        if vendor and vendor != vendor_of(host):
            raise ConfigError(
                f"-cpu {self.name} is a model of {vendor}, this host's CPU is of {vendor_of(host)}"
            )
        has = words_of(host)
        wanted = set(features.split()) | self._on
        missing = sorted(name for name in wanted - self._off - OURS if not _is_set(has, name))
        if missing:
            raise ConfigError(f"-cpu {self.text}: this host lacks {', '.join(missing)}")
        masks = dict(has) if self.name in HOST else _mask_of(wanted | OURS)
        for name in self._off:
            word, bit = PLACES[name]
            masks[word] = masks.get(word, 0) & ~(1 << bit)
        masks.setdefault(KVMS, has.get(KVMS, 0))
        masked = [_masked(entry, masks) for entry in host]
        if self.name not in HOST:
            masked = [_named_only(entry) for entry in masked]
        return _extended_state([_signed(entry, signature) for entry in masked])


def vendor_of(entries: Sequence[CpuidEntry]) -> str:
    """Return the vendor's name."""
    for entry in entries:
        if entry[0] == 0:
            parts = (entry[EBX], entry[EDX], entry[ECX])
            return b"".join(part.to_bytes(4, "little") for part in parts).decode("latin-1")
    return ""


def words_of(entries: Sequence[CpuidEntry]) -> dict[Word, int]:
    """Return what entries say in the words whose bits have names."""
    found: dict[tuple[int, int], CpuidEntry] = {(e[0], e[1]): e for e in entries}
    return {
        word: found[word[0], word[1]][word[2]] for word in WORDS if (word[0], word[1]) in found
    }


def lacking(guest: Sequence[CpuidEntry], host: Sequence[CpuidEntry]) -> list[str]:
    """Return the features that a guest uses and this host does not have, by name."""
    theirs, ours = words_of(guest), words_of(host)
    missing: list[str] = []
    for word, names in WORDS.items():
        bits = theirs.get(word, 0) & ~ours.get(word, 0)
        for bit in range(bits.bit_length()):
            name = names[bit] if bit < len(names) else "."
            if bits >> bit & 1 and name not in OURS:
                missing.append(name if name != "." else f"bit {bit} of leaf {word[0]:#x}")
    return missing


def extended_components(entries: Sequence[CpuidEntry]) -> int:
    """Return which components of the extended state there are, as bits of XCR0 and IA32_XSS."""
    found = 3  # x87 and SSE
    for entry in entries:
        if entry[0] == _EXTENDED_STATE and entry[1] == 0:
            found |= entry[EAX] | entry[EDX] << 32
        if entry[0] == _EXTENDED_STATE and entry[1] == 1:
            found |= entry[ECX] | entry[EDX] << 32
    return found


def for_vcpu(
    entries: Sequence[CpuidEntry], number: int, count: int, *, deadline: bool
) -> list[CpuidEntry]:
    """Return what vCPU ``number`` of ``count`` sees: its APIC id, who its neighbours are, and that KVM runs it.

    Args:
        entries: Of :meth:`CpuModel.entries`.
        number: It is its APIC id.
        count: 1 to 255.
        deadline: There is a LAPIC with a TSC deadline timer.
    """
    made: list[CpuidEntry] = []
    for entry in entries:
        change = _FOR_VCPU.get(entry[0])
        if entry[0] in _TOPOLOGY:
            continue
        made.append(change(entry, number, count) if change else entry)
    made += [
        row for leaf in _TOPOLOGY if _reaches(entries, leaf) for row in _rows(leaf, number, count)
    ]
    return [_timer(entry, deadline=deadline) if entry[0] == 1 else entry for entry in made]


def _reaches(entries: Sequence[CpuidEntry], leaf: int) -> bool:
    """Whether the highest leaf is not below; 0x1F is only for vendors that have it."""
    return any(e[0] == 0 and e[EAX] >= leaf for e in entries) and (
        leaf == 0xB or any(e[0] == leaf and any(e[EAX:]) for e in entries)
    )


def _rows(leaf: int, number: int, count: int) -> list[CpuidEntry]:
    shift = (count - 1).bit_length()
    significant = uapi.CPUID_SIGNIFICANT_INDEX
    return [
        (leaf, 0, significant, 0, 1, _SMT, number),
        (leaf, 1, significant, shift, count, _CORE | 1, number),
        (leaf, 2, significant, 0, 0, 2, number),
    ]


def _leaf_1(entry: CpuidEntry, number: int, count: int) -> CpuidEntry:
    function, index, flags, eax, ebx, ecx, edx = entry
    ebx = ebx & 0xFF00 | number << 24 | count << 16
    ecx |= 1 << 31  # hypervisor
    ecx &= ~(1 << 27)  # OSXSAVE follows CR4
    edx = edx | 1 << 28 if count > 1 else edx & ~(1 << 28)
    return function, index, flags, eax, ebx, ecx, edx


def _timer(entry: CpuidEntry, *, deadline: bool) -> CpuidEntry:
    function, index, flags, eax, ebx, ecx, edx = entry
    ecx = ecx | 1 << 24 if deadline else ecx & ~(1 << 24)
    return function, index, flags, eax, ebx, ecx, edx


def _caches(entry: CpuidEntry, _number: int, count: int) -> CpuidEntry:
    """Intel's leaf 4 and AMD's 0x8000001D: who shares a cache, and how many cores there are."""
    function, index, flags, eax, ebx, ecx, edx = entry
    if not eax & 31:  # no more caches
        return entry
    level = eax >> 5 & 7
    eax &= 0x00003FFF if function == 4 else 0xFC003FFF
    eax |= (count - 1 if level == _L3 else 0) << 14
    if function == 4:
        eax |= min(count - 1, 63) << 26
    return function, index, flags, eax, ebx, ecx, edx


def _cores(entry: CpuidEntry, _number: int, count: int) -> CpuidEntry:
    function, index, flags, eax, ebx, _, edx = entry
    return function, index, flags, eax, ebx, count - 1 | (count - 1).bit_length() << 12, edx


def _compute_unit(entry: CpuidEntry, number: int, _count: int) -> CpuidEntry:
    function, index, flags, *_ = entry
    return function, index, flags, number, number, 0, 0


def _legacy(entry: CpuidEntry, _number: int, count: int) -> CpuidEntry:
    function, index, flags, eax, ebx, ecx, edx = entry
    ecx = ecx | 2 if count > 1 else ecx & ~2  # several cores in one package
    return function, index, flags, eax, ebx, ecx, edx


def _kvm(entry: CpuidEntry, _number: int, _count: int) -> CpuidEntry:
    function, index, flags, _, ebx, ecx, edx = entry
    return function, index, flags, _HYPERVISOR_LAST, ebx, ecx, edx


_FOR_VCPU: Final = {
    1: _leaf_1,
    4: _caches,
    _HYPERVISOR: _kvm,
    0x80000001: _legacy,
    0x80000008: _cores,
    0x8000001D: _caches,
    0x8000001E: _compute_unit,
}


def _whole(host: Sequence[CpuidEntry]) -> list[CpuidEntry]:
    """Return what a guest can use of a host: no feature whose state is not saved, or has no component here."""
    gone: set[str] = set(UNSAVED)
    if not extended_components(host) >> _TILE_DATA & 1:  # for programs that asked the kernel
        gone.update(TILES)
    masks = words_of(host)
    for name in gone:
        word, bit = PLACES[name]
        masks[word] = masks.get(word, 0) & ~(1 << bit)
    return [_masked(entry, masks) for entry in host]


def _named_only(entry: CpuidEntry) -> CpuidEntry:
    """Take away features that have no names here: hosts of a fleet may differ in them."""
    if entry[0] not in FEATURES_ONLY or entry[:2] == (7, 0):
        return entry
    values = list(entry)
    for register in (EAX, EBX, ECX, EDX):
        if (entry[0], entry[1], register) not in WORDS:
            values[register] = 0
    return _entry(values)


def _is_set(words: Mapping[Word, int], name: str) -> bool:
    word, bit = PLACES[name]
    return bool(words.get(word, 0) >> bit & 1)


def _mask_of(names: Iterable[str]) -> dict[Word, int]:
    masks = dict.fromkeys((word for word in WORDS if word != KVMS), 0)
    for name in names:
        word, bit = PLACES[name]
        masks[word] |= 1 << bit
    return masks


def _masked(entry: CpuidEntry, masks: Mapping[Word, int]) -> CpuidEntry:
    changed = list(entry)
    for register in (EAX, EBX, ECX, EDX):
        mask = masks.get((entry[0], entry[1], register))
        if mask is not None:
            changed[register] &= mask | _shared_with_leaf_1(entry[0], register, masks)
    return _entry(changed)


def _shared_with_leaf_1(function: int, register: int, masks: Mapping[Word, int]) -> int:
    """AMD repeats bits of leaf 1 in 0x80000001 EDX."""
    if (function, register) != (0x80000001, EDX):
        return 0
    return masks[1, 0, EDX] & 0x0183F3FF


def _signed(entry: CpuidEntry, signature: int) -> CpuidEntry:
    if not signature or entry[0] not in (1, 0x80000001) or not entry[EAX]:
        return entry
    return _entry([*entry[:EAX], signature, *entry[EBX:]])


def _extended_state(entries: list[CpuidEntry]) -> list[CpuidEntry]:
    """Take away the components of features that are masked, and say how large the area is without them."""
    words = words_of(entries)
    gone = 0
    for component, feature in _COMPONENTS.items():
        gone |= 0 if _is_set(words, feature) else 1 << component
    if not _is_set(words, "xsave"):
        return [_entry([*e[:EAX], 0, 0, 0, 0]) if e[0] == _EXTENDED_STATE else e for e in entries]
    kept: list[CpuidEntry] = []
    size = _LEGACY_AREA
    for entry in entries:
        if entry[0] != _EXTENDED_STATE or entry[1] < 2:
            kept.append(entry)
        elif not gone >> entry[1] & 1:
            kept.append(entry)
            if not entry[ECX] & 1:  # of XCR0, not of IA32_XSS
                size = max(size, entry[EAX] + entry[EBX])
    return [_sized(entry, gone, size) for entry in kept]


def _sized(entry: CpuidEntry, gone: int, size: int) -> CpuidEntry:
    if entry[0] != _EXTENDED_STATE or entry[1] != 0:
        return entry
    function, index, flags, eax, ebx, _, edx = entry
    return function, index, flags, eax & ~gone, ebx, size, edx & ~(gone >> 32)


def _entry(values: Sequence[int]) -> CpuidEntry:
    function, index, flags, eax, ebx, ecx, edx = values
    return function, index, flags, eax, ebx, ecx, edx
