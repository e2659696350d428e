"""A host: everything below the mount, built from a plan."""

from __future__ import annotations

from mdevfs.bus.core import Core
from mdevfs.bus.device import virtual_device
from mdevfs.bus.iommu import Groups
from mdevfs.bus.vfio import VfioCore
from mdevfs.errors import InputError, MdevfsError
from mdevfs.host.mistakes import near_miss
from mdevfs.host.plan import Plan, PlannedDevice, plan
from mdevfs.host.read import read
from mdevfs.mdev.core import MdevCore
from mdevfs.mdev.parent import Parent
from mdevfs.migration.verdict import Journal
from mdevfs.sysfs.tree import Tree
from mdevfs.vendor.guard import GuardedDriver


class Host:
    """One emulated machine. `uid` and `gid` own its tree."""

    def __init__(self, plan: Plan, uid: int = 0, gid: int = 0) -> None:
        self.plan = plan
        self.core = Core(plan.kernel, uid, gid)
        self.groups = Groups(self.core)
        self.vfio = VfioCore(self.core, self.groups)
        self.journal = Journal()
        self.mdev = MdevCore(self.core, self.vfio, plan.interfaces, self.journal)
        self._drivers: dict[str, GuardedDriver] = {}

    @property
    def name(self) -> str:
        return self.plan.name

    @property
    def tree(self) -> Tree:
        return self.core.tree

    async def start(self) -> None:
        """Adds the planned devices and mdevs. Raises InputError with every mistake that only the drivers knew."""
        wrong: list[str] = []
        for device in self.plan.devices:
            try:
                parent = await self._add(device)
            except MdevfsError as error:
                wrong.append(f"{device.where}: {error}")
                continue
            if parent is not None:
                wrong += await self._populate(device, parent)
        if wrong:
            raise InputError(f"{self.plan.described.origin}: {line}" for line in wrong)

    def driver(self, planned: PlannedDevice) -> GuardedDriver:
        """The one instance of a driver that serves this host."""
        name = planned.driver.name
        if name not in self._drivers:
            self._drivers[name] = GuardedDriver(planned.driver())
        return self._drivers[name]

    async def _add(self, planned: PlannedDevice) -> Parent | None:
        driver = self.driver(planned)
        device = virtual_device(self.core, driver.name, planned.address)
        device.register()
        return self.mdev.register_parent(device, driver, planned.settings)

    async def _populate(self, planned: PlannedDevice, parent: Parent) -> list[str]:
        wrong: dict[str, str] = {}
        for mdev, uuid in self.plan.uuids(planned):
            if mdev.where in wrong:
                continue
            kind = parent.types.get(mdev.type)
            if kind is None:
                hint = near_miss(mdev.type, parent.types)
                wrong[mdev.where] = f'{mdev.where}.type: {parent.name} has no type "{mdev.type}"{hint}'
                continue
            try:
                await self.mdev.create(kind, uuid)
            except MdevfsError as error:
                wrong[mdev.where] = f"{mdev.where}: {uuid} on {mdev.type}: {error}"
        return list(wrong.values())


async def load(name: str, uid: int = 0, gid: int = 0) -> Host:
    """A running host from a file or a shipped name. Raises InputError with all mistakes."""
    host = Host(plan(read(name)), uid, gid)
    await host.start()
    return host
