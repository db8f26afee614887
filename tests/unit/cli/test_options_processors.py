"""Boards, accelerators and CPU models: what goes together, and what does not."""

from __future__ import annotations

import pytest

from instar.cli.options import Config, parse, to_argv
from instar.cli.options.compare import differences
from instar.cli.options.plain import from_plain, to_plain
from instar.errors import ConfigError


def config(line: str) -> Config:
    result = parse(line.split())
    assert isinstance(result, Config)
    return result


def test_boards_have_their_accelerators_and_cpus_by_default():
    virt, microvm = config(""), config("-M microvm")
    assert (virt.machine.type, virt.accel.kind, virt.cpu.model) == ("virt", "interpreter", "rv64")
    assert (microvm.machine.type, microvm.accel.kind, microvm.cpu.model) == (
        "microvm",
        "kvm",
        "host",
    )
    assert (virt.machine.pit, microvm.machine.pit) == (False, True)


@pytest.mark.parametrize(
    ("line", "wanted", "kind"),
    [
        ("-M microvm -accel kvm:interpreter", ["kvm", "interpreter"], "kvm"),
        ("-M microvm -accel tcg -accel kvm", ["interpreter", "kvm"], "kvm"),
        ("-M microvm,accel=kvm:tcg", ["kvm", "interpreter"], "kvm"),
        ("-accel kvm -accel tcg -accel interpreter", ["kvm", "interpreter"], "interpreter"),
        ("-accel kvm:tcg,thread=single", ["kvm", "interpreter"], "interpreter"),
    ],
)
def test_accelerators_are_a_list_by_preference(line, wanted, kind):
    made = config(line).accel
    assert (made.wanted, made.kind) == (wanted, kind)


def test_keys_of_accelerators_are_put_together():
    made = config("-M microvm -accel kvm,kernel-irqchip=split -accel tcg,x-pause-shown=on")
    assert (made.accel.split_irqchip, made.accel.pause_shown) == (True, True)
    assert not made.machine.pit


def test_features_are_kept_in_their_order():
    made = config("-M microvm -cpu EPYC-v1,+x2apic,-avx2").cpu
    assert (made.model, made.features) == ("EPYC-v1", ["+x2apic", "-avx2"])


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("-M microvm -accel tcg", "run by -accel kvm alone, and only interpreter was asked for"),
        ("-accel kvm", "run by -accel interpreter alone, and only kvm was asked for"),
        ("-accel kvm::tcg", "allowed is interpreter, tcg or kvm"),
        ("-M microvm,accel=hvf", "-machine: accel='hvf': allowed is"),
        ("-accel tcg,kernel-irqchip=split", "for -accel kvm alone"),
        ("-accel tcg,x-pause-shown=on", "for -accel kvm alone"),
        ("-accel tcg,x-bare-guest=on", "for -accel kvm alone"),
        ("-M microvm -accel kvm,kernel-irqchip=off", "allowed is on or split"),
        (
            "-M microvm,pit=on -accel kvm,kernel-irqchip=split",
            "needs -accel kvm,kernel-irqchip=on",
        ),
        ("-M virt,pit=on", "for boards that KVM runs"),
        ("-M microvm,x-update-bridge=on", "cannot run on in another program"),
        ("-M microvm -icount 3", "KVM counts no instructions"),
        ("-M microvm -cpu rv64", "has x86-64 processors"),
        ("-M microvm -cpu host,sstc=off", "sstc= is for -machine virt alone"),
        ("-M microvm -cpu host,+a/b", "no name of a model or feature"),
        ("-M microvm -cpu ho$t", "no name of a model or feature"),
        ("-M microvm -cpu host,features=avx", "no name of a model or feature"),
        ("-M microvm -cpu host,avx=off", "has no key 'avx'"),
        ("-cpu rv64,+v", "no features to add"),
        ("-cpu host", "-machine virt has rv64"),
        ("-M pc", "allowed is virt or microvm"),
    ],
)
def test_what_does_not_go_together_is_refused(line, text):
    with pytest.raises(ConfigError, match=text):
        parse(line.split())


@pytest.mark.parametrize(
    "line",
    [
        "-M microvm",
        "-M microvm,pit=off -accel kvm:interpreter,x-pause-shown=on -cpu host,+avx2,-sse4.2 -smp 2",
        "-M microvm -accel interpreter -accel kvm,kernel-irqchip=split,x-bare-guest=on",
        "-accel kvm:interpreter -cpu rv64,sstc=off",
    ],
)
def test_words_and_plain_values_give_the_same_machine_again(line):
    made = config(line)
    again = parse(to_argv(made))
    assert again == made
    assert again.accel.wanted == made.accel.wanted
    assert from_plain(to_plain(made)) == made


def test_what_else_would_have_been_taken_is_no_difference():
    assert differences(config("-M microvm"), config("-M microvm -accel kvm:tcg")) == []


def test_another_cpu_or_interrupt_controller_is_a_difference():
    found = differences(
        config("-M microvm"), config("-M microvm -cpu EPYC -accel kvm,kernel-irqchip=split")
    )
    assert [text.partition(":")[0] for text in found] == ["-machine", "-accel", "-cpu"]
