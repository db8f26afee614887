"""Updates of Debian's stock amd64 kernel on KVM, two processors, under load: nothing is lost, nothing is noticed."""

from __future__ import annotations

import pytest

from loaded_guests import PcLinux


@pytest.fixture
def guest(tmp_path):
    debian = PcLinux(tmp_path)
    debian.vm.qmp.command("migrate-set-parameters", x_update_rehearsal=False)
    yield debian
    debian.close()


def updates(guest: PcLinux, count: int) -> None:
    """Update so often; whatever the guest says has to be right after each."""
    pid = guest.vm.process.pid
    for _ in range(count):
        guest.around(guest.vm.update)
        guest.check()
    guest.look_into_log()
    assert guest.vm.process.pid == pid
    assert guest.vm.process.poll() is None


def test_updates_under_load_lose_nothing(guest):
    updates(guest, 3)


@pytest.mark.long
def test_50_updates_under_load_lose_nothing_and_nothing_grows(guest):
    updates(guest, 2)
    footprint = guest.vm.footprint()
    updates(guest, 48)
    after = guest.vm.footprint()
    assert after.pop("threads") <= footprint.pop("threads") + guest.spare_threads
    assert after == footprint
