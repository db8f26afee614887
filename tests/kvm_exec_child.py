"""A bare guest with two vCPUs whose monitor executes itself twice; prints what the guest said to its ports."""

from __future__ import annotations

import json
import os
import sys

from instar.cpr.encoding import decode, encode
from kvm_guests import (
    AP_PORT,
    DEVICE,
    PORT,
    RAM,
    START_AP,
    Devices,
    Machine,
    boot_long,
    loop64,
    new_ram,
)

GENERATIONS = 3


def main() -> None:
    """Start the guest or go on with it, and hand it over or end."""
    devices = Devices()
    if len(sys.argv) == 1:
        generation, ram_fd = 1, os.memfd_create("ram", 0)
        os.truncate(ram_fd, RAM)
        ram = new_ram(ram_fd)
        machine = Machine(ram, devices, vcpus=2)
        boot_long(machine, ram, START_AP + loop64(PORT, DEVICE))
    else:
        generation, ram_fd, state_fd = map(int, sys.argv[1:])
        kept = decode(os.pread(state_fd, 1 << 22, 0), "state")
        devices.said = {int(port): values for port, values in kept["said"].items()}
        devices.read = {int(where): count for where, count in kept["read"].items()}
        ram = new_ram(ram_fd)
        machine = Machine(ram, devices, vcpus=2)
        machine.load(kept["machine"])
    machine.start()
    for port in (PORT, AP_PORT):
        devices.wait_for(20 * generation, port)
    machine.stop()
    if generation == GENERATIONS:
        machine.close()
        print(json.dumps(devices.said))
        return
    kept = {
        "machine": machine.save(),
        "said": {str(port): values for port, values in devices.said.items()},
        "read": {str(where): count for where, count in devices.read.items()},
    }
    state_fd = os.memfd_create("state", 0)
    os.write(state_fd, encode(kept))
    arguments = [str(number) for number in (generation + 1, ram_fd, state_fd)]
    os.execv(sys.executable, [sys.executable, __file__, *arguments])


main()
