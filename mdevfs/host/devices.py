"""How a planned device comes onto its bus and meets its vendor driver."""

from __future__ import annotations

import errno
from collections.abc import Sequence

from attrs import frozen
from pydantic import BaseModel

from mdevfs.bus.ap import ApCore
from mdevfs.bus.core import Core
from mdevfs.bus.css import CssCore, Subchannel, VfioCcw
from mdevfs.bus.device import Device, virtual_device
from mdevfs.bus.iommu import Groups
from mdevfs.bus.pci import PciCore
from mdevfs.bus.pci_driver import PciDriver, PciId
from mdevfs.bus.pci_function import PciFunction
from mdevfs.bus.pci_resource import SriovCapability
from mdevfs.bus.vfio import VfioCore
from mdevfs.errors import InputError, KernelError
from mdevfs.host.plan import Plan, PlannedDevice
from mdevfs.mdev.core import MdevCore
from mdevfs.mdev.parent import Parent
from mdevfs.vendor.guard import GuardedDriver


@frozen
class Offer:
    """What makes a parent of a bound device."""

    device: Device
    driver: GuardedDriver
    settings: BaseModel


class Devices:
    """The devices of one boot. The PCI bus is there whatever is on it, for the kernel has it built in and clients that
    find none look for the real machine's elsewhere; the others exist once a device asks for them.

    `present` are those that are there, by address; `offers` what of them is a parent or could be again, by name.
    """

    def __init__(self, plan: Plan, core: Core, groups: Groups, vfio: VfioCore, mdev: MdevCore) -> None:
        self.plan = plan
        self.core = core
        self.groups = groups
        self.vfio = vfio
        self.mdev = mdev
        self.present: dict[str, PlannedDevice] = {}
        self.offers: dict[str, Offer] = {}
        self._going: set[str] = set()
        self._drivers: dict[str, GuardedDriver] = {}
        asked = frozenset(one.section.iommu_group for one in plan.devices if one.section.iommu_group is not None)
        mainframe = any(one.driver.bus in ("css", "ap") for one in plan.devices)
        self.pci = PciCore(core, groups, reserved_groups=asked, bridge=not mainframe)
        self._functions: dict[str, tuple[PlannedDevice, GuardedDriver]] = {}
        self._css: CssCore | None = None
        self._subchannels: dict[str, tuple[PlannedDevice, GuardedDriver]] = {}

    async def add(self, planned: PlannedDevice) -> Sequence[Parent]:
        """Adds one device and binds its driver; the parents that came of it. Raises MdevfsError, and then it is not
        there."""
        driver = self.driver(planned)
        driver.compat_values(planned.settings, self.plan.machine)  # a mistake of the host's, not a failing probe
        match planned.driver.bus:
            case "virtual":
                parents = self._virtual(planned, driver)
            case "pci":
                parents = await self._function(planned, driver)
            case "css":
                parents = await self._subchannel(planned, driver)
            case "ap":
                parents = await self._matrix(planned, driver)
            case bus:
                raise InputError(f"no device can be put on the bus {bus}")
        self.present[planned.address] = planned
        return parents

    async def remove(self, address: str) -> None:
        """A device that is present goes: it is unplugged, a virtual one with its module. Mdevs in use are waited for.

        Raises KernelError EBUSY while it is on its way already, EOPNOTSUPP for the AP matrix; what a driver's remove
        raises, and then it stays.
        """
        planned = self.present[address]
        if address in self._going:
            raise KernelError(errno.EBUSY, f"{address} is on its way out already")
        self._going.add(address)
        try:
            match planned.driver.bus:
                case "virtual":
                    await self._unload(planned)
                case "pci":
                    await self.pci.unplug(address)
                    del self._functions[address]
                case "css" if self._css is not None:
                    subchannel = self._css.bus.devices[address]
                    assert isinstance(subchannel, Subchannel)
                    await self._css.remove(subchannel)
                case _:
                    mend = "its types go with `unregister`"
                    raise KernelError(errno.EOPNOTSUPP, f"{address} goes with the whole machine only; {mend}")
        finally:
            self._going.discard(address)
        del self.present[address]

    def register(self, name: str) -> Parent:
        """A device of `offers` is a parent again. Raises KernelError EEXIST if it is one."""
        if name in self.mdev.parents:
            raise KernelError(errno.EEXIST, f"{name} is registered")
        offer = self.offers[name]
        return self._register(offer.device, offer.driver, offer.settings)

    def driver(self, planned: PlannedDevice) -> GuardedDriver:
        """The one instance of a driver that serves this host."""
        name = planned.driver.name
        if name not in self._drivers:
            self._drivers[name] = GuardedDriver(planned.driver(), self.core.tree.faults)
        return self._drivers[name]

    def _register(self, device: Device, driver: GuardedDriver, settings: BaseModel) -> Parent:
        parent = self.mdev.register_parent(device, driver, settings)
        self.offers[device.name] = Offer(device, driver, settings)
        return parent

    async def _unregister(self, device: Device) -> None:
        """A driver lets a device go."""
        parent = self.mdev.parents.get(device.name)
        if parent is not None:
            await self.mdev.unregister_parent(parent)
        self.offers.pop(device.name, None)

    # -- virtual devices, each driver's with its module

    def _virtual(self, planned: PlannedDevice, driver: GuardedDriver) -> Sequence[Parent]:
        # The order of a sample's module_init (golden/uevents.json, "load the module").
        core, first = self.core, driver.name not in self.core.modules
        self.mdev.load_driver(driver)
        device = virtual_device(core, driver.name, planned.address)
        device.register()
        try:
            parent = self._register(device, driver, planned.settings)
        except BaseException:
            device.unregister()
            if first:
                self._drop_module(driver)
            raise
        if first:
            core.events.send("add", f"/{core.module(driver.name).path}", "module")
        return [parent]

    async def _unload(self, planned: PlannedDevice) -> None:
        """A device goes; the last of its driver with the module, in the order of a sample's module_exit
        (golden/uevents.json)."""
        device = self.offers[planned.address].device
        await self._unregister(device)
        device.unregister()
        if not any(one.driver is planned.driver for one in self.present.values() if one is not planned):
            self._drop_module(self._drivers[planned.driver.name])

    def _drop_module(self, driver: GuardedDriver) -> None:
        del self._drivers[driver.name]
        self.mdev.bus.remove_driver(self.mdev.load_driver(driver))
        self.core.drop_class(driver.name)
        self.core.drop_module(driver.name)

    # -- PCI

    async def _function(self, planned: PlannedDevice, driver: GuardedDriver) -> Sequence[Parent]:
        section = planned.section
        identity = driver.pci(planned.settings)
        sriov = driver.sriov(planned.settings, section.sriov.total) if section.sriov is not None else None
        self._functions[planned.address] = planned, driver
        ids = [PciId(identity.vendor, identity.device)]
        if sriov is not None:
            ids.append(PciId(identity.vendor, sriov.vf_device))
        await self._load(driver, ids, sriov)
        self.pci.load_vfio_pci(self.vfio)  # the later one, as mostly: who is first is asked first
        function = self.pci.add(
            planned.address, identity, numa_node=section.numa_node, iommu_group=section.iommu_group, sriov=sriov
        )
        await self.pci.attach()
        if section.sriov is not None and section.sriov.num and function.sriov is not None:
            try:
                await function.sriov.set_count(section.sriov.num)
            except BaseException:
                await self.pci.unplug(planned.address)
                raise
        parents = self.mdev.parents.values()
        return [parent for parent in parents if function in (parent.device, getattr(parent.device, "physfn", None))]

    async def _load(self, driver: GuardedDriver, ids: Sequence[PciId], sriov: SriovCapability | None) -> None:
        """Registers the vendor driver on the bus the first time, and lets it take these ids."""
        bus = self.pci.bus
        known = bus.drivers.get(driver.name)
        if known is None:
            module = self.core.module(driver.name)
            known = PciDriver(driver.name, bus, (), module, self._probe, self._unregister)
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

    # -- subchannels

    async def _subchannel(self, planned: PlannedDevice, driver: GuardedDriver) -> Sequence[Parent]:
        """As on a machine whose admin gave the subchannel to the driver: driver_override names it."""
        if self._css is None:
            self._css = CssCore(self.core)
        css = self._css
        if driver.name not in css.bus.drivers:
            css.bus.add_driver(VfioCcw(css, self._probe_subchannel, self._unregister, driver.name))
        self._subchannels[planned.address] = planned, driver
        await css.add(planned.address, driver.subchannel(planned.settings), driver.name)
        parent = self.mdev.parents.get(planned.address)
        return [parent] if parent is not None else []

    async def _probe_subchannel(self, subchannel: Subchannel) -> None:
        planned, driver = self._subchannels[subchannel.name]
        self._register(subchannel, driver, planned.settings)

    # -- the AP matrix

    async def _matrix(self, planned: PlannedDevice, driver: GuardedDriver) -> Sequence[Parent]:
        ap = ApCore(self.core, driver.ap(planned.settings))
        await ap.add_cards()
        matrix = await ap.load_vfio_ap()
        return [self._register(matrix, driver, planned.settings)]
