"""Checks of KVM and of the processor. Pure."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from instar.cli.doctor.findings import Check, Verdict, limited, missing, ok

if TYPE_CHECKING:
    from instar.cli.doctor.facts import Facts

KVM = "/dev/kvm"
API_VERSION = 12
# Capabilities by the kernel's names: without these there is no KVM for Instar, without those what is named.
NEEDED = frozenset(
    {
        *("DEBUGREGS", "IMMEDIATE_EXIT", "IOEVENTFD", "IRQCHIP", "MP_STATE", "USER_MEMORY"),
        *("VCPU_EVENTS", "XSAVE"),
    }
)
USEFUL = {
    "IRQFD": "interrupts by event descriptors",
    "IRQFD_RESAMPLE": "level-triggered interrupts by event descriptors",
    "SIGNAL_MSI": "message-signalled interrupts",
    "IRQ_ROUTING": "routes of interrupts",
    "SPLIT_IRQCHIP": "an interrupt controller outside the kernel",
    "PIT2": "an i8254 timer in the kernel",
    "TSC_DEADLINE_TIMER": "precise timers",
    "KVMCLOCK_CTRL": "guests' watchdogs that know of a pause",
    "NESTED_STATE": "updates under a hypervisor in a guest",
    "TSC_CONTROL": "guests that come from a host with another TSC frequency",
    "DIRTY_LOG_RING": "rings of written pages",
    "MANUAL_DIRTY_LOG_PROTECT2": "logs of written pages in parts",
}
HELP = {"svm": "kvm_amd", "vmx": "kvm_intel"}  # the processor's flag, the module for it
PAGING = frozenset({"npt", "ept"})
NAMES = {"svm": "AMD's SVM", "vmx": "Intel's VMX"}
INVARIANT = frozenset({"constant_tsc", "nonstop_tsc"})
OTHER_MODULES = {"kvm_pvm": "it runs kernels that are made for it"}
SOFTWARE = "the software CPU needs no KVM: -machine virt"


def helper(facts: Facts) -> str:
    """Return the processor's flag for running guests, empty if it has none."""
    return next((flag for flag in HELP if flag in facts.flags), "")


def _processor(facts: Facts) -> Verdict:
    flag = helper(facts)
    if flag:
        return ok(NAMES[flag])
    if "hypervisor" in facts.flags:
        return missing(
            "a virtual machine whose processor shows neither SVM nor VMX",
            "on its host: turn nested virtualization on and give this machine the host's processor",
        )
    return missing(
        "neither SVM nor VMX",
        "turn on SVM or VT-x in the firmware's settings, if the processor has it",
    )


def _paging(facts: Facts) -> Verdict:
    if PAGING & facts.flags:
        return ok("the processor walks guests' page tables")
    return limited("the kernel has to follow guests' page tables, which makes their memory slow")


def _device(facts: Facts) -> Verdict:
    number = facts.devices.get(KVM, errno.ENOENT)
    if not number:
        return ok(f"{KVM} can be opened")
    found = f"{KVM}: {os.strerror(number).lower()}"
    if facts.container:
        return missing(found, "start the container with --device /dev/kvm")
    if number in (errno.EACCES, errno.EPERM):
        return missing(found, f"usermod -aG kvm {facts.user}, then log in again")
    module = HELP.get(helper(facts))
    return missing(found, f"modprobe {module}" if module else SOFTWARE)


def _version(facts: Facts) -> Verdict:
    if not facts.kvm.version:
        return missing("it was not asked")
    if facts.kvm.version != API_VERSION:
        return missing(f"version {facts.kvm.version}, {API_VERSION} is the only one in use")
    return ok(f"version {API_VERSION}")


def _guests(facts: Facts) -> Verdict:
    if not facts.kvm.refusal:
        return ok("a guest can run")
    other = [f"{name}: {what}" for name, what in OTHER_MODULES.items() if name in facts.modules]
    mend = "" if facts.devices.get(KVM) else SOFTWARE  # else the device is to be mended first
    return missing("; ".join([facts.kvm.refusal, *other]), mend)


def _capabilities(facts: Facts) -> Verdict:
    if not facts.kvm.version:
        return missing("it was not asked")
    lacks = sorted(facts.kvm.lacks & NEEDED)
    if lacks:
        return missing(f"it lacks {', '.join(lacks)}: the kernel is too old")
    less = [f"{what} ({name})" for name, what in USEFUL.items() if name in facts.kvm.lacks]
    return limited(f"not there: {', '.join(less)}") if less else ok("all that are used are there")


def _nested(facts: Facts) -> Verdict:
    if facts.kvm.nested in ("Y", "1"):
        return ok("on")
    module = HELP.get(helper(facts))
    if not module or not facts.kvm.nested:
        return missing("this KVM has no such setting")
    line = f"options {module} nested=1"
    return missing(
        f"off in {module}", f"echo '{line}' > /etc/modprobe.d/kvm-nested.conf, then load it anew"
    )


def _clock(facts: Facts) -> Verdict:
    if facts.flags >= INVARIANT and facts.clocksource in ("tsc", "kvm-clock", ""):
        return ok("the processor's counter runs steadily")
    if facts.flags >= INVARIANT:
        return limited(f"the counter is steady, but the kernel's clock is {facts.clocksource}")
    return limited("the processor's counter is not said to be steady; guests' clocks cost more")


CHECKS = (
    Check("kvm-processor", "kvm", "-accel kvm", _processor),
    Check("kvm-paging", "kvm", "-accel kvm: memory of guests at full speed", _paging),
    Check("kvm-device", "kvm", "-accel kvm", _device),
    Check("kvm-version", "kvm", "-accel kvm", _version),
    Check("kvm-capabilities", "kvm", "-accel kvm, and what it can make faster", _capabilities),
    Check("kvm-guests", "kvm", "-accel kvm: that a guest really runs, not only that the device is there", _guests),
    Check("kvm-nested", "kvm", "hypervisors inside guests", _nested),
    Check("kvm-clock", "kvm", "guests' clocks that cost no exit", _clock),
)  # fmt: skip
