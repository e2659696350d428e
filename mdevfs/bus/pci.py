"""The bus pci of one host: host bridges, functions and bridges, and how they come and go (drivers/pci/probe.c,
remove.c, pci-sysfs.c)."""

from __future__ import annotations

import errno
import os

import trio
from attrs import evolve

from mdevfs.bus.core import Core
from mdevfs.bus.dmar import Dmar
from mdevfs.bus.iommu import Groups
from mdevfs.bus.kobject import Kobject
from mdevfs.bus.pci_address import Address
from mdevfs.bus.pci_attributes import number
from mdevfs.bus.pci_driver import PciDriver, PortDriver, VfioPci
from mdevfs.bus.pci_function import PciBusDevice, PciFunction, Slot
from mdevfs.bus.pci_resource import Arena, PciIdentity, Resources, SriovCapability, spaces
from mdevfs.bus.power import PowerSupport
from mdevfs.bus.root import RootDevice
from mdevfs.bus.sriov import Sriov, vf_entries
from mdevfs.bus.subsystem import Bus
from mdevfs.bus.vfio import VfioCore
from mdevfs.errors import InputError, KernelError
from mdevfs.sysfs.entries import PAGE_SIZE, Attribute, Entry, Folder

PORT = PciIdentity(0x1B36, 0x000C, 0x060400, 0, 0x1B36, irq=16, pm=False, reset_methods=())  # QEMU's pcie-root-port
# Where root ports are made, first choice first: where Intel's chipsets have theirs, out of the way of described ones.
_PORT_DEVICES = (*range(0x1C, 0x1F), *range(0x1B, 0x02, -1), 2, 1)
# Intel's and AMD's: the range that interrupts are written to.
RESERVED_REGIONS = "0x00000000fee00000 0x00000000feefffff msi\n"


class PciBus(Bus):
    """`bus/pci`."""

    __slots__ = ("alignment", "pci")

    def __init__(self, pci: PciCore) -> None:
        super().__init__("pci", pci.core)
        self.pci = pci
        self.alignment = b""

    def entries(self) -> dict[str, Entry]:
        return super().entries() | {
            "rescan": Attribute(store=lambda data: self.pci.rescan_store(data, None)),
            "resource_alignment": Attribute(lambda: self.alignment, self._store_alignment),
            "slots": Folder(),
        }

    def _store_alignment(self, data: bytes) -> None:
        if len(data) >= PAGE_SIZE - 1:
            raise KernelError(errno.EINVAL)
        text = data.partition(b"\n")[0]
        self.alignment = text + b"\n" if text else b""


