"""A host: everything below the mount, built from a plan."""

from __future__ import annotations

from collections.abc import Sequence

from mdevfs.bus.core import Core
from mdevfs.bus.iommu import Groups
from mdevfs.bus.vfio import VfioCore
from mdevfs.errors import InputError, MdevfsError, escape
from mdevfs.host.devices import Devices
from mdevfs.host.faults import make_fault
from mdevfs.host.mistakes import near_miss
from mdevfs.host.plan import Plan, PlannedDevice, plan
from mdevfs.host.read import read
from mdevfs.mdev.core import MdevCore
from mdevfs.mdev.parent import Parent
from mdevfs.mdev.types import Type
from mdevfs.migration import arguments
from mdevfs.migration.verdict import Journal
from mdevfs.sysfs.tree import Tree


class Host:
    """One emulated machine. `uid` and `gid` own its tree."""

    def __init__(self, plan: Plan, uid: int = 0, gid: int = 0) -> None:
        self.plan = plan
        self.core = Core(plan.kernel, uid, gid)
        self.groups = Groups(self.core)
        self.vfio = VfioCore(self.core, self.groups)
        self.journal = Journal()
        self.mdev = MdevCore(self.core, self.vfio, plan.interfaces, self.journal, plan.machine)
        self.devices = Devices(self)

    @property
    def name(self) -> str:
        return self.plan.name

    @property
    def tree(self) -> Tree:
        return self.core.tree

    async def start(self) -> None:
        """Adds the planned devices and mdevs.

        Raises InputError with every mistake of the host file, those that only the drivers knew included.
        """
        wrong = list(self.plan.mistakes)
        for device in self.plan.devices:
            try:
                parents = await self.devices.add(device)
            except MdevfsError as error:
                wrong += [f"{device.where}: {line}" for line in str(error).splitlines()]
                continue
            wrong += await self._populate(device, parents)
        wrong += self._set_faults()
        if wrong:
            raise InputError(f"{self.plan.described.origin}: {line}" for line in wrong)

    def _set_faults(self) -> list[str]:
        """The described faults, from now on: the mdevs that are there from the start are made without them."""
        wrong = []
        for index, section in enumerate(self.plan.described.file.fault):
            try:
                self.tree.faults.add(make_fault(section, self.tree))
            except InputError as error:
                wrong.append(f"fault[{index}].{error}")
        return wrong

    async def _populate(self, planned: PlannedDevice, parents: Sequence[Parent]) -> list[str]:
        """The planned mdevs of a device, each on the first of its parents (VFs may be many) that has room."""
        wrong: dict[str, str] = {}
        for mdev, uuid in self.plan.uuids(planned):
            if mdev.where in wrong:
                continue
            kinds = [kind for parent in parents if (kind := parent.types.get(mdev.type)) is not None]
            if not kinds:
                types = {type_id for parent in parents for type_id in parent.types}
                hint = near_miss(mdev.type, types)
                wrong[mdev.where] = f'{mdev.where}.type: {planned.address} has no type "{escape(mdev.type)}"{hint}'
                continue
            kind = await _first_with_room(kinds)
            try:
                params = arguments.parse(mdev.params, kind.model) if mdev.params else None
                await self.mdev.create(kind, uuid, params)
            except MdevfsError as error:
                wrong[mdev.where] = f"{mdev.where}: {uuid} on {mdev.type}: {error}"
        return list(wrong.values())


async def _first_with_room(kinds: Sequence[Type]) -> Type:
    """Of one type on several parents; the first where none has room, so that its refusal is heard."""
    for kind in kinds:
        number = kind.parent.driver.available(kind)
        if (number if isinstance(number, int) else await number) > 0:
            return kind
    return kinds[0]


async def load(name: str, uid: int = 0, gid: int = 0) -> Host:
    """A running host from a file or a shipped name. Raises InputError with all mistakes."""
    host = prepare_host(name, uid, gid)
    await host.start()
    return host


def prepare_host(name: str, uid: int = 0, gid: int = 0) -> Host:
    """A host that is not started yet, so that a listener may hear all of its events. Raises InputError."""
    return Host(plan(read(name)), uid, gid)
