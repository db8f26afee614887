"""What the doctor says of hosts: facts are made up, or were those of a real host."""

import errno
import re
from dataclasses import replace
from pathlib import Path

import pytest

from instar.cli.doctor.checks import CHECKS, GROUPS
from instar.cli.doctor.facts import Cgroup, Facts, Kvm
from instar.cli.doctor.findings import judged, stoppers
from instar.cli.doctor.guests import NEEDED, USEFUL
from instar.cli.doctor.reading import PARTS, PROGRAMS
from instar.cli.doctor.report import lines, record, reference_page
from instar.cpu.kvm import make
from instar.cpu.kvm.uapi import CAPABILITIES

ROOT = Path(__file__).parents[3]
GIB = 1 << 30
DEVICES = ("/dev/kvm", "/dev/net/tun", "/dev/vhost-net", "/dev/vhost-vsock")

SERVER = Facts(  # AMD, Debian 13, root, everything set up
    system="Linux",
    release="6.12.117+deb13-amd64",
    machine="x86_64",
    python=(3, 13, 5),
    processors=32,
    flags=frozenset({"svm", "npt", "constant_tsc", "nonstop_tsc"}),
    modules=frozenset({"kvm", "kvm_amd"}),
    clocksource="tsc",
    devices=dict.fromkeys(DEVICES, 0),
    kvm=Kvm(version=12, nested="1"),
    net_admin=True,
    memory=120 * GIB,
    huge_pages={2 << 20: (512, 500), GIB: (0, 0)},
    shmem_huge="advise",
    landlock=6,
    seccomp=True,
    open_files=(1024, 1 << 20),
    locked_memory=(-1, -1),
    room=dict.fromkeys(("shared", "temporary", "images"), ("/x", 50 * GIB)),
    programs={name: f"/usr/bin/{name}" for name in PROGRAMS},
)
LAPTOP = replace(  # Intel, Debian 12, a user outside the group kvm
    SERVER,
    release="6.1.0-37-amd64",
    python=(3, 11, 2),
    user="anna",
    processors=8,
    flags=frozenset({"vmx", "ept", "constant_tsc", "nonstop_tsc"}),
    modules=frozenset({"kvm", "kvm_intel"}),
    devices={**dict.fromkeys(DEVICES, errno.EACCES), "/dev/vhost-vsock": errno.ENOENT},
    kvm=Kvm(refusal="/dev/kvm cannot be opened (Permission denied)", nested="N"),
    net_admin=False,
    memory=9 * GIB,
    huge_pages={2 << 20: (0, 0)},
    shmem_huge="never",
    landlock=2,
    locked_memory=(8 << 20, 8 << 20),
    userfaultfd=errno.EPERM,
    programs={},
)
RUNNER = replace(  # a container of a build service, one processor, half a gigabyte
    LAPTOP,
    user="1001",
    container=True,
    processors=4,
    flags=frozenset({"hypervisor"}),
    modules=frozenset(),
    devices=dict.fromkeys(DEVICES, errno.ENOENT),
    kvm=Kvm(refusal="/dev/kvm cannot be opened (No such file or directory)"),
    cgroup=Cgroup(memory=400 << 20, processes=40, cpus=1.0, name="/docker/0123"),
    landlock=0,
    user_namespaces=errno.EPERM,
)
PARAVIRTUAL = replace(  # a virtual machine with a KVM for changed guests, as some clouds have
    SERVER,
    release="6.18.44",
    flags=frozenset({"hypervisor", "constant_tsc", "nonstop_tsc"}),
    modules=frozenset({"kvm", "kvm_pvm"}),
    kvm=Kvm(version=12, refusal="the guest stood still"),
)
HOSTS = [
    pytest.param(SERVER, id="server"),
    pytest.param(LAPTOP, id="laptop"),
    pytest.param(RUNNER, id="runner"),
    pytest.param(PARAVIRTUAL, id="paravirtual"),
    pytest.param(Facts(system="Darwin", release="", machine="arm64", python=(3, 11, 0)), id="mac"),
]


def verdict(facts, name):
    (found,) = [finding.verdict for finding in judged(CHECKS, facts) if finding.check.id == name]
    return found


