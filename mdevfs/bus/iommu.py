"""IOMMU groups (drivers/iommu/iommu.c): `kernel/iommu_groups/<number>`."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mdevfs.bus.core import Core, Numbers
from mdevfs.bus.kobject import Links
from mdevfs.errors import KernelError
from mdevfs.sysfs.entries import Attribute, Directory, Entry, Folder, Overlay
from mdevfs.sysfs.parse import word

if TYPE_CHECKING:
    from mdevfs.bus.device import Device

ROOT = "kernel/iommu_groups"
_WORDS = ("identity", "DMA", "DMA-FQ", "auto")


class Group:
    """One group. `name` is set only where somebody names it (vfio-noiommu and mdevs); `type` is the default domain."""

    __slots__ = ("devices", "name", "number", "reserved", "salt", "type")

    def __init__(self, number: int, salt: int, name: str | None, type: str) -> None:
        self.salt = salt
        self.number = number
        self.name = name
        self.type = type
        self.reserved = ""
        self.devices: tuple[Device, ...] = ()

    @property
    def path(self) -> str:
        return f"{ROOT}/{self.number}"

    def directory(self) -> Directory:
        """devices/, reserved_regions, type, and name where there is one."""
        entries: dict[str, Entry] = {
            "devices": Overlay(Links(f"{self.path}/devices", {one.name: one for one in self.devices})),
            "reserved_regions": Attribute(lambda: self.reserved),
            "type": Attribute(lambda: f"{self.type}\n", self._set_type),
        }
        if self.name is not None:
            entries["name"] = Attribute(lambda: f"{self.name}\n")
        return Folder(entries, salt=self.salt)

    def _set_type(self, data: bytes) -> None:
        wanted = word(data)
        if wanted not in _WORDS or self.type == "unknown":
            raise KernelError(errno.EINVAL)
        kernel = self.devices[0].core.kernel
        if not kernel.since("6.2") and len(self.devices) != 1:
            raise KernelError(errno.EINVAL)
        if any(one.driver is not None for one in self.devices) and (self.type, wanted) != ("DMA", "DMA-FQ"):
            raise KernelError(errno.EPERM if kernel.since("6.2") else errno.EBUSY)
        self.type = "DMA-FQ" if wanted == "auto" else wanted


class Groups(Directory):
    """All groups of a machine; hands out the lowest free number."""

    __slots__ = ("core", "groups", "numbers")

    def __init__(self, core: Core) -> None:
        self.core = core
        self.groups: dict[int, Group] = {}
        self.numbers = Numbers()
        core.kernel_folder.entries["iommu_groups"] = self

    def new(self, name: str | None = None, type: str = "unknown", number: int | None = None) -> Group:
        """A new, empty group; `number` asks for one that no other group has (a described host's)."""
        if number is None:
            number = self.numbers.take()
        else:
            self.numbers.reserve(number)
        group = Group(number, next(self.core.salts), name, type)
        self.groups[number] = group
        self.core.tree.changed(ROOT, str(number))
        return group

    def join(self, group: Group, device: Device) -> None:
        """iommu_group_add_device."""
        group.devices = (*group.devices, device)
        device.group = group
        if len(group.devices) > 1:
            self.core.tree.refresh(group.path)

    def leave(self, device: Device) -> None:
        """iommu_group_remove_device; the last one takes the group with it."""
        group = device.group
        if group is None:
            return
        device.group = None
        group.devices = tuple(one for one in group.devices if one is not device)
        if group.devices:
            self.core.tree.refresh(group.path)
            return
        del self.groups[group.number]
        self.numbers.give(group.number)
        self.core.tree.changed(ROOT, str(group.number))

    def lookup(self, name: str) -> Entry | None:
        group = self.groups.get(int(name)) if name.isascii() and name.isdigit() else None
        return group.directory() if group is not None and name == str(group.number) else None

    def scan(self) -> Sequence[tuple[str, int, int]]:
        return [(str(number), Directory.mode, group.salt) for number, group in self.groups.items()]

    def subdirectories(self) -> int:
        return len(self.groups)
