"""Instar: a virtual machine monitor that replaces itself under its running guest."""

from instar import _version

__version__ = _version.VERSION

__all__ = ["__version__"]
