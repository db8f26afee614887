"""Numbers and layouts of the vhost-user protocol, as far as this front end speaks it.

Source: QEMU docs/interop/vhost-user, "Message Specification".
"""

from __future__ import annotations

from struct import Struct

from instar.errors import InstarError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar, Final

    from instar.errors import Fault


class BackendError(InstarError):
    """A back end broke the protocol, did not answer or is gone; only its device stops."""

    code: ClassVar[str] = "vhost-user-backend"
    fault: ClassVar[Fault] = "peer"
    exit_status: ClassVar[int] = 3


class LostError(BackendError):
    """The back end hung up: it may come back."""


HEADER: Final = Struct("<III")  # request, flags, bytes that follow
U64: Final = Struct("<Q")
VRING_STATE: Final = Struct("<II")  # index, number
VRING_ADDR: Final = Struct("<IIQQQQ")  # index, flags, descriptors, used, available, log
REGION: Final = Struct("<QQQQ")  # guest address, size, user address, offset in the descriptor
TABLE: Final = Struct("<II")  # regions, padding
CONFIG: Final = Struct("<III")  # offset, size, flags
INFLIGHT: Final = Struct("<QQHH4x")  # mapping's size, its offset, queues, queue size

VERSION: Final = 1
REPLY: Final = 4
NEED_REPLY: Final = 8
VERSION_MASK: Final = 3
MAX_PAYLOAD: Final = 4096  # bytes; the largest message that we expect is a configuration of 268
MAX_CONFIG: Final = 256  # bytes of configuration space in one message
MAX_FDS: Final = 8

GET_FEATURES, SET_FEATURES, SET_OWNER, SET_MEM_TABLE = 1, 2, 3, 5
SET_VRING_NUM, SET_VRING_ADDR, SET_VRING_BASE, GET_VRING_BASE = 8, 9, 10, 11
SET_VRING_KICK, SET_VRING_CALL = 12, 13
GET_PROTOCOL_FEATURES, SET_PROTOCOL_FEATURES, GET_QUEUE_NUM, SET_VRING_ENABLE = 15, 16, 17, 18
SET_BACKEND_REQ_FD = 21
GET_CONFIG, SET_CONFIG = 24, 25
GET_INFLIGHT_FD, SET_INFLIGHT_FD = 31, 32
BACKEND_CONFIG_CHANGE = 2  # a request of the back end

F_PROTOCOL_FEATURES: Final = 1 << 30  # in the virtio features
P_MQ: Final = 1 << 0
P_REPLY_ACK: Final = 1 << 3
P_BACKEND_REQ: Final = 1 << 5
P_CONFIG: Final = 1 << 9
P_INFLIGHT_SHMFD: Final = 1 << 12
SPOKEN: Final = P_MQ | P_REPLY_ACK | P_BACKEND_REQ | P_CONFIG | P_INFLIGHT_SHMFD
