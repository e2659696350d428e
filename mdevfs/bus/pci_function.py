"""PCI functions: `devices/pci0000:00/0000:00:02.0`, bridges to other buses, and the buses themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
from attrs import frozen

from mdevfs.bus.device import Device
from mdevfs.bus.kobject import Kobject, KobjectDirectory, Links
from mdevfs.bus.override import DriverOverride
from mdevfs.bus.pci_address import Address
from mdevfs.bus.pci_attributes import attributes, cpu_entries
from mdevfs.bus.pci_resource import PciIdentity, Resources, SriovCapability
from mdevfs.bus.power import PowerSupport
from mdevfs.sysfs.entries import Attribute, Directory, Entry, Link, Overlay

if TYPE_CHECKING:
    from mdevfs.bus.pci import PciCore
    from mdevfs.bus.sriov import Sriov


@frozen
class Slot:
    """The hardware at an address, whether the kernel knows it or not: rescan finds it again.

    `iommu_group` is None where the number does not matter, `numa_node` -1 where it is unknown; `secondary` is the bus
    that a bridge leads to.
    """

    address: Address
    identity: PciIdentity
    resources: Resources
    numa_node: int = -1
    iommu_group: int | None = None
    sriov: SriovCapability | None = None
    secondary: int | None = None


class PciFunction(Device):
    """One function. `lock` is the kernel's device_lock: held while a driver comes or goes and while VFs do.

    `sriov` is there on a physical function, `physfn` on a virtual one. `enabled` counts (pci_enable_device); `powered`:
    somebody has found it in D0; `known_resets` are the ways to reset it, `reset_methods` those chosen of them;
    `flags` are the attributes of this name that read 1; `written` what setpci left in the configuration space.
    """

    __slots__ = (
        "dma_bits",
        "enabled",
        "flags",
        "gone",
        "known_resets",
        "lock",
        "numa_node",
        "override",
        "pci",
        "physfn",
        "powered",
        "removing",
        "reset_methods",
        "slot",
        "sriov",
        "written",
    )

    def __init__(self, pci: PciCore, slot: Slot, above: Kobject, physfn: PciFunction | None = None) -> None:
        super().__init__(str(slot.address), above, pci.bus)
        self.pci = pci
        self.slot = slot
        self.physfn = physfn
        self.sriov: Sriov | None = None
        self.numa_node = slot.numa_node
        self.override = DriverOverride()
        self.known_resets = tuple(one for one in slot.identity.reset_methods if one != "bus" or self.alone)
        self.reset_methods = self.known_resets
        self.flags = frozenset({"msi_bus", "d3cold_allowed"} if slot.identity.pm else {"msi_bus"})
        self.enabled = 0
        self.powered = False
        self.dma_bits = 32
        self.written: dict[int, int] = {}
        self.lock = trio.Lock()
        self.removing = False
        self.gone = False

    @property
    def address(self) -> Address:
        return self.slot.address

    @property
    def identity(self) -> PciIdentity:
        return self.slot.identity

    @property
    def power(self) -> PowerSupport:
        """A bound driver holds a function awake, but vfio-pci, which has one that nobody uses asleep."""
        users = int(self.driver is not None and self.driver.holds_awake)
        return PowerSupport(runtime=True, users=users, control="on", is_async="enabled")

    @property
    def alone(self) -> bool:
        """Whether a bridge leads to this function and nothing else, so that it can reset it (pci_parent_bus_reset)."""
        here = (self.address.domain, self.address.bus)
        others = (one.address for one in self.pci.functions.values() if one is not self)
        return bool(self.address.bus) and all((one.domain, one.bus) != here for one in others)

    @property
    def resources(self) -> Resources:
        """By their line in `resource`."""
        if self.is_bridge:
            return self.pci.arena(self.address.domain, self.secondary).bridge_resources()
        return self.slot.resources

    @property
    def is_bridge(self) -> bool:
        """Whether its configuration header is of type 1."""
        return self.slot.secondary is not None

    @property
    def secondary(self) -> int:
        """The bus that a bridge leads to."""
        assert self.slot.secondary is not None
        return self.slot.secondary

    @property
    def subordinate(self) -> int:
        """The last bus behind a bridge; VFs may lie beyond the secondary one."""
        return self.pci.last_bus(self.address.domain, self.secondary)

    @property
    def port_type(self) -> str:
        """PCIe's device/port type: `root port`, `integrated` on bus 0, else `endpoint`."""
        pf = self.physfn or self
        return "root port" if self.is_bridge else "endpoint" if pf.address.bus else "integrated"

    @property
    def link(self) -> tuple[int, int]:
        """Speed (a PCIe generation) and width of its link: what both ends can."""
        ends = [self.identity, *(one.identity for one in self.children.values() if isinstance(one, PciFunction))]
        able = [one for one in ends if one.pcie]
        return min(one.link_speed for one in able), min(one.link_width for one in able)

    @property
    def ari(self) -> bool:
        """Whether the port above counts functions to 255: it does when something behind it has SR-IOV."""
        pf = self.physfn or self
        return bool(pf.address.bus) and self.pci.has_sriov(pf.address.domain, pf.address.bus)

    @property
    def irq(self) -> int:
        """Of the INTx line; 0 for a VF, which has none."""
        return self.identity.irq if self.physfn is None else 0

    @property
    def vfs(self) -> int:
        """How many VFs are enabled (pci_num_vf)."""
        return self.sriov.count if self.sriov is not None else 0

    @property
    def modalias(self) -> str:
        one, code = self.identity, self.identity.class_code
        return (
            f"pci:v{one.vendor:08X}d{one.device:08X}sv{one.subsystem_vendor:08X}sd{one.subsystem_device:08X}"
            f"bc{code >> 16:02X}sc{code >> 8 & 0xFF:02X}i{code & 0xFF:02X}"
        )

    def uevent_keys(self) -> dict[str, str]:
        one = self.identity
        return super().uevent_keys() | {
            "PCI_CLASS": f"{one.class_code:04X}",
            "PCI_ID": f"{one.vendor:04X}:{one.device:04X}",
            "PCI_SUBSYS_ID": f"{one.subsystem_vendor:04X}:{one.subsystem_device:04X}",
            "PCI_SLOT_NAME": self.name,
            "MODALIAS": self.modalias,
        }

    def entries(self) -> dict[str, Entry]:
        entries = super().entries() | attributes(self)
        if self.pci.dmar is not None:
            entries["iommu"] = Link(self, self.pci.dmar)
        if self.physfn is not None:
            entries["physfn"] = Link(self, self.physfn, self.physfn.salt)
        return entries

    def directory(self) -> Directory:
        own = KobjectDirectory(self)
        if self.sriov is None:
            return own
        # virtfnN: beside the rest, so that 256 of them come and go without a rebuilt directory each.
        return Overlay(own, Links(self.path, self.sriov.links), salt=self.salt)


