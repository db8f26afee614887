"""Processes that were started for the user and end with the virtual machine."""

from instar.children.children import Children, ChildSpec

__all__ = ["ChildSpec", "Children"]
