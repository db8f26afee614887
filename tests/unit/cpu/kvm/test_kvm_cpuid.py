"""CPUID models: parts of what a host has, refused by name where it has less."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kvm_hosts import EAX, EBX, ECX, EDX, EVERYTHING, has, host, register

from instar.cpu.kvm.cpuid import (
    CpuModel,
    extended_components,
    for_vcpu,
    lacking,
    vendor_of,
    words_of,
)
from instar.cpu.kvm.features import MODELS, OURS, PLACES, WORDS
from instar.errors import ConfigError

AMD = host(EVERYTHING)
NAMED = [name for name, (vendor, _, _) in MODELS.items() if vendor != "GenuineIntel"]


def test_words_have_at_most_32_names_and_none_twice():
    names = [name for word in WORDS.values() for name in word if name != "."]
    assert max(map(len, WORDS.values())) == 32
    assert len(names) == len(set(names)) == len(PLACES)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("pge", (1, EDX, 13)),
        ("pbe", (1, EDX, 31)),
        ("x2apic", (1, ECX, 21)),
        ("popcnt", (1, ECX, 23)),
        ("hypervisor", (1, ECX, 31)),
        ("smap", (7, EBX, 20)),
        ("avx512vl", (7, EBX, 31)),
        ("la57", (7, ECX, 16)),
        ("rdpid", (7, ECX, 22)),
        ("pks", (7, ECX, 31)),
        ("fsrm", (7, EDX, 4)),
        ("spec-ctrl", (7, EDX, 26)),
        ("ssbd", (7, EDX, 31)),
        ("nx", (0x80000001, EDX, 20)),
        ("lm", (0x80000001, EDX, 29)),
        ("topoext", (0x80000001, ECX, 22)),
        ("perfctr-core", (0x80000001, ECX, 23)),
        ("amd-ssbd", (0x80000008, EBX, 24)),
        ("auto-ibrs", (0x80000021, EAX, 8)),
        ("kvm-msi-ext-dest-id", (0x40000001, EAX, 15)),
        ("kvmclock-stable-bit", (0x40000001, EAX, 24)),
        ("lam", (7, EAX, 26)),
        ("vgif", (0x8000000A, EDX, 16)),
    ],
)
def test_feature_is_at_its_bit(name, place):
    (function, _, register_), bit = PLACES[name]
    assert (function, register_, bit) == place


def test_host_model_is_all_of_the_host():
    assert CpuModel("host").entries(AMD) == AMD
    assert vendor_of(AMD) == "AuthenticAMD"


@pytest.mark.parametrize("name", NAMED)
def test_named_model_has_its_features_and_no_others(name):
    entries = CpuModel(name).entries(AMD)
    wanted = set(MODELS[name][2].split())
    found = {feature for feature in PLACES if has_or_absent(entries, feature)}
    kvms = {feature for feature in found if feature.startswith("kvm")}
    assert found - kvms - OURS == wanted - OURS


def has_or_absent(entries, name):
    (function, index, place), bit = PLACES[name]
    words = words_of(entries)
    return bool(words.get((function, index, place), 0) >> bit & 1)


def test_models_on_two_hosts_are_alike():
    more = host(EVERYTHING + " monitor svm invtsc avx512-fp16")
    ours, theirs = (words_of(CpuModel("EPYC").entries(each)) for each in (AMD, more))
    assert ours == theirs


def test_models_on_hosts_that_differ_in_features_without_a_name_are_alike():
    unnamed = [
        (7, 1, 1, 0, 0, 0, 1 << 4), (7, 2, 1, 0, 0, 0, 0x3F), (0xA, 0, 0, 0x08300802, 0, 0, 0x603),
        (0x80000021, 0, 0, 0, 7, 7, 0), (0x80000022, 0, 0, 1, 6, 0, 0),
    ]  # fmt: skip
    alike = [entry for entry in AMD if entry[:2] != (7, 1)]
    entries = CpuModel("EPYC").entries(alike + unnamed)
    assert [e[EAX:] for e in entries if e[:2] in {u[:2] for u in unnamed}] == [(0, 0, 0, 0)] * 5
    assert [e for e in CpuModel("host").entries(alike + unnamed) if e[0] == 0xA] == [unnamed[2]]


@pytest.mark.parametrize("name", ["shstk", "amx-tile", "amx-fp16"])
def test_feature_whose_state_would_be_lost_is_not_shown(name):
    able = host(f"{EVERYTHING} {name}")
    assert not has(CpuModel("host").entries(able), name)
    with pytest.raises(ConfigError, match=f"this host lacks {name}"):
        CpuModel(f"host,+{name}").entries(able)


def test_tiles_are_shown_where_their_state_may_be_used():
    able = [
        (*e[:EAX], e[EAX] | 3 << 17, *e[EBX:]) if e[:2] == (0xD, 0) else e
        for e in host(f"{EVERYTHING} amx-tile")
    ]
    assert has(CpuModel("host").entries(able), "amx-tile")


def test_model_sets_its_signature_and_vendor_neutral_ones_keep_the_hosts():
    assert register(CpuModel("EPYC").entries(AMD), 1, 0, EAX) == 0x00800F12
    assert register(CpuModel("x86-64-v2").entries(AMD), 1, 0, EAX) == 0x00A10F11


@given(st.sampled_from(sorted(set(MODELS["EPYC"][2].split()) - OURS)))
@settings(max_examples=30)
def test_model_on_a_host_that_lacks_a_feature_is_refused_by_its_name(name):
    lesser = host(" ".join(f for f in EVERYTHING.split() if f != name))
    with pytest.raises(ConfigError, match=f"this host lacks {name}$"):
        CpuModel("EPYC").entries(lesser)
    assert not has(CpuModel(f"EPYC,-{name}").entries(lesser), name)


def test_model_of_another_vendor_is_refused():
    with pytest.raises(
        ConfigError, match="a model of GenuineIntel, this host's CPU is of AuthenticAMD"
    ):
        CpuModel("Skylake-Server").entries(AMD)


def test_features_are_added_and_taken_away():
    entries = CpuModel("x86-64-v2,+aes,-popcnt,x2apic=off").entries(AMD)
    assert has(entries, "aes")
    assert not has(entries, "popcnt")
    assert not has(entries, "x2apic")
    with pytest.raises(ConfigError, match=r"host,\+svm: this host lacks svm"):
        CpuModel("host,+svm").entries(AMD)


def test_last_word_on_a_feature_counts_and_the_text_is_one_spelling():
    assert CpuModel("host,+aes,-aes,+avx,enforce,-abm").text == "host,+avx,-abm,-aes"
    assert CpuModel("host,lzcnt=off,pni=on").text == "host,+sse3,-abm"


@pytest.mark.parametrize("text", ["pentium", "", "host,+warp", "host,aes=maybe", "host,"])
def test_unknown_model_or_feature_is_refused(text):
    with pytest.raises(ConfigError, match=r"no such model|no feature of a CPU"):
        CpuModel(text)


@pytest.mark.parametrize("option", ["+-avx", "-+avx", "++avx", "--avx"])
def test_feature_with_two_signs_is_refused(option):
    with pytest.raises(ConfigError, match="has two signs, a feature has one"):
        CpuModel(f"host,{option}")


def test_more_features_than_a_state_can_hold_are_refused_at_the_start():
    with pytest.raises(ConfigError, match="bytes of features, at most 1024 cross an update"):
        CpuModel(",".join(["host", *(f"-{name}" for name in PLACES)]))


def test_without_avx512_the_extended_state_shrinks():
    entries = CpuModel("x86-64-v3").entries(AMD)
    assert register(entries, 0xD, 0, EAX) == 7
    assert register(entries, 0xD, 0, ECX) == 0x340
    assert extended_components(entries) == 7
    assert [e[1] for e in entries if e[0] == 0xD] == [0, 1, 2]


def test_without_xsave_there_is_no_extended_state():
    entries = CpuModel("x86-64-v2").entries(AMD)
    assert [e[EAX:] for e in entries if e[0] == 0xD] == [(0, 0, 0, 0)] * 6


@given(count=st.integers(1, 254), data=st.data())
@settings(max_examples=30)
def test_vcpu_knows_itself_and_its_neighbours(count, data):
    number = data.draw(st.integers(0, count - 1))
    entries = for_vcpu(AMD, number, count, deadline=True)
    assert register(entries, 1, 0, EBX) >> 24 == number
    assert register(entries, 1, 0, EBX) >> 16 & 255 == count
    assert has(entries, "ht") == has(entries, "cmp-legacy") == (count > 1)
    assert has(entries, "hypervisor")
    assert has(entries, "tsc-deadline")
    shift = register(entries, 0xB, 1, EAX)
    assert (count - 1) >> shift == 0
    assert register(entries, 0xB, 0, EDX) == register(entries, 0xB, 1, EDX) == number
    assert register(entries, 0x80000008, 0, ECX) & 255 == count - 1
    assert register(entries, 0x8000001E, 0, EAX) == number
    assert register(entries, 0x8000001D, 3, EAX) >> 14 & 0xFFF == count - 1


def test_vcpu_without_deadline_timer_is_not_told_of_one():
    assert not has(for_vcpu(AMD, 0, 1, deadline=False), "tsc-deadline")


def test_leaf_1f_is_only_there_where_the_host_has_it():
    assert not [e for e in for_vcpu(AMD, 0, 2, deadline=True) if e[0] == 0x1F]
    intel = [*host(EVERYTHING, "GenuineIntel"), (0x1F, 0, 1, 1, 2, 0x100, 0)]
    assert len([e for e in for_vcpu(intel, 0, 2, deadline=True) if e[0] == 0x1F]) == 3


def test_guest_made_here_lacks_nothing_here():
    guest = for_vcpu(CpuModel("host").entries(AMD), 1, 4, deadline=True)
    assert lacking(guest, AMD) == []


def test_features_that_a_host_lacks_are_named():
    lesser = host(" ".join(f for f in EVERYTHING.split() if f not in ("aes", "sha-ni")))
    assert sorted(lacking(AMD, lesser)) == ["aes", "sha-ni"]
    nameless = [(7, 1, 1, 1 << 31, 0, 0, 0)]
    assert lacking(nameless, lesser) == ["bit 31 of leaf 0x7"]