def states(facts, state):
    return {check.id for check, verdict in judged(CHECKS, facts) if verdict.state == state}


def test_server_with_everything_has_nothing_to_mend():
    assert states(SERVER, "ok") == {check.id for check in CHECKS}
    assert {finding.verdict.mend for finding in judged(CHECKS, SERVER)} == {""}


def test_laptop_runs_a_plain_vm_and_lacks_rights():
    assert stoppers(judged(CHECKS, LAPTOP)) == []
    assert {"kvm-device", "tun", "net-admin", "passt"} <= states(LAPTOP, "missing")
    assert {"landlock", "locked-memory"} <= states(LAPTOP, "limited")


@pytest.mark.parametrize(
    ("name", "mend"),
    [
        ("kvm-device", "usermod -aG kvm anna, then log in again"),
        ("kvm-nested", "echo 'options kvm_intel nested=1'"),
        ("tun", "setfacl -m u:anna:rw /dev/net/tun"),
        ("vhost-vsock", "modprobe vhost_vsock"),
        ("net-admin", "ip tuntap add dev tap0 mode tap user anna"),
        ("huge-pages", "sysctl vm.nr_hugepages=512"),
        ("transparent-huge-pages", "echo advise > /sys/kernel/mm"),
        ("userfaultfd", "sysctl vm.unprivileged_userfaultfd=1"),
        ("passt", "apt-get install passt"),
    ],
)
def test_laptop_is_told_the_command_that_mends(name, mend):
    assert verdict(LAPTOP, name).mend.startswith(mend)


def test_runner_is_told_who_can_mend():
    assert verdict(RUNNER, "kvm-device").mend == "start the container with --device /dev/kvm"
    assert verdict(RUNNER, "kvm-processor").mend.startswith("on its host:")
    assert verdict(RUNNER, "cgroup-memory").mend.startswith("who started this container")
    assert {"cgroup-memory", "cgroup-processes", "cgroup-cpus"} <= states(RUNNER, "limited")


def test_memory_that_a_group_binds_is_what_counts():
    assert verdict(RUNNER, "free-memory").found.startswith("400 MiB can be had, by its control")
    tight = replace(RUNNER, cgroup=Cgroup(memory=100 << 20))
    assert "free-memory" in {finding.check.id for finding in stoppers(judged(CHECKS, tight))}


def test_paravirtual_kvm_is_said_to_be_one():
    assert verdict(PARAVIRTUAL, "kvm-device").state == "ok"
    found = verdict(PARAVIRTUAL, "kvm-guests")
    assert found.state == "missing"
    assert "kvm_pvm" in found.found


def test_kvm_that_is_of_no_known_other_kind_is_quoted():
    facts = replace(SERVER, kvm=Kvm(version=12, refusal="the guest stood still"))
    assert verdict(facts, "kvm-guests").found == "the guest stood still"


@pytest.mark.parametrize(
    ("lacks", "state", "found"),
    [
        (set(), "ok", "all that are used are there"),
        ({"SREGS2"}, "ok", "all that are used are there"),
        ({"NESTED_STATE"}, "limited", "not there: updates under a hypervisor in a guest (NESTED"),
        ({"XSAVE", "IOEVENTFD", "IRQFD"}, "missing", "it lacks IOEVENTFD, XSAVE:"),
    ],
)
def test_capabilities_that_are_needed_and_useful_are_told_apart(lacks, state, found):
    said = verdict(
        replace(SERVER, kvm=Kvm(version=12, lacks=frozenset(lacks))), "kvm-capabilities"
    )
    assert said.state == state
    assert said.found.startswith(found)


def test_capabilities_are_named_as_the_back_end_names_them():
    assert NEEDED | set(USEFUL) <= set(CAPABILITIES)
    assert set(make._NEEDED) == NEEDED


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ({"release": "5.4.0-1"}, "missing"),
        ({"release": "5.10.0-35-amd64"}, "limited"),
        ({"release": "6.1.0"}, "ok"),
        ({"release": "unknown"}, "missing"),
        ({"system": "Darwin"}, "missing"),
    ],
)
def test_kernel_is_judged_by_its_age(change, state):
    assert verdict(replace(SERVER, **change), "kernel").state == state


