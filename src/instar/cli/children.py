"""The processes that ``-child`` names, from a configuration."""

from __future__ import annotations

from instar.children import Children, ChildSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from instar.cli.vm import Vm


def start_children(vm: Vm) -> None:
    """Start what ``-child`` names, unless the program before did: its children come with its state.

    Raises:
        InstarError: one cannot be started; those that were are in ``vm``, to be ended.
    """
    specs = [ChildSpec(c.name, c.command, c.restart) for c in vm.config.children]
    children = Children(specs, vm.loop, inert=vm.inert)
    vm.host_parts.append(children)
    if vm.inert:
        return
    if vm.resumed:
        vm.loop.call_soon(lambda: _start_new(vm, children))
    else:
        children.start()


def _start_new(vm: Vm, children: Children) -> None:
    """Start those that the program before did not know; without any, the next program need not know of children."""
    children.start_new()
    if not children.any:
        vm.host_parts.remove(children)
