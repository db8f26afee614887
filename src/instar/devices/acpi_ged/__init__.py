"""ACPI's generic event device."""

from instar.devices.acpi_ged.device import AcpiGed
from instar.devices.acpi_ged.state import AcpiGedState

__all__ = ["AcpiGed", "AcpiGedState"]
