"""ACPI's registers for power off and reset."""

from instar.devices.acpi_power.device import AcpiPower

__all__ = ["AcpiPower"]
