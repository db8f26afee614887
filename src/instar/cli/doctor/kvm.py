"""What ``/dev/kvm`` is on this host.

Source: Linux Documentation/virt/kvm/api.rst, 4.1 and 4.4.
"""

from __future__ import annotations

import fcntl
import os

DEVICE = "/dev/kvm"
API_VERSION = 12
_GET_API_VERSION = 0xAE00


def guests_cannot_run() -> str:
    """Say why no guest can run on this host's KVM; empty if one can.

    A KVM that is there without the processor's help emulates instructions or needs a changed guest kernel.
    """
    try:
        fd = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as exc:
        return f"{DEVICE} cannot be opened ({exc.strerror})"
    try:
        version = fcntl.ioctl(fd, _GET_API_VERSION)
    except OSError as exc:
        return f"{DEVICE} does not say which version it speaks ({exc.strerror})"
    finally:
        os.close(fd)
    if version != API_VERSION:
        return f"{DEVICE} speaks version {version} of its interface, {API_VERSION} is needed"
    if not {"svm", "vmx"} & processor_flags():
        return (
            f"{DEVICE} is there, but the processor offers neither SVM nor VMX to run guests with"
        )
    return ""


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
