"""The debug console: what the host cannot take is not written, and the guest is told so."""

from __future__ import annotations

import pytest

from instar.boards.firmware import (
    EXT_DBCN,
    LEGACY_PUTCHAR,
    PENDING_LIMIT,
    SBI_ERR_FAILED,
    SBI_ERR_INVALID_PARAM,
    SBI_SUCCESS,
    Firmware,
)
from instar.testing.fakes import RAM_BASE, FakeChardev, make_space


class Board:
    def __init__(self):
        self.memory = make_space().memory
        self.console = FakeChardev()
        self.firmware = Firmware(
            self.memory, self.console, poweroff=lambda _status: None, reset=lambda: None
        )

    def call(self, eid, fid, *args):
        return self.firmware.sbi(0, eid, fid, (*args, 0, 0, 0, 0, 0, 0)[:6])


@pytest.fixture
def board():
    return Board()


def test_sbi_12_1_text_and_bytes_are_printed(board) -> None:
    board.memory.write(RAM_BASE, b"text")
    assert board.call(EXT_DBCN, 0, 4, RAM_BASE) == (SBI_SUCCESS, 4)
    assert board.call(EXT_DBCN, 2, ord("!")) == (SBI_SUCCESS, 0)
    assert board.call(LEGACY_PUTCHAR, 0, ord("?")) == (SBI_SUCCESS, 0)
    assert board.console.sent == b"text!?"


def test_sbi_12_1_text_outside_ram_is_refused(board) -> None:
    assert board.call(EXT_DBCN, 0, 4, 0) == (SBI_ERR_INVALID_PARAM, 0)


def test_sbi_12_1_nothing_is_written_while_the_host_takes_nothing(board) -> None:
    board.console.stuck, board.console.kept = True, bytes(PENDING_LIMIT + 1)
    assert board.call(EXT_DBCN, 0, 4, RAM_BASE) == (SBI_SUCCESS, 0)
    assert board.call(EXT_DBCN, 2, ord("!")) == (SBI_ERR_FAILED, 0)
    assert board.call(LEGACY_PUTCHAR, 0, ord("?")) == (SBI_ERR_FAILED, 0)
    assert len(board.console.kept) == PENDING_LIMIT + 1
