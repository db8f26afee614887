"""Updates of Debian's stock amd64 kernel on KVM, two processors, under load: nothing is lost, nothing is noticed."""

from __future__ import annotations

import time

import pytest

from faulty import faulty
from harness import QmpError, Vm
from loaded_guests import BAD, PcLinux
from transfer_pair import hand_over

BOARD = PcLinux.board
GO = "import instar.migration.incoming as i\n"
RAISES = GO + "def bad(*a): raise RuntimeError('boom')\ni.Incoming._go = bad\n"
KILLED = GO + "import os\ndef bad(*a): os.kill(os.getpid(), 9)\ni.Incoming._go = bad\n"


def patient(vm: Vm) -> Vm:
    """Let an update take its time, since an emulated machine does; no test measures."""
    vm.qmp.command("migrate-set-parameters", **{"x-update-timeout": 120_000})
    return vm


@pytest.fixture(scope="module")
def guest(tmp_path_factory):
    """A guest that works; tests of this module leave it working."""
    debian = PcLinux(tmp_path_factory.mktemp("guest"))
    patient(debian.vm)
    yield debian
    debian.close()


def updates(guest: PcLinux, count: int) -> None:
    """Update so often; whatever the guest says has to be right after each."""
    pid = guest.vm.pid
    for _ in range(count):
        guest.around(guest.vm.update)
        guest.check()
    assert guest.vm.pid == pid
    assert guest.vm.process.poll() is None
    guest.look_into_log()


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


@pytest.mark.long
def test_other_processor_is_refused_before_the_guest_stops(guest):
    guest.vm.qmp.events.clear()
    command = [
        *guest.vm.argv,
        "-cpu",
        "host,-avx2",
        "-incoming",
        f"file:{guest.vm.folder}/vm.state",
    ]
    with pytest.raises(QmpError, match=r"-cpu: features is none, on the command line"):
        guest.vm.update(command=command)
    assert "STOP" not in {event["event"] for event in guest.vm.qmp.events}
    guest.check()


@pytest.mark.long
def test_program_that_fails_after_exec_gives_way_to_the_old_one(guest, tmp_path):
    with pytest.raises(QmpError, match="boom"):
        guest.vm.update(program=faulty(tmp_path, RAISES))
    guest.check()
    updates(guest, 1)


@pytest.mark.long
def test_program_that_is_killed_after_exec_is_replaced_by_the_guardian(guest, tmp_path):
    with pytest.raises(QmpError, match="the new program ended before it went on"):
        guest.vm.update(program=faulty(tmp_path, KILLED))
    guest.vm.pid = guest.vm.qmp.command("query-migrate")["x-update"]["new-pid"]
    guest.check()


@pytest.mark.long
def test_ioapic_outside_the_kernel_is_updated_under_load(tmp_path):
    guest = PcLinux(tmp_path, "-accel", "kvm,kernel-irqchip=split")
    try:
        patient(guest.vm)
        updates(guest, 2)
    finally:
        guest.close()


@pytest.mark.long
def test_debian_goes_from_program_to_program_under_load(debian_amd64, tmp_path):
    disk = tmp_path / "disk.raw"
    disk.write_bytes(bytes(16 << 20))
    vm = Vm(
        *(*BOARD, *debian_amd64.arguments("console=ttyS0 quiet instar.diskverify")),
        *("-drive", f"file={disk},if=none,id=d0,format=raw"),
        *("-device", "virtio-blk-device,drive=d0"),
        size=192,
    )
    try:
        for _ in range(2):
            vm.console.wait(b"DISK OK", vm.console.wait(b"DISK OK"))  # the second was begun here
            vm = patient(hand_over(patient(vm)))
        vm.console.wait(b"DISK OK", vm.console.wait(b"DISK OK"))
        vm.update()
        vm.console.wait(b"DISK OK", len(vm.console.text))
        assert not BAD.search(vm.console.text), BAD.search(vm.console.text)
    finally:
        vm.close()


BUTTON = "cat /dev/input/event0 > /tmp/keys & sleep 1; echo WATCHING; while [ ! -s /tmp/keys ]; do sleep 1; done"


@pytest.mark.long
def test_reset_and_power_button_work_after_an_update(debian_amd64):
    words = f'console=ttyS0 quiet panic=-1 instar.run="{BUTTON}; echo PRESSED" instar.poweroff'
    with Vm(*BOARD, *debian_amd64.arguments(words), size=256) as vm:
        vm.console.wait(b"WATCHING")
        patient(vm).update()
        vm.qmp.command("system_reset")
        started = vm.console.wait(b"INIT REACHED", len(vm.console.text))
        vm.console.wait(b"WATCHING", started)
        vm.update()
        vm.qmp.command("system_powerdown")
        vm.console.wait(b"PRESSED", started)
        assert vm.wait_exit() == 0


UPTIME = "while read -r line; do read -r now rest < /proc/uptime; echo UP $now.; done"
STOPPED = 4.0  # seconds


class Clock:
    """A guest that says how long it has run, each time that it is asked."""

    def __init__(self, debian, shown: str) -> None:
        words = f'console=ttyS0 quiet panic=-1 instar.run="{UPTIME}"'
        accel = f"kvm,x-pause-shown={shown}"
        arguments = debian.arguments(words)
        self.vm = Vm(*BOARD, "-accel", accel, *arguments, size=256)

    def ask(self) -> float:
        console = self.vm.console
        start = len(console.text)
        console.send(b"\n")
        start = console.wait(b"UP ", start)
        return float(console.text[start : console.wait(b".\r", start) - 2])

    def around_a_stop(self) -> tuple[float, float, float]:
        """Stop and update: how long the guest stood still, how much longer it has run, how long all took."""
        self.vm.console.wait(b"INIT REACHED")
        before, began = self.ask(), time.monotonic()
        self.vm.qmp.command("stop")
        time.sleep(STOPPED)
        self.vm.qmp.command("cont")
        paused = patient(self.vm).update()["x-update"]["pause-us"] / 1e6 + STOPPED
        return paused, self.ask() - before, time.monotonic() - began


@pytest.mark.long
@pytest.mark.parametrize("shown", ["on", "off"])
def test_clocks_show_the_pause_if_they_are_to(debian_amd64, shown):
    clock = Clock(debian_amd64, shown)
    with clock.vm:
        paused, ran, took = clock.around_a_stop()
    longest = took if shown == "on" else took - paused
    least = paused if shown == "on" else 0.0
    assert least < ran + 0.02
    assert ran < longest + 0.02  # uptime counts hundredths
