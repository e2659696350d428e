"""The IOMMU itself: `class/iommu/dmar0` (drivers/iommu/iommu-sysfs.c, intel/iommu.c), as QEMU's has its registers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mdevfs.bus.device import Device
from mdevfs.bus.kobject import Links
from mdevfs.bus.pci_attributes import fixed
from mdevfs.sysfs.entries import Attribute, Entry, Overlay

if TYPE_CHECKING:
    from mdevfs.bus.pci import PciCore

_REGISTERS = {
    "address": "fed90000",
    "cap": "d2008c22260206",
    "ecap": "f00f4a",
    "version": "1:0",
    "domains_supported": "65536",
}


class Dmar(Device):
    """The one that all functions of a machine are behind; `devices/` links to them."""

    __slots__ = ("pci",)

    def __init__(self, pci: PciCore) -> None:
        super().__init__("dmar0", pci.core.glue("iommu"), pci.core.cls("iommu"))
        self.pci = pci

    @property
    def links(self) -> str:
        """The path of the directory that links to the functions."""
        return f"{self.path}/devices"

    def entries(self) -> dict[str, Entry]:
        registers = {f"intel-iommu/{name}": fixed(text) for name, text in _REGISTERS.items()}
        return super().entries() | {
            "devices": Overlay(Links(self.links, self.pci.functions)),
            **registers,
            "intel-iommu/domains_used": Attribute(lambda: f"{len(self.pci.groups.groups)}\n"),
        }
