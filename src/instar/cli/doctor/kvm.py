"""What ``/dev/kvm`` is on this host: asked, and tried with a guest of a few instructions.

Source: Linux Documentation/virt/kvm/api.rst, 4.1 and 4.4.
"""

from __future__ import annotations

import fcntl
import functools
import os

from instar.cli.doctor.facts import Kvm
from instar.cpu.kvm import uapi
from instar.errors import InstarError

DEVICE = "/dev/kvm"
UNBUILT = "Instar's part for it is not compiled ('make build')"


def guests_cannot_run() -> str:
    """Say why no guest can run on this host's KVM; empty if one can."""
    return look().refusal


@functools.cache
def look() -> Kvm:
    """Return what is known of this host's KVM; it is asked once."""
    try:
        fd = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as exc:
        return Kvm(refusal=f"{DEVICE} cannot be opened ({exc.strerror})")
    try:
        version = fcntl.ioctl(fd, uapi.GET_API_VERSION)
        lacks = frozenset(
            name
            for name, number in uapi.CAPABILITIES.items()
            if fcntl.ioctl(fd, uapi.CHECK_EXTENSION, number) <= 0
        )
    except OSError as exc:
        return Kvm(refusal=f"{DEVICE} does not say what it can do ({exc.strerror})")
    finally:
        os.close(fd)
    return Kvm(version=version, refusal=_tried(), lacks=lacks, nested=_nested())


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


def _tried() -> str:
    """Say why a guest does not run, having tried one; empty if it does."""
    try:
        from instar.cpu.kvm import kvm, probe  # noqa: PLC0415 - they need what may not be compiled
    except ImportError:
        return UNBUILT
    try:
        device = kvm.Kvm()
        try:
            return probe.can_run(device)
        finally:
            device.close()
    except InstarError as exc:
        return str(exc)


def _nested() -> str:
    for module in ("kvm_amd", "kvm_intel"):
        try:
            with open(f"/sys/module/{module}/parameters/nested", encoding="ascii") as stream:
                return stream.read().strip()
        except OSError:
            continue
    return ""
