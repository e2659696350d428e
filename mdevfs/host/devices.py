"""How a planned device comes onto its bus and meets its vendor driver."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import BaseModel

from mdevfs.bus.ap import ApCore
from mdevfs.bus.css import CssCore, Subchannel, VfioCcw
from mdevfs.bus.device import Device, virtual_device
from mdevfs.bus.pci import PciCore
from mdevfs.bus.pci_driver import PciDriver, PciId
from mdevfs.bus.pci_function import PciFunction
from mdevfs.bus.pci_resource import SriovCapability
from mdevfs.errors import InputError, KernelError
from mdevfs.host.plan import PlannedDevice
from mdevfs.mdev.parent import Parent
from mdevfs.vendor.guard import GuardedDriver

if TYPE_CHECKING:
    from mdevfs.host.host import Host


class Devices:
    """Adds a host's devices; each bus exists once a device asks for it."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._drivers: dict[str, GuardedDriver] = {}
        self._pci: PciCore | None = None
        self._functions: dict[str, tuple[PlannedDevice, GuardedDriver]] = {}
        self._css: CssCore | None = None
        self._subchannels: dict[str, tuple[PlannedDevice, GuardedDriver]] = {}

    async def add(self, planned: PlannedDevice) -> Sequence[Parent]:
        """Adds one device and binds its driver; the parents that came of it. Raises MdevfsError."""
        driver = self.driver(planned)
        driver.compat_values(planned.settings, self.host.plan.machine)  # a mistake of the host's, not a failing probe
        match planned.driver.bus:
            case "virtual":
                return self._virtual(planned, driver)
            case "pci":
                return await self._function(planned, driver)
            case "css":
                return await self._subchannel(planned, driver)
            case "ap":
                return await self._matrix(planned, driver)
            case bus:
                raise InputError(f"no device can be put on the bus {bus}")

    def driver(self, planned: PlannedDevice) -> GuardedDriver:
        """The one instance of a driver that serves this host."""
        name = planned.driver.name
        if name not in self._drivers:
            self._drivers[name] = GuardedDriver(planned.driver(), self.host.tree.faults)
        return self._drivers[name]

    def _register(self, device: Device, driver: GuardedDriver, settings: BaseModel) -> Parent:
        return self.host.mdev.register_parent(device, driver, settings)

    def _virtual(self, planned: PlannedDevice, driver: GuardedDriver) -> Sequence[Parent]:
        # The order of a sample's module_init (golden/uevents.json, "load the module").
        core, first = self.host.core, driver.name not in self.host.core.modules
        self.host.mdev.load_driver(driver)
        device = virtual_device(core, driver.name, planned.address)
        device.register()
        parent = self._register(device, driver, planned.settings)
        if first:
            core.events.send("add", f"/{core.module(driver.name).path}", "module")
        return [parent]

    async def unload(self, name: str) -> None:
        """rmmod of a driver of virtual devices, in the order of a sample's module_exit (golden/uevents.json)."""
        host, driver = self.host, self._drivers.pop(name)
        for parent in [one for one in host.mdev.parents.values() if one.driver is driver]:
            await host.mdev.unregister_parent(parent)
            parent.device.unregister()
        host.mdev.bus.remove_driver(host.mdev.load_driver(driver))
        host.core.drop_class(name)
        host.core.drop_module(name)

    # -- PCI

    @property
    def pci(self) -> PciCore:
        """The PCI bus."""
        if self._pci is None:
            host = self.host
            asked = frozenset(
                one.section.iommu_group for one in host.plan.devices if one.section.iommu_group is not None
            )
            self._pci = PciCore(host.core, host.groups, vfio=host.vfio, reserved_groups=asked)
        return self._pci

    async def _function(self, planned: PlannedDevice, driver: GuardedDriver) -> Sequence[Parent]:
        section = planned.section
        identity = driver.pci(planned.settings)
        sriov = driver.sriov(planned.settings, section.sriov.total) if section.sriov is not None else None
        self._functions[planned.address] = planned, driver
        ids = [PciId(identity.vendor, identity.device)]
        if sriov is not None:
            ids.append(PciId(identity.vendor, sriov.vf_device))
        await self._load(driver, ids, sriov)
        function = self.pci.add(
            planned.address, identity, numa_node=section.numa_node, iommu_group=section.iommu_group, sriov=sriov
        )
        await self.pci.bus.attach(function)
        if section.sriov is not None and section.sriov.num and function.sriov is not None:
            await function.sriov.set_count(section.sriov.num)
        parents = self.host.mdev.parents.values()
        return [parent for parent in parents if function in (parent.device, getattr(parent.device, "physfn", None))]

    async def _load(self, driver: GuardedDriver, ids: Sequence[PciId], sriov: SriovCapability | None) -> None:
        """Registers the vendor driver on the bus the first time, and lets it take these ids."""
        bus = self.pci.bus
        known = bus.drivers.get(driver.name)
        if known is None:
            module = self.host.core.module(driver.name)
            known = PciDriver(driver.name, bus, (), module, self._probe, self._remove)
            await self.pci.load(known)
        assert isinstance(known, PciDriver)
        known.ids = tuple(dict.fromkeys((*known.ids, *ids)))
        if sriov is not None:
            known.sriov_configure = lambda function, count: count

    async def _probe(self, function: PciFunction) -> None:
        physical = function.physfn or function
        if physical.name not in self._functions:
            raise KernelError(errno.ENODEV)  # a function that the host file gives to no vendor driver
        planned, driver = self._functions[physical.name]
        if driver.is_parent(planned.settings, vf=function.physfn is not None):
            self._register(function, driver, planned.settings)

    async def _remove(self, device: Device) -> None:
        parent = self.host.mdev.parents.get(device.name)
        if parent is not None:
            await self.host.mdev.unregister_parent(parent)

    # -- subchannels

    async def _subchannel(self, planned: PlannedDevice, driver: GuardedDriver) -> Sequence[Parent]:
        """As on a machine whose admin gave the subchannel to the driver: driver_override names it."""
        if self._css is None:
            self._css = CssCore(self.host.core)
        css = self._css
        if driver.name not in css.bus.drivers:
            css.bus.add_driver(VfioCcw(css, self._probe_subchannel, self._remove, driver.name))
        self._subchannels[planned.address] = planned, driver
        await css.add(planned.address, driver.subchannel(planned.settings), driver.name)
        parent = self.host.mdev.parents.get(planned.address)
        return [parent] if parent is not None else []

    async def _probe_subchannel(self, subchannel: Subchannel) -> None:
        planned, driver = self._subchannels[subchannel.name]
        self._register(subchannel, driver, planned.settings)

    # -- the AP matrix

    async def _matrix(self, planned: PlannedDevice, driver: GuardedDriver) -> Sequence[Parent]:
        ap = ApCore(self.host.core, driver.ap(planned.settings))
        await ap.add_cards()
        matrix = await ap.load_vfio_ap()
        return [self._register(matrix, driver, planned.settings)]
