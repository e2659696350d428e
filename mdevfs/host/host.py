"""A host: everything below the mount, built from a plan."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mdevfs.bus.core import Core
from mdevfs.bus.iommu import Groups
from mdevfs.bus.vfio import VfioCore
from mdevfs.errors import InputError, MdevfsError, escape
from mdevfs.host.devices import Devices
from mdevfs.host.farewell import say_goodbye
from mdevfs.host.faults import make_fault
from mdevfs.host.mistakes import near_miss
from mdevfs.host.plan import Plan, PlannedDevice, plan
from mdevfs.host.read import read
from mdevfs.host.schema import DeviceSection
from mdevfs.mdev.core import MdevCore
from mdevfs.mdev.parent import Parent
from mdevfs.mdev.types import Type
from mdevfs.migration import arguments
from mdevfs.migration.verdict import Journal
from mdevfs.sysfs.tree import Tree


class Host:
    """One emulated machine. `uid` and `gid` own its tree.

    `awaited` are the devices that are not there, by address: how many seconds after the boot they are due, infinity
    for never. Who serves the host calls `appear` when it is time.
    """

    def __init__(self, plan: Plan, uid: int = 0, gid: int = 0) -> None:
        self.plan = plan
        self.journal = Journal()
        self.awaited: dict[str, float] = {}
        self._unplugged = {one.address for one in plan.devices if one.section.late == math.inf}
        self._seen: set[str] = set()  # devices whose described mdevs have been made
        self._boot(Core(plan.kernel, uid, gid))

    def _boot(self, core: Core) -> None:
        """All that does not outlast the machine's power."""
        self.core = core
        self.groups = Groups(core)
        self.vfio = VfioCore(core, self.groups)
        self.mdev = MdevCore(core, self.vfio, self.plan.interfaces, self.journal, self.plan.machine)
        self.devices = Devices(self.plan, core, self.groups, self.vfio, self.mdev)

    @property
    def name(self) -> str:
        return self.plan.name

    @property
    def tree(self) -> Tree:
        return self.core.tree

    async def start(self, wait: bool = True) -> None:
        """Adds the planned devices and mdevs; those that come late later, or without `wait` at once.

        Raises InputError with every mistake of the host file, those that only the drivers knew included.
        """
        wrong = list(self.plan.mistakes)
        for device in self.plan.devices:
            if device.section.late and wait:
                self.awaited[device.address] = device.section.late
            else:
                wrong += await self.appear(device)
        wrong += self._set_faults()
        if wrong:
            raise InputError(f"{self.plan.described.origin}: {line}" for line in wrong)

    async def appear(self, device: PlannedDevice) -> list[str]:
        """A planned device is there from now on, the first time with its described mdevs; what went wrong, a line
        each."""
        self.awaited.pop(device.address, None)
        self._unplugged.discard(device.address)
        try:
            parents = await self.devices.add(device)
        except MdevfsError as error:
            self.awaited[device.address] = math.inf
            return [f"{device.where}: {line}" for line in str(error).splitlines()]
        if device.address in self._seen:
            return []
        self._seen.add(device.address)
        return await self._populate(device, parents)

    async def plug(self, device: PlannedDevice) -> None:
        """`appear`, all or nothing. Raises MdevfsError with all that went wrong."""
        wrong = await self.appear(device)
        if wrong and device.address in self.devices.present:
            self._seen.discard(device.address)
            await self.unplug(device.address)
        if wrong:
            raise MdevfsError("\n".join(wrong))

    async def plug_new(self, section: DeviceSection) -> PlannedDevice:
        """A device that the host file does not describe, in the place of one that is unplugged or in a free one.

        Raises MdevfsError with every mistake, and then all is as it was.
        """
        due = {address for address, seconds in self.awaited.items() if seconds < math.inf}
        before, awaited = self.plan.devices, dict(self.awaited)
        planned = self.plan.extend(section, self.devices.present.keys() | due)
        try:
            await self.plug(planned)
        except BaseException:
            self.plan.devices, self.awaited = before, awaited
            raise
        return planned

    async def unplug(self, address: str) -> None:
        """A device that is present goes, and no boot brings it back. Raises what `Devices.remove` raises."""
        await self.devices.remove(address)
        self.awaited[address] = math.inf
        self._unplugged.add(address)

    async def reboot(self, late: float | None = None) -> list[str]:
        """The power goes and comes back: all is gone, mdevs, what was written and who waited; the devices return, each
        when it is due, or all of them `late` seconds after the boot. Faults stay. What went wrong, a line each.
        """
        say_goodbye(self.core, self.vfio, self.mdev)
        self._boot(Core(self.plan.kernel, before=self.core))
        self._seen.update(device.address for device in self.plan.devices)
        self.awaited = {one.address: due for one in self.plan.devices if (due := self._due(one, late))}
        boot, wrong = self.core, list[str]()
        for device in self.plan.devices:
            if self.core is boot and device.address not in self.awaited:
                wrong += await self.appear(device)
        return wrong

    def _due(self, device: PlannedDevice, late: float | None) -> float:
        """How many seconds after a boot it is there."""
        if device.address in self._unplugged:
            return math.inf
        usual = device.section.late if device.section.late < math.inf else 0.0
        return usual if late is None else late

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
                await kind.mdev_core.create(kind, uuid, params)
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
    """A running host from a file or a shipped name, all of its devices there. Raises InputError with all mistakes."""
    host = prepare_host(name, uid, gid)
    await host.start(wait=False)
    return host


def prepare_host(name: str, uid: int = 0, gid: int = 0) -> Host:
    """A host that is not started yet, so that a listener may hear all of its events. Raises InputError."""
    return Host(plan(read(name)), uid, gid)
