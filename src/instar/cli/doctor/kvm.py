"""What ``/dev/kvm`` is on this host.

Source: Linux Documentation/virt/kvm/api.rst, 4.1 and 4.4.
"""

from __future__ import annotations

import fcntl
import os

from instar.cli.doctor.facts import Kvm

DEVICE = "/dev/kvm"
API_VERSION = 12
_GET_API_VERSION = 0xAE00


def guests_cannot_run() -> str:
    """Say why no guest can run on this host's KVM; empty if one can.

    A KVM that is there without the processor's help emulates instructions or needs a changed guest kernel.
    """
    return look().refusal


def look() -> Kvm:
    """Return what is known of this host's KVM."""
    try:
        fd = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as exc:
        return Kvm(refusal=f"{DEVICE} cannot be opened ({exc.strerror})")
    try:
        version = fcntl.ioctl(fd, _GET_API_VERSION)
    except OSError as exc:
        return Kvm(refusal=f"{DEVICE} does not say its version ({exc.strerror})")
    finally:
        os.close(fd)
    return Kvm(version=version, refusal=_refusal(version), nested=_nested())


def processor_flags() -> frozenset[str]:
    """Return what the kernel says that the first processor can do; nothing if it does not say."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as stream:
            for line in stream:
                if line.startswith("flags"):
                    return frozenset(line.partition(":")[2].split())
    except OSError:
        return frozenset()
    return frozenset()


def _refusal(version: int) -> str:
    if version != API_VERSION:
        return f"{DEVICE} speaks version {version} of its interface, {API_VERSION} is needed"
    if not {"svm", "vmx"} & processor_flags():
        return (
            f"{DEVICE} is there, but the processor offers neither SVM nor VMX to run guests with"
        )
    return ""


def _nested() -> str:
    for module in ("kvm_amd", "kvm_intel"):
        try:
            with open(f"/sys/module/{module}/parameters/nested", encoding="ascii") as stream:
                return stream.read().strip()
        except OSError:
            continue
    return ""
