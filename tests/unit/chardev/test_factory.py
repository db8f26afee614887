"""Kinds and options make devices; what cannot be is refused."""

from __future__ import annotations

import pytest
from chardev_fakes import FakeFds, FakeLoop

from instar.chardev import create, front_end
from instar.chardev.mux import MuxShare
from instar.errors import ConfigError


def make(kind, **options):
    return create(kind, "c0", options, FakeLoop(), FakeFds())


def test_unknown_kind_is_refused() -> None:
    with pytest.raises(
        ConfigError,
        match="unknown kind tape, allowed are file, null, pipe, pty, ringbuf, socket, stdio",
    ):
        make("tape")


@pytest.mark.parametrize("path", ["", "x" * 108])
def test_socket_path_that_cannot_be_one_is_refused(path) -> None:
    with pytest.raises(ConfigError, match="allowed 1 to 107"):
        make("socket", path=path, server=True)


def test_front_end_of_a_plain_device_is_the_device() -> None:
    device = make("null")
    assert front_end(device, "serial") is device
    assert device.state_id == "chardev/c0"


def test_front_end_of_a_mux_is_a_share() -> None:
    device = make("null", mux=True)
    share = front_end(device, "monitor")
    assert isinstance(share, MuxShare)
    assert [part.state_id for part in device.parts()] == ["chardev/c0", "chardev/c0/mux"]
