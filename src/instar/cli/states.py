"""Every state that this program knows: importing this module declares them all.

Not on the resume path, where only the states of what the machine has are declared.
"""

from instar.boards import microvm
from instar.children import state as children
from instar.cli import system
from instar.cli.platforms import virt
from instar.cpu.kvm import state as kvm
from instar.devices.vhost_user_blk import state as vhost_user_blk
from instar.devices.vhost_user_fs import state as vhost_user_fs
from instar.devices.virtio_balloon import state as virtio_balloon
from instar.devices.virtio_blk import state as virtio_blk
from instar.devices.virtio_console import state as virtio_console
from instar.devices.virtio_net import state as virtio_net
from instar.devices.virtio_rng import state as virtio_rng
from instar.devices.virtio_vsock import state as virtio_vsock
from instar.vhostuser import state as vhostuser
from instar.vsock import state as vsock

DECLARING = (
    children,
    kvm,
    microvm,
    system,
    vhost_user_blk,
    vhost_user_fs,
    vhostuser,
    virt,
    virtio_balloon,
    virtio_blk,
    virtio_console,
    virtio_net,
    virtio_rng,
    virtio_vsock,
    vsock,
)