class PciCore:
    """All PCI functions of one host.

    `cpus` is how many CPUs are online; `reserved_groups` are IOMMU groups that functions still to come ask for by
    number. A PC has a host bridge with or without functions behind it; with `bridge` false it comes with the first of
    them, as on a mainframe.
    """

    def __init__(
        self,
        core: Core,
        groups: Groups,
        *,
        cpus: int | None = None,
        reserved_groups: frozenset[int] = frozenset(),
        bridge: bool = True,
    ) -> None:
        self.core = core
        self.groups = groups
        self.cpus = cpus or os.cpu_count() or 1
        self.reserved_groups = reserved_groups
        self.bus = PciBus(self)
        core.buses["pci"] = self.bus
        core.tree.changed("bus", "pci")
        core.cls("pci_bus")
        core.cls("iommu")
        self.functions: dict[str, PciFunction] = {}
        self.slots: dict[Address, Slot] = {}
        self._new: list[PciFunction] = []
        self._unplugged: dict[Address, Slot] = {}
        self.nodes = {0}
        self.default_vga: PciFunction | None = None
        self.dmar: Dmar | None = None
        self._roots: dict[int, RootDevice] = {}
        self._buses: dict[tuple[int, int], PciBusDevice] = {}
        self._arenas: dict[tuple[int, int], Arena] = {}
        self._spaces = spaces()
        self._rescan_remove = trio.Lock()
        if bridge:
            self._host_bridge(0)
        self.bus.add_driver(PortDriver(self.bus))

    # -- what is there

    def arena(self, domain: int, bus: int) -> Arena:
        """The address space of one bus."""
        return self._arenas.setdefault((domain, bus), Arena(self._spaces))

    def last_bus(self, domain: int, bus: int) -> int:
        """The last bus that `bus` or the VFs of its functions reach to."""
        behind = [slot for at, slot in self.slots.items() if (at.domain, at.bus) == (domain, bus)]
        return max((slot.sriov.addresses(slot.address)[-1].bus for slot in behind if slot.sriov), default=bus)

    def has_sriov(self, domain: int, bus: int) -> bool:
        """Whether a function of this bus has SR-IOV."""
        return any(slot.sriov is not None and (at.domain, at.bus) == (domain, bus) for at, slot in self.slots.items())

    def is_multifunction(self, address: Address) -> bool:
        """Whether another function shares the device."""
        others = (evolve(address, function=one) for one in range(8) if one != address.function)
        return any(one in self.slots for one in others)

    # -- adding

    def add(
        self,
        address: str,
        identity: PciIdentity,
        *,
        numa_node: int | None = None,
        iommu_group: int | None = None,
        sriov: SriovCapability | None = None,
    ) -> PciFunction:
        """Plugs a function in and registers it, with a root port before it where its bus needs one; does not bind.

        `iommu_group` is shared with whoever has that number; None takes a free one. Raises InputError with every
        mistake.
        """
        where = Address.parse(address)
        self._check(where, identity, numa_node, iommu_group, sriov)
        resources = self._place(where, identity, sriov)
        if where.bus:
            self._ensure_port(where)
        node = -1 if numa_node is None else numa_node
        self.nodes.add(max(node, 0))
        self.slots[where] = Slot(where, identity, resources, node, iommu_group, sriov)
        return self._register(self.slots[where])

    def _place(self, where: Address, identity: PciIdentity, sriov: SriovCapability | None) -> Resources:
        """Where its BARs lie: the same function that was unplugged here has them back."""
        before = self._unplugged.pop(where, None)
        if before is not None and (before.identity, before.sriov) == (identity, sriov):
            return before.resources
        arena = self.arena(where.domain, where.bus)
        resources = arena.place(identity.bars) | arena.place_rom(identity.rom)
        if sriov is not None:
            resources |= arena.place(sriov.vf_bars, first=7, count=sriov.total)
        return resources

    def _check(
        self,
        where: Address,
        identity: PciIdentity,
        numa_node: int | None,
        group: int | None,
        sriov: SriovCapability | None,
    ) -> None:
        wrong = identity.mistakes()
        if where in self.slots:
            holder = "the root port of another bus" if self.slots[where].secondary is not None else "another function"
            wrong.append(f"{where} is taken by {holder}")
        numbers = {"numa_node": numa_node, "iommu_group": group}
        wrong += [f"{name} {value} is negative" for name, value in numbers.items() if value is not None and value < 0]
        vfs: list[Address] = []
        if sriov is not None:
            wrong += sriov.mistakes()
            if not identity.pcie:
                wrong.append("only a PCIe function has SR-IOV")
            try:
                vfs = sriov.addresses(where)
            except InputError as error:
                wrong += error.mistakes
        wrong += self._clashes(where, vfs)
        if wrong:
            raise InputError(wrong)

    def _clashes(self, where: Address, vfs: list[Address]) -> list[str]:
        wrong = [f"VF {index} at {vf} is taken by another function" for index, vf in enumerate(vfs) if vf in self.slots]
        for at, slot in self.slots.items():
            others = slot.sriov.addresses(at) if slot.sriov is not None else []
            if where in others or set(vfs) & set(others):
                wrong.append(f"{where} or a VF of it lies among the VFs of {at}")
            elif where.bus != at.bus and any((one.domain, one.bus) == (where.domain, where.bus) for one in others):
                wrong.append(f"bus {where.bus:02x} is used by the VFs of {at}")
        return wrong

    def _host_bridge(self, domain: int) -> RootDevice:
        root = self._roots.get(domain)
        if root is None:
            root = self._roots[domain] = RootDevice(
                f"pci{domain:04x}:00", self.core, power=PowerSupport(is_async="enabled")
            )
            root.register()
            self._add_bus(domain, 0, root)
        return root

    def _add_bus(self, domain: int, number: int, bridge: Kobject) -> None:
        device = self._buses[domain, number] = PciBusDevice(self, domain, number, bridge)
        device.register()

    def _drop_bus(self, domain: int, number: int) -> None:
        self._buses.pop((domain, number)).unregister()

    def _ensure_port(self, where: Address) -> None:
        if self._port(where.domain, where.bus) is not None:
            return
        free = (Address(where.domain, 0, device, 0) for device in _PORT_DEVICES)
        at = next((one for one in free if one not in self.slots and str(one) not in self.functions), None)
        if at is None:
            raise InputError(f"no room on bus 00 for a root port to bus {where.bus:02x}: use fewer buses")
        self.slots[at] = Slot(at, PORT, {}, secondary=where.bus)

    def _port(self, domain: int, bus: int) -> Slot | None:
        ports = (slot for at, slot in self.slots.items() if at.domain == domain and slot.secondary == bus)
        return next(ports, None)

    def _above(self, address: Address) -> Kobject:
        """The host bridge or bridge that leads to a function, registered if it was not."""
        root = self._host_bridge(address.domain)
        if not address.bus:
            return root
        port = self._port(address.domain, address.bus)
        assert port is not None
        return self.functions.get(str(port.address)) or self._register(port)

    def _register(self, slot: Slot) -> PciFunction:
        function = PciFunction(self, slot, self._above(slot.address))
        if slot.sriov is not None:
            function.sriov = Sriov(function, slot.sriov)
            function.groups = (function.sriov.entries,)
        self._show(function)
        self._new.append(function)
        if slot.secondary is not None:
            self._add_bus(slot.address.domain, slot.secondary, function)
        return function

    def add_vf(self, pf: PciFunction, slot: Slot) -> PciFunction:
        """Registers a VF beside its physical function, with the virtual bus that it may begin."""
        assert pf.above is not None
        vf = PciFunction(self, slot, pf.above, pf)
        vf.groups = (vf_entries,)
        if (slot.address.domain, slot.address.bus) not in self._buses:
            self._add_bus(slot.address.domain, slot.address.bus, pf.above)
        self._show(vf)
        return vf

    def _show(self, function: PciFunction) -> None:
        if self.default_vga is None and function.identity.class_code >> 8 == 0x0300:
            self.default_vga = function
        self._join_group(function)
        if self.dmar is None:
            self.dmar = Dmar(self)
            self.dmar.register()
        self.functions[function.name] = function
        self.core.tree.changed(self.dmar.links, function.name, links=True)
        function.register()

    def _join_group(self, function: PciFunction) -> None:
        wanted = function.slot.iommu_group
        number = self._free_group() if wanted is None else wanted
        group = self.groups.groups.get(number)
        if group is None:
            group = self.groups.new(type="DMA-FQ", number=number)
            group.reserved = RESERVED_REGIONS
        self.groups.join(group, function)

    def _free_group(self) -> int:
        found = 0
        while found in self.groups.groups or found in self.reserved_groups:
            found += 1
        return found

    # -- removing

    async def remove(self, function: PciFunction) -> None:
        """pci_stop_and_remove_bus_device: all drivers let go, then everything below goes, then the function itself.

        A second removal while the first goes on does nothing. Raises what a driver's remove raises: then all stay,
        though some may have lost their drivers or VFs.
        """
        if function.removing:
            return
        function.removing = True
        function.refresh()
        async with self._rescan_remove:
            if function.gone:  # with the bridge above it
                return
            below = [one for one in function.children.values() if isinstance(one, PciFunction) and one.physfn is None]
            doomed = [*below[::-1], function]
            for one in below:
                one.removing = True
            try:
                for one in doomed:
                    await self._stop(one)
            except BaseException:
                for one in doomed:
                    one.removing = False
                    one.refresh()
                raise
            for one in doomed:
                self._destroy(one)

    @staticmethod
    async def _stop(function: PciFunction) -> None:
        if function.sriov is not None:
            # The kernel leaves this to the driver's remove, and does not survive one that forgets it.
            async with function.lock:
                await function.sriov.disable()
        if function.driver is not None:
            await function.driver.unbind(function)

    def _destroy(self, function: PciFunction) -> None:
        if function.slot.secondary is not None:
            self._drop_bus(function.address.domain, function.slot.secondary)
        self.drop(function)

    async def unplug(self, address: str) -> None:
        """Takes a function out of its slot: it is removed, and no rescan finds it again.

        Raises KernelError EBUSY while another removal goes on, and what a driver's remove raises.
        """
        where, function = Address.parse(address), self.functions.get(address)
        if function is not None:
            await self.remove(function)
            if not function.gone:
                raise KernelError(errno.EBUSY, f"{address} is being removed already")
        self._unplugged[where] = self.slots.pop(where)

    def drop(self, function: PciFunction) -> None:
        """Unregisters a function that nobody drives; the last VF of a virtual bus takes the bus with it."""
        function.gone = True
        function.unregister()
        self.groups.leave(function)
        del self.functions[function.name]
        assert self.dmar is not None
        self.core.tree.changed(self.dmar.links, function.name, links=True)
        if self.default_vga is function:
            self.default_vga = None
        at, pf = function.address, function.physfn
        if pf is not None and at.bus != pf.address.bus and not self._inhabited(at):
            self._drop_bus(at.domain, at.bus)

    def _inhabited(self, where: Address) -> bool:
        there = (one.address for one in self.functions.values())
        return any((one.domain, one.bus) == (where.domain, where.bus) for one in there)

    # -- rescanning

    async def rescan_store(self, data: bytes, near: Address | None) -> None:
        """A write to a `rescan`: of the bus of `near` and those behind it, or of all buses. 0 does nothing."""
        if number(data):
            await self.rescan(near)

    async def rescan(self, near: Address | None = None) -> None:
        """pci_rescan_bus: functions that were removed come back, then each is offered to the drivers."""
        async with self._rescan_remove:
            found = [slot for at, slot in sorted(self.slots.items()) if self._reaches(near, at)]
            for slot in found:
                if str(slot.address) not in self.functions:
                    self._register(slot)
            # pci_bus_add_device calls device_attach, which does not look at the bus's drivers_autoprobe.
            await self.attach()

    @staticmethod
    def _reaches(near: Address | None, at: Address) -> bool:
        return near is None or (near.domain == at.domain and near.bus in (0, at.bus))

    async def attach(self) -> None:
        """pci_bus_add_devices: offers to the drivers what was registered since, a port before what is behind it."""
        new, self._new = self._new, []
        for function in new:
            await self.bus.attach(function)

    def load_vfio_pci(self, vfio: VfioCore) -> None:
        """vfio-pci is there from now on."""
        if "vfio-pci" not in self.bus.drivers:
            self.bus.add_driver(VfioPci(self.bus, vfio))

    async def load(self, driver: PciDriver) -> None:
        """pci_register_driver: adds a driver and, unless the bus's drivers_autoprobe is 0, binds what it matches."""
        self.bus.add_driver(driver)
        if self.bus.autoprobe:
            await driver.attach()
