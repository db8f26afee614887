"""Threads of vCPUs that run in a made-up kernel: they park, come out when kicked, and lose nothing."""

import errno
import threading

import pytest

from instar.cpu.kvm import thread
from instar.cpu.kvm.thread import Threads

IMMEDIATE_EXIT = 1
PATIENCE = 10


class Kernel:
    """Runs vCPUs until they are kicked or a script says that they come out."""

    def __init__(self):
        self.vcpus = {}
        self.kicked = threading.Condition()
        self.kicks = set()
        self.local = threading.local()

    def accept_kicks(self):
        self.local.ready = True

    def kick(self, thread_id):
        with self.kicked:
            self.kicks.add(thread_id)
            self.kicked.notify_all()

    def run(self, fd):
        assert self.local.ready
        vcpu = self.vcpus[fd]
        vcpu.entered += 1
        if vcpu.script:
            return vcpu.script.pop(0)
        own = threading.get_native_id()
        with self.kicked:
            if not vcpu.shared[IMMEDIATE_EXIT]:
                assert self.kicked.wait_for(lambda: own in self.kicks, PATIENCE)
            self.kicks.discard(own)
        return errno.EINTR


class Vcpu:
    def __init__(self, fd):
        self.fd = self.number = fd
        self.shared = bytearray(16)
        self.script = []
        self.entered = 0


@pytest.fixture
def kernel(monkeypatch):
    made = Kernel()
    monkeypatch.setattr(thread, "_run", made)
    return made


class Rig:
    def __init__(self, kernel, count=1):
        self.vcpus = [Vcpu(fd) for fd in range(count)]
        kernel.vcpus = {vcpu.fd: vcpu for vcpu in self.vcpus}
        self.threads = Threads()
        self.served = []
        self.bugs = []
        self.came = threading.Event()
        for vcpu in self.vcpus:
            self.threads.add(vcpu, lambda vcpu=vcpu: self.serve(vcpu), self.bug)

    def serve(self, vcpu):
        self.served.append(vcpu.number)
        self.came.set()

    def bug(self, error):
        self.bugs.append(error)
        self.came.set()


def test_vcpus_run_and_park_again_and_again(kernel):
    rig = Rig(kernel, 3)
    rig.threads.pause()  # nothing runs: nothing to do
    for _ in range(20):
        rig.threads.resume()
        rig.threads.resume()
        rig.threads.pause()
    assert rig.bugs == []
    assert all(thread.thread_id for thread in rig.threads.members)


def test_exits_are_served_and_interruptions_are_not(kernel):
    rig = Rig(kernel)
    rig.vcpus[0].script = [errno.EAGAIN, 0, errno.EINTR, 0]
    rig.threads.resume()
    assert rig.came.wait(PATIENCE)
    rig.threads.pause()
    assert rig.served == [0, 0]


def test_access_that_is_half_done_is_finished_before_parking(kernel):
    rig = Rig(kernel)

    def serve_and_stop(vcpu=rig.vcpus[0]):
        rig.serve(vcpu)
        if len(rig.served) == 1:
            rig.threads.hold()
            vcpu.script = [errno.EAGAIN, 0, 0]  # an instruction that repeats its access

    rig.threads.members[0].serve = serve_and_stop
    rig.vcpus[0].script = [0]
    rig.threads.resume()
    rig.threads.pause()
    assert rig.served == [0, 0, 0]
    assert rig.vcpus[0].shared[IMMEDIATE_EXIT] == 1


def test_error_of_the_kernel_parks_all_and_is_told(kernel):
    rig = Rig(kernel, 2)
    rig.vcpus[1].script = [errno.EFAULT]
    rig.threads.resume()
    assert rig.came.wait(PATIENCE)
    rig.threads.pause()
    assert [str(e) for e in rig.bugs] == [
        "the kernel refused KVM_RUN of vCPU 1: bad address (EFAULT)"
    ]
    assert rig.threads.stop


def test_fault_of_ours_while_serving_parks_all_and_is_told(kernel):
    rig = Rig(kernel)

    def fail():
        raise ZeroDivisionError

    rig.threads.members[0].serve = fail
    rig.vcpus[0].script = [0]
    rig.threads.resume()
    assert rig.came.wait(PATIENCE)
    rig.threads.pause()
    assert [type(e) for e in rig.bugs] == [ZeroDivisionError]


def test_look_finds_them_parked_and_they_go_on(kernel):
    rig = Rig(kernel, 2)
    rig.threads.resume()
    assert rig.threads.parked(lambda: rig.threads.stop) is True
    assert rig.threads.stop is False
    rig.threads.pause()
    assert rig.threads.parked(lambda: "parked") == "parked"
    assert rig.threads.stop is True


def test_those_that_were_held_do_not_go_on_after_a_look(kernel):
    rig = Rig(kernel)
    rig.threads.resume()
    rig.threads.parked(rig.threads.hold)
    assert rig.threads.stop is True
    rig.threads.resume()
    assert rig.threads.stop is False
    rig.threads.pause()


def test_look_from_a_vcpu_keeps_the_others_outside_though_they_wait_for_its_lock(kernel):
    rig = Rig(kernel, 3)
    lock = threading.Lock()
    seen = []

    def serve(vcpu):
        with lock:  # the machine's: others wait for it here
            entered = [each.entered for each in rig.vcpus]
            seen.append(rig.threads.parked(lambda: [each.entered for each in rig.vcpus]))
            assert len(entered) == 3
        rig.serve(vcpu)
        if len(rig.served) == 30:
            rig.threads.hold()

    for member, vcpu in zip(rig.threads.members, rig.vcpus, strict=True):
        member.serve = lambda vcpu=vcpu: serve(vcpu)
        vcpu.script = [0] * 10
    rig.threads.resume()
    rig.threads.pause()
    assert rig.bugs == []
    assert len(seen) >= 10
