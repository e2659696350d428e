"""VFIO's own devices: the group `devices/virtual/vfio/<group>` and, from 6.1 on, `<device>/vfio-dev/vfioN`.

Both are made when they are looked up; what is kept for each device is one small record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from mdevfs.bus.core import Core, Numbers
from mdevfs.bus.device import CharDevice, Device
from mdevfs.bus.iommu import Groups
from mdevfs.bus.kobject import Kobject
from mdevfs.sysfs.entries import Deferred, Entry, Link

MAJOR = 246  # golden/tree_after.json; dynamic on a real machine
CONTAINER = (10, 196)  # include/linux/miscdevice.h, VFIO_MINOR


class Vfio:
    """What VFIO knows of one device: the group's minor, and N of vfioN (-1 before 6.1)."""

    __slots__ = ("core", "device", "group", "index", "minor")

    def __init__(self, core: VfioCore, device: Device, group: int, minor: int, index: int) -> None:
        self.core = core
        self.device = device
        self.group = group
        self.minor = minor
        self.index = index

    def group_device(self) -> Device:
        """`devices/virtual/vfio/<group>`, made anew."""
        return GroupDevice(self)

    def vfio_device(self) -> Device:
        """`<device>/vfio-dev/vfioN`, made anew."""
        return VfioDevice(self)

    def entries(self) -> dict[str, Entry]:
        """What VFIO adds to the device's own directory."""
        if self.index < 0:
            return {}
        return {"vfio-dev": Deferred(lambda: {f"vfio{self.index}": self.vfio_device().directory()}, folders=1)}


class GroupDevice(CharDevice):
    """The character device `vfio/<group>`; it exists while somebody looks at it, and its salt is its group's."""

    __slots__ = ()

    def __init__(self, record: Vfio) -> None:
        number, devname = (MAJOR, record.minor), f"vfio/{record.group}"
        super().__init__(str(record.group), record.core.glue, record.core.core.cls("vfio"), number, devname)
        self.salt = record.core.iommu.groups[record.group].salt


class VfioDevice(Device):
    """The device of the cdev interface, likewise, with its owner's salt; no `dev` file where that interface is not
    built (6.1)."""

    __slots__ = ("owner",)

    def __init__(self, record: Vfio) -> None:
        folder = Kobject("vfio-dev", record.device, 0)
        super().__init__(f"vfio{record.index}", folder, record.core.core.cls("vfio-dev"))
        self.owner = record.device
        self.salt = record.device.salt

    def entries(self) -> dict[str, Entry]:
        return super().entries() | {"device": Link(self, self.owner)}


class Records(Mapping[str, Kobject]):
    """The records by number, seen as the devices that stand for them."""

    def __init__(self, prefix: str, make: Callable[[Vfio], Kobject]) -> None:
        self.prefix = prefix
        self.make = make
        self.records: dict[int, Vfio] = {}

    def __getitem__(self, name: str) -> Kobject:
        number = name.removeprefix(self.prefix)
        if not name.startswith(self.prefix) or not number.isdecimal() or str(int(number)) != number:
            raise KeyError(name)
        return self.make(self.records[int(number)])

    def __iter__(self) -> Iterator[str]:
        return (f"{self.prefix}{number}" for number in self.records)

    def __len__(self) -> int:
        return len(self.records)


class VfioCore:
    """Hands VFIO's devices out and takes them back, with the kernel's events in the kernel's order."""

    def __init__(self, core: Core, groups: Groups) -> None:
        self.core = core
        self.iommu = groups
        self.minors = Numbers()
        self.indexes = Numbers()
        self.groups = Records("", Vfio.group_device)
        self.devices = Records("vfio", Vfio.vfio_device)
        self.glue = Kobject("vfio", core.virtual, next(core.salts))
        self.glue.children = self.groups
        core.cls("vfio").devices = self.groups
        container = CharDevice("vfio", core.glue("misc"), core.cls("misc"), CONTAINER, "vfio/vfio", "0666")
        container.register()
        self.has_devices = core.kernel.since("6.1")
        if self.has_devices:
            core.cls("vfio-dev").devices = self.devices

    def attach(self, device: Device, emulated: bool = False) -> None:
        """vfio_register_group_dev: an mdev (`emulated`) gets an IOMMU group of its own first."""
        if emulated:
            self.iommu.join(self.iommu.new("vfio-noiommu"), device)
        if device.group is None:
            return
        number = device.group.number
        shared = self.groups.records.get(number)
        minor = shared.minor if shared is not None else self.minors.take()
        record = Vfio(self, device, number, minor, self.indexes.take() if self.has_devices else -1)
        device.vfio = record
        if shared is None:
            self._show_group(record)
        if record.index >= 0:
            self.devices.records[record.index] = record
            self.core.tree.changed("class/vfio-dev", f"vfio{record.index}", links=True)
            self._send("add", record.vfio_device)

    def _show_group(self, record: Vfio) -> None:
        if not self.groups.records:
            self.core.virtual.adopt(self.glue)
            self.core.tree.changed(self.core.virtual.path, "vfio")
        self.groups.records[record.group] = record
        self._changed_group(record)
        self._send("add", record.group_device)

    def _changed_group(self, record: Vfio) -> None:
        self.core.tree.changed(self.glue.path, str(record.group))
        self.core.tree.changed("class/vfio", str(record.group), links=True)

    def detach(self, device: Device, emulated: bool = False) -> None:
        """vfio_unregister_group_dev."""
        record = device.vfio
        if record is not None:
            device.vfio = None
            if record.index >= 0:
                self._gone(f"{device.path}/vfio-dev/vfio{record.index}", record.vfio_device)
                del self.devices.records[record.index]
                self.indexes.give(record.index)
                self.core.tree.changed("class/vfio-dev", f"vfio{record.index}", links=True)
            self._drop_group(record)
        if emulated:
            self.iommu.leave(device)

    def _drop_group(self, record: Vfio) -> None:
        group = record.device.group
        heirs = [one.vfio for one in group.devices if one.vfio is not None] if group is not None else []
        if heirs:
            self.groups.records[record.group] = heirs[0]
            return
        self._gone(f"{self.glue.path}/{record.group}", record.group_device)
        del self.groups.records[record.group]
        self.minors.give(record.minor)
        self._changed_group(record)
        if not self.groups.records:
            self.core.virtual.abandon(self.glue)
            self.core.tree.changed(self.core.virtual.path, "vfio")

    def _gone(self, path: str, make: Callable[[], Device]) -> None:
        self.core.power.forget(path)
        self._send("remove", make)

    def _send(self, action: str, make: Callable[[], Device]) -> None:
        if self.core.events.listeners:
            make().send(action)
        else:
            self.core.events.seqnum += 1