class PciBusDevice(Device):
    """`class/pci_bus/0000:00`, below the host bridge or bridge that leads to it."""

    __slots__ = ("pci",)

    def __init__(self, pci: PciCore, domain: int, number: int, bridge: Kobject) -> None:
        glue = bridge.children.get("pci_bus")
        if glue is None:
            glue = Kobject("pci_bus", bridge, next(pci.core.salts))
            bridge.adopt(glue)
            pci.core.tree.changed(bridge.path, glue.name)
        super().__init__(f"{domain:04x}:{number:02x}", glue, pci.core.cls("pci_bus"))
        self.pci = pci

    @property
    def bridge(self) -> Kobject:
        """What leads to the bus."""
        assert self.above is not None and self.above.above is not None
        return self.above.above

    def entries(self) -> dict[str, Entry]:
        domain, number = (int(part, 16) for part in self.name.split(":"))
        here = Address(domain, number, 0, 0)
        return (
            super().entries()
            | cpu_entries(self.pci.cpus, "cpuaffinity", "cpulistaffinity")
            | {
                "device": Link(self, self.bridge),
                "rescan": Attribute(store=lambda data: self.pci.rescan_store(data, here)),
            }
        )

    def unregister(self) -> None:
        """The last one takes `pci_bus/` with it."""
        super().unregister()
        bridge, glue = self.bridge, self.above
        if glue is not None and not glue.children:
            bridge.abandon(glue)
            self.core.tree.changed(bridge.path, glue.name)