@pytest.mark.parametrize(
    ("unbuilt", "state"),
    [((), "ok"), (("instar.cpr._keeper",), "limited"), (("instar.virtio.queue",), "missing")],
)
def test_compiled_parts_that_can_be_done_without_are_a_limit(unbuilt, state):
    assert verdict(replace(SERVER, unbuilt=unbuilt), "compiled-parts").state == state


def test_memfd_that_a_sysctl_refuses_names_it():
    facts = replace(SERVER, memfd=errno.EACCES)
    assert verdict(facts, "memfd").mend == "sysctl vm.memfd_noexec=1"
    assert [finding.check.id for finding in stoppers(judged(CHECKS, facts))] == ["memfd"]


@pytest.mark.parametrize(
    ("limits", "state", "mend"),
    [
        ((1024, 4096), "ok", ""),
        ((-1, -1), "ok", ""),
        ((256, 4096), "limited", "ulimit -n 1024"),
        ((256, 256), "limited", "ulimit -n 1024, as root"),
        ((64, 512), "missing", "ulimit -n 512"),
    ],
)
def test_open_files_can_be_raised_as_far_as_the_hard_limit(limits, state, mend):
    found = verdict(replace(SERVER, open_files=limits), "open-files")
    assert (found.state, found.mend) == (state, mend)


def test_group_of_systemd_is_mended_by_its_unit():
    group = Cgroup(processes=20, name="/user.slice/user-1000.slice/session-2.scope")
    mend = verdict(replace(LAPTOP, cgroup=group), "cgroup-processes").mend
    assert mend == "systemctl set-property session-2.scope TasksMax=infinity"


def test_huge_pages_that_are_all_in_use_are_a_limit():
    found = verdict(replace(SERVER, huge_pages={2 << 20: (8, 0)}), "huge-pages")
    assert (found.state, found.found) == ("limited", "all are in use: 0 of 8 of 2 MiB")


@pytest.mark.parametrize("facts", HOSTS)
def test_report_has_a_state_and_a_purpose_for_each_check(facts):
    made = record(judged(CHECKS, facts))
    assert [row["id"] for row in made["checks"]] == [check.id for check in CHECKS]
    assert {row["state"] for row in made["checks"]} <= {"ok", "limited", "missing"}
    assert [row for row in made["checks"] if not (row["found"] and row["for"])] == []
    assert set(made) == {"program", "ready", "checks"}


@pytest.mark.parametrize("facts", HOSTS)
def test_plain_report_has_no_escapes_and_short_lines(facts):
    shown = list(lines(facts, judged(CHECKS, facts), colored=False))
    assert [line for line in shown if not line.isprintable()] == []
    assert [line for line in shown if len(line) > 160] == []


@pytest.mark.parametrize("facts", HOSTS)
def test_colored_report_says_the_same(facts):
    findings = judged(CHECKS, facts)
    plain = list(lines(facts, findings, colored=False))
    colored = lines(facts, findings, colored=True)
    assert [re.sub(r"\x1b\[\d+m", "", line) for line in colored] == plain


def test_first_line_names_what_stops_every_vm():
    facts = replace(SERVER, memfd=errno.ENOSYS, python=(3, 9, 2))
    first = next(iter(lines(facts, judged(CHECKS, facts), colored=False)))
    assert "no VM can run, it lacks python, memfd;" in first


def test_ids_are_unique_and_groups_are_known():
    assert len({check.id for check in CHECKS}) == len(CHECKS)
    assert {check.group for check in CHECKS} == set(GROUPS)


def test_parts_that_are_looked_for_are_those_that_setup_builds():
    built = re.findall(r'Extension\(\s*"(instar\.[\w.]+)"', (ROOT / "setup.py").read_text())
    assert set(built) == set(PARTS)


def test_reference_page_is_the_one_in_the_repository():
    page = ROOT / "docs" / "reference" / "doctor.md"
    assert page.read_text(encoding="utf-8") == reference_page(), "run tools/gen_doctor_doc.py"
