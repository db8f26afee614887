"""Network back ends: where the frames of a guest's card go, and come from."""

from instar.netdev.spec import NetSpec
from instar.netdev.table import Netdevs

__all__ = ["NetSpec", "Netdevs"]
