"""Instar: a virtual machine monitor that replaces itself under its running guest."""

from instar._version import VERSION as __version__

__all__ = ["__version__"]
