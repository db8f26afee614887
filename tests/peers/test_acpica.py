"""Our ACPI tables against iasl, the reference compiler and disassembler (Debian package acpica-tools)."""

from __future__ import annotations

import shutil
import struct
import subprocess

import pytest

from instar.boards.x86 import layout
from instar.boards.x86.acpi import acpi_tables

IASL = shutil.which("iasl")
pytestmark = pytest.mark.skipif(IASL is None, reason="no iasl here: install acpica-tools")
ROOT_SIZE = 64  # bytes before the first table


def tables(vcpus: int) -> dict[str, bytes]:
    """Return all tables but the root pointer, by signature."""
    raw, at = acpi_tables(vcpus), ROOT_SIZE
    found = {}
    while at < len(raw):
        (length,) = struct.unpack_from("<I", raw, at + 4)
        found[raw[at : at + 4].decode()] = raw[at : at + length]
        at += -(-length // ROOT_SIZE) * ROOT_SIZE
    return found


def iasl(*words, cwd) -> str:
    done = subprocess.run(
        [str(IASL), *words],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize("name", ["APIC", "DSDT", "FACP", "XSDT"])
@pytest.mark.parametrize("vcpus", [1, 8, 300])
def test_iasl_reads_every_table_without_a_complaint(tmp_path, name, vcpus):
    (tmp_path / "table.dat").write_bytes(tables(vcpus)[name])
    said = iasl("-d", "table.dat", cwd=tmp_path)
    assert not {"error", "warning", "invalid", "incorrect"} & set(said.lower().split())
    text = (tmp_path / "table.dsl").read_text()
    assert "Invalid" not in text
    assert "Incorrect" not in text


def test_iasl_compiles_what_it_read_of_the_dsdt_without_a_remark(tmp_path):
    (tmp_path / "dsdt.dat").write_bytes(tables(1)["DSDT"])
    iasl("-d", "dsdt.dat", cwd=tmp_path)
    said = iasl("-p", "again", "dsdt.dsl", cwd=tmp_path)
    assert "0 Errors, 0 Warnings, 0 Remarks" in said


def test_iasl_shows_what_the_dsdt_says(tmp_path):
    (tmp_path / "dsdt.dat").write_bytes(tables(1)["DSDT"])
    iasl("-d", "dsdt.dat", cwd=tmp_path)
    text = (tmp_path / "dsdt.dsl").read_text()
    assert text.count('"LNRO0005"') == 8
    assert "OperationRegion (EREG, SystemMemory, 0xFEA00000, 0x04)" in text
    assert "Notify (PWRB, 0x80)" in text
    assert "Name (\\_S5, Package (0x04)" in text


def test_iasl_finds_the_registers_of_the_fadt(tmp_path):
    (tmp_path / "facp.dat").write_bytes(tables(1)["FACP"])
    iasl("-d", "facp.dat", cwd=tmp_path)
    lines = (tmp_path / "facp.dsl").read_text().splitlines()
    facts = {line.rpartition("]")[2].strip() for line in lines}
    dsdt = layout.ACPI_TABLES + ROOT_SIZE
    assert {"Hardware Reduced (V5) : 1", "Reset Register Supported (V2) : 1"} <= facts
    assert f"DSDT Address : {dsdt:016X}" in facts
