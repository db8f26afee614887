"""Names of what CPUID says bit by bit, and what some processors have: tables only.

Names are QEMU's (``-cpu help``); "." stands for a bit that has none here.

Source: AMD64 Architecture Programmer's Manual 3, appendix E; Intel SDM 2, CPUID; Linux
Documentation/virt/kvm/x86/cpuid.rst; x86-64 psABI 1.0, 3.1.1 "Processor Architecture" for the levels.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

EAX: Final = 3  # places in an entry: function, index, flags, eax, ebx, ecx, edx
EBX: Final = 4
ECX: Final = 5
EDX: Final = 6

Word = tuple[int, int, int]  # function, index, register

WORDS: Final[dict[Word, tuple[str, ...]]] = {
    word: tuple(names.split())
    for word, names in {
        (1, 0, EDX): "fpu vme de pse tsc msr pae mce cx8 apic . sep mtrr pge mca cmov"
        " pat pse36 pn clflush . ds acpi mmx fxsr sse sse2 ss ht tm ia64 pbe",
        (
            1,
            0,
            ECX,
        ): "sse3 pclmulqdq dtes64 monitor ds-cpl vmx smx est tm2 ssse3 cid . fma cx16 xtpr pdcm"
        " . pcid dca sse4.1 sse4.2 x2apic movbe popcnt tsc-deadline aes xsave osxsave avx f16c rdrand hypervisor",
        (6, 0, EAX): ". . arat",
        (
            7,
            0,
            EBX,
        ): "fsgsbase tsc-adjust sgx bmi1 hle avx2 . smep bmi2 erms invpcid rtm . zero-fcs-fds mpx ."
        " avx512f avx512dq rdseed adx smap avx512ifma pcommit clflushopt"
        " clwb intel-pt avx512pf avx512er avx512cd sha-ni avx512bw avx512vl",
        (
            7,
            0,
            ECX,
        ): ". avx512vbmi umip pku ospke waitpkg avx512vbmi2 shstk gfni vaes vpclmulqdq avx512vnni"
        " avx512bitalg . avx512-vpopcntdq . la57 . . . . . rdpid . bus-lock-detect cldemote . movdiri movdir64b"
        " . sgxlc pks",
        (
            7,
            0,
            EDX,
        ): ". . avx512-4vnniw avx512-4fmaps fsrm . . . avx512-vp2intersect . md-clear . . . serialize ."
        " tsx-ldtrk . . arch-lbr . . amx-bf16 avx512-fp16 amx-tile amx-int8 spec-ctrl stibp flush-l1d"
        " arch-capabilities core-capability ssbd",
        (
            7,
            1,
            EAX,
        ): ". . . . avx-vnni avx512-bf16 . cmpccxadd . . fzrm fsrs fsrc . . . . . . . . amx-fp16 . avx-ifma"
        " . . lam . . . . .",
        (0xD, 1, EAX): "xsaveopt xsavec xgetbv1 xsaves xfd",
        (
            0x80000001,
            0,
            EDX,
        ): ". . . . . . . . . . . syscall . . . . . . . mp nx . mmxext . . fxsr-opt pdpe1gb rdtscp"
        " . lm 3dnowext 3dnow",
        (
            0x80000001,
            0,
            ECX,
        ): "lahf-lm cmp-legacy svm extapic cr8legacy abm sse4a misalignsse 3dnowprefetch osvw ibs"
        " xop skinit wdt . lwp fma4 tce . nodeid-msr . tbm topoext perfctr-core perfctr-nb",
        (0x80000007, 0, EDX): ". . . . . . . . invtsc",
        (
            0x80000008,
            0,
            EBX,
        ): "clzero . xsaveerptr . . . . . . wbnoinvd . . ibpb . ibrs amd-stibp . stibp-always-on"
        " . . . . . . amd-ssbd virt-ssbd amd-no-ssb . amd-psfd",
        (
            0x8000000A,
            0,
            EDX,
        ): "npt lbrv svm-lock nrip-save tsc-scale vmcb-clean flushbyasid decodeassists . ."
        " pause-filter . pfthreshold avic . v-vmsave-vmload vgif",
        (
            0x80000021,
            0,
            EAX,
        ): "no-nested-data-bp fs-gs-base-ns lfence-always-serializing . . . null-sel-clr-base ."
        " auto-ibrs",
        (
            0x40000001,
            0,
            EAX,
        ): "kvmclock kvm-nopiodelay kvm-mmu kvmclock2 kvm-asyncpf kvm-steal-time kvm-pv-eoi"
        " kvm-pv-unhalt . kvm-pv-tlb-flush kvm-asyncpf-vmexit kvm-pv-ipi kvm-poll-control kvm-pv-sched-yield"
        " kvm-asyncpf-int kvm-msi-ext-dest-id . . . . . . . . kvmclock-stable-bit",
    }.items()
}
PLACES: Final[dict[str, tuple[Word, int]]] = {
    name: (word, bit)
    for word, names in WORDS.items()
    for bit, name in enumerate(names)
    if name != "."
}
ALIASES: Final = {"pni": "sse3", "lzcnt": "abm", "sse4_1": "sse4.1", "sse4_2": "sse4.2"}
# What is KVM's own or the board's, whatever the processor: no model says so, none needs it of the host.
OURS: Final = frozenset(("hypervisor", "ht", "cmp-legacy", "osxsave", "ospke", "tsc-deadline"))
KVMS: Final = (0x40000001, 0, EAX)  # the whole word is KVM's own
# Nobody sees what has state that is not saved: the pointer to a shadow stack is in no structure and no MSR of KVM.
UNSAVED: Final = ("shstk",)
TILES: Final = ("amx-bf16", "amx-fp16", "amx-int8", "amx-tile")
# Leaves that say features, but for (7, 0) nothing else: what has no name here is no part of a model.
FEATURES_ONLY: Final = frozenset(
    (7, 0xA, 0x12, 0x14, 0x1C, 0x1D, 0x1E, 0x24, 0x8000001B, 0x8000001F, 0x80000021, 0x80000022)
)

_BASE: Final = (
    "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2"
    " syscall nx lm x2apic tsc-deadline arat"
)
_V2: Final = f"{_BASE} cx16 lahf-lm popcnt sse3 sse4.1 sse4.2 ssse3"
_V3: Final = f"{_V2} abm avx avx2 bmi1 bmi2 f16c fma movbe xsave xsaveopt"
_V4: Final = f"{_V3} avx512f avx512bw avx512cd avx512dq avx512vl"
_EPYC: Final = (
    f"{_V3} aes pclmulqdq rdrand rdseed rdtscp pdpe1gb fxsr-opt mmxext osvw 3dnowprefetch misalignsse sse4a"
    " cr8legacy topoext fsgsbase smep adx smap clflushopt sha-ni xsavec xgetbv1"
)
_ROME: Final = f"{_EPYC} clwb rdpid umip clzero xsaveerptr wbnoinvd ibpb amd-stibp"
_MILAN: Final = f"{_ROME} pcid invpcid erms fsrm pku vaes vpclmulqdq amd-ssbd"
_HASWELL: Final = f"{_V3} aes pclmulqdq rdrand rdtscp pcid fsgsbase smep erms invpcid"
_SKYLAKE: Final = (
    f"{_HASWELL} rdseed adx smap 3dnowprefetch pdpe1gb clflushopt clwb avx512f avx512bw avx512cd avx512dq avx512vl"
    " pku xsavec xgetbv1"
)
_ICELAKE: Final = (
    f"{_SKYLAKE} spec-ctrl ssbd wbnoinvd umip la57 avx512vbmi avx512vbmi2 gfni vaes vpclmulqdq avx512vnni"
    " avx512bitalg avx512-vpopcntdq"
)
# Vendor ("": any), CPUID 1 EAX (0: the host's), features.
MODELS: Final[dict[str, tuple[str, int, str]]] = {
    "x86-64-v1": ("", 0, _BASE),
    "x86-64-v2": ("", 0, _V2),
    "x86-64-v3": ("", 0, _V3),
    "x86-64-v4": ("", 0, _V4),
    "EPYC": ("AuthenticAMD", 0x00800F12, _EPYC),
    "EPYC-Rome": ("AuthenticAMD", 0x00830F10, _ROME),
    "EPYC-Milan": ("AuthenticAMD", 0x00A00F11, _MILAN),
    "Haswell-noTSX": ("GenuineIntel", 0x000306F1, _HASWELL),
    "Skylake-Server": ("GenuineIntel", 0x00050654, f"{_SKYLAKE} hle rtm"),
    "Skylake-Server-noTSX-IBRS": ("GenuineIntel", 0x00050654, f"{_SKYLAKE} spec-ctrl"),
    "Icelake-Server-noTSX": ("GenuineIntel", 0x000606A0, _ICELAKE),
}
