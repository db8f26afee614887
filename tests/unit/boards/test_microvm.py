"""The x86 board: devices at their places, lines to their inputs, a reset that starts the kernel."""

from __future__ import annotations

import mmap

import pytest

from instar.boards.microvm import MicrovmBoard, MicrovmPorts, add_ram
from instar.boards.x86 import board_map
from instar.devices.virtio_rng import VirtioRng
from instar.memory import AddressSpace, RamBlock
from instar.testing.fakes import FakeChardev, FakeClock, FakeEntropy

SIZE = 4 << 20


class Images:
    """Boot images that say only that they were copied."""

    def copy_to(self, memory) -> None:
        memory.write(0x10_0000, b"kernel")

    def start(self) -> str:
        return "registers"


class World:
    def __init__(self, boot=None) -> None:
        self.calls: list[object] = []
        self.levels: dict[int, bool] = {}
        self.changes = 0
        self.clock = FakeClock()
        self.chardev = FakeChardev()
        self.space = AddressSpace()
        block = RamBlock("ram", mmap.mmap(-1, SIZE), fd=-1, share=False, adopted=False)
        add_ram(self.space, block)
        ports = MicrovmPorts(
            serial=self.chardev,
            clock=self.clock,
            timers=self.clock,
            line=self.line,
            processors=self,
            poweroff=lambda status: self.calls.append(("off", status)),
            reset=lambda: self.calls.append("reset wanted"),
            panicked=lambda: self.calls.append("panic"),
            crash_loaded=lambda: self.calls.append("crash"),
        )
        self.device = VirtioRng(FakeEntropy(), state_id="virtio-rng/0")
        self.board = MicrovmBoard(self.space, ports, virtio={2: self.device}, boot=boot)

    def line(self, gsi: int):
        def drive(level: bool) -> None:
            self.levels[gsi] = level
            self.changes += 1

        return drive

    def reset(self) -> None:
        self.levels.clear()
        self.calls.append("processors reset")

    def start(self, state) -> None:
        self.calls.append(state)


@pytest.fixture
def world():
    return World(Images())


def test_reset_brings_processors_devices_images_and_start_in_this_order(world):
    world.board.reset()
    assert world.calls == ["processors reset", "registers"]
    assert world.space.memory.read(0x10_0000, 6) == b"kernel"
    gsis = {board_map.RTC_IRQ, board_map.UART_IRQ, board_map.GED_GSI, board_map.VIRTIO_GSI + 2}
    assert world.levels == dict.fromkeys(gsis, False)


def test_reset_without_images_starts_nothing():
    world = World()
    world.board.reset()
    assert world.calls == ["processors reset"]


def test_serial_port_prints_and_raises_irq_4(world):
    world.space.pio_write(0x3F8, 1, ord("x"))
    world.space.pio_write(0x3F9, 1, 1)
    world.chardev.type(b"y")
    assert world.chardev.sent == b"x"
    assert world.levels[4]
    assert world.space.pio_read(0x3F8, 1) == ord("y")
    assert not world.levels[4]


def test_line_is_driven_only_when_its_level_changes(world):
    world.board.reset()
    before = world.changes
    for _ in range(3):
        world.board.power_button()
    assert world.changes == before + 1


def test_line_is_driven_again_after_a_reset_of_the_controller(world):
    world.board.power_button()
    world.board.reset()
    assert world.levels[board_map.GED_GSI] is False


def test_guest_powers_off_resets_and_ends_through_ports(world):
    world.space.pio_write(board_map.SLEEP_CONTROL, 1, board_map.SOFT_OFF << 2 | 0x20)
    world.space.pio_write(board_map.RESET, 1, board_map.RESET_VALUE)
    world.space.pio_write(board_map.I8042_COMMAND, 1, 0xFE)
    world.space.pio_write(board_map.DEBUG_EXIT, 1, 7)
    world.space.mmio_write(board_map.PVPANIC_BASE, 1, 1)
    assert world.calls == [("off", 0), "reset wanted", "reset wanted", ("off", 7), "panic"]


def test_power_button_is_read_where_the_dsdt_says(world):
    world.board.power_button()
    assert world.levels[board_map.GED_GSI]
    assert world.space.mmio_read(board_map.GED_BASE, 4) == 1


def test_clock_answers_at_its_ports(world):
    world.space.pio_write(0x70, 1, 0x0D)
    assert world.space.pio_read(0x71, 1) == 0x80


def test_slots_have_their_devices_and_the_others_are_empty(world):
    ids = [
        world.space.mmio_read(board_map.VIRTIO_BASE + n * board_map.VIRTIO_STRIDE + 8, 4)
        for n in range(board_map.VIRTIO_SLOTS)
    ]
    assert ids == [0, 0, 4, 0, 0, 0, 0, 0]
    assert [base for base, _ in world.board.transports] == [0xFEB0_2000]


def test_nobody_answers_elsewhere(world):
    assert world.space.pio_read(0x60, 1) == -1
    assert world.space.pio_read(0x3FF, 2) == -1
    assert world.space.mmio_read(0xFEA0_0004, 4) == -1


def test_state_ids_are_unique(world):
    ids = [thing.state_id for thing in world.board.stateful]
    assert ids == ["rtc", "uart0", "ged", "virtio-rng/0", "virtio-mmio/2"]


def test_tables_describe_what_the_board_has(world):
    regions = {(region.base, region.name) for region in world.space.mmio}
    assert (board_map.GED_BASE, "acpi-ged") in regions
    assert {region.base for region in world.space.pio} == {0x70, 0x3F8, 0x64, 0x501, 0x600}
