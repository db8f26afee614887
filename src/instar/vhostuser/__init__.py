"""The front end of the vhost-user protocol: a program on this host serves a guest's rings."""

from instar.vhostuser.connection import Connection
from instar.vhostuser.frontend import Frontend
from instar.vhostuser.protocol import BackendError
from instar.vhostuser.ring import Plan

__all__ = ["BackendError", "Connection", "Frontend", "Plan"]
