"""Programs with character devices in one process, and their front ends.

An update is imitated: the descriptors of a table are duplicated into another table, the old objects are forgotten
without being closed, and new ones are made over the copies.
"""

from __future__ import annotations

import os

from instar.chardev import create
from instar.cpr.fds import Fds
from instar.cpr.state import load, save
from instar.loop import Loop


class Side:
    """One program: a loop, a table and the devices made over them."""

    def __init__(self, *, resumed=False):
        self.resumed = resumed
        self.loop = Loop()
        self.fds = Fds()
        self.devices = []

    def create(self, kind, ident="c0", **options):
        device = create(kind, ident, options, self.loop, self.fds, resumed=self.resumed)
        self.devices.append(device)
        return device

    def turn(self, count=6):
        for _ in range(count):
            self.loop.turn(0)

    def until(self, condition):
        """Serve until the kernel has delivered what ``condition`` waits for, or patience ends."""
        for _ in range(1000):
            if condition():
                return
            self.loop.turn(20_000_000)

    def update(self, *others):
        """Return the next program with devices like ours, over copies of our descriptors."""
        after = Side(resumed=True)
        for device in self.devices:
            device.save_fds(self.fds)
        for entry in self.fds.walk():
            after.fds.resave(entry.name, entry.ident, os.dup(entry.fd), owner=entry.owner)
        for device, (kind, options) in zip(self.devices, others, strict=True):
            new = after.create(kind, device.id, **options)
            for was, part in zip(device.parts(), new.parts(), strict=True):
                part.load_state(
                    load(part.state_class, was.state_class.state_version, save(was.save_state()))
                )
        return after

    def close(self):
        for device in self.devices:
            device.close()


class FrontEnd:
    def __init__(self, device, room=1 << 20):
        self.device, self.room, self.got, self.events = device, room, b"", []
        device.attach(
            receive=self.receive, can_receive=lambda: self.room, event=self.events.append
        )

    def receive(self, data):
        self.room -= len(data)
        self.got += data
