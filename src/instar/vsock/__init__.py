"""The host's side of virtio-vsock: unix sockets."""

from instar.vsock.host import UnixVsock

__all__ = ["UnixVsock"]
