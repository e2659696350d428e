"""Devices: directories below devices/ that have a subsystem, events and perhaps a driver (drivers/base/core.c)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from mdevfs.bus.kobject import Kobject
from mdevfs.bus.power import PowerSupport
from mdevfs.bus.subsystem import Driver, Subsystem, synthesize
from mdevfs.sysfs.entries import Attribute, Entry, Link

if TYPE_CHECKING:
    from mdevfs.bus.core import Core
    from mdevfs.bus.iommu import Group
    from mdevfs.bus.vfio import Vfio

AttributeGroup = Callable[[], Mapping[str, Entry]]


class Device(Kobject):
    """A device. `subsystem` is its bus or class; `driver` what it is bound to; `group` its IOMMU group.

    `groups` give entries that others (a driver, the mdev core) hung on it; `vfio` is there while VFIO has it.
    """

    __slots__ = ("driver", "group", "groups", "subsystem", "vfio")

    def __init__(self, name: str, above: Kobject, subsystem: Subsystem) -> None:
        super().__init__(name, above, next(subsystem.core.salts))
        self.subsystem = subsystem
        self.driver: Driver | None = None
        self.group: Group | None = None
        self.groups: tuple[AttributeGroup, ...] = ()
        self.vfio: Vfio | None = None

    @property
    def power(self) -> PowerSupport:
        """What is done for its power now."""
        return PowerSupport()

    @property
    def core(self) -> Core:
        return self.subsystem.core

    def uevent_keys(self) -> dict[str, str]:
        """The keys that follow SUBSYSTEM in events and that the `uevent` file shows, in the kernel's order."""
        return {"DRIVER": self.driver.name} if self.driver is not None else {}

    def entries(self) -> dict[str, Entry]:
        entries: dict[str, Entry] = {
            "uevent": Attribute(self._show_uevent, self._store_uevent),
            "power": self.core.power.folder(self, lambda: self.power),
            "subsystem": Link(self, self.subsystem),
        }
        if self.driver is not None:
            entries["driver"] = Link(self, self.driver)
        if self.group is not None:
            entries["iommu_group"] = Link(self, self.group)
        if self.vfio is not None:
            entries |= self.vfio.entries()
        for group in self.groups:
            entries |= group()
        return entries

    def _show_uevent(self) -> str:
        return "".join(f"{key}={value}\n" for key, value in self.uevent_keys().items())

    def _store_uevent(self, data: bytes) -> None:
        synthesize(self.core, self.path, self.subsystem.name, data, self.uevent_keys())

    def send(self, action: str, keys: dict[str, str] | None = None) -> None:
        """Announces something about this device; `keys` come before its own."""
        events = self.core.events
        if events.listeners:
            events.send(action, f"/{self.path}", self.subsystem.name, (keys or {}) | self.uevent_keys())
        else:
            events.seqnum += 1

    def refresh(self) -> None:
        """Says that the directory's own entries changed (a driver came, a link went)."""
        self.core.tree.refresh(self.path)

    def register(self) -> None:
        """device_add without the driver: directory, bus or class link, `add`."""
        assert self.above is not None
        self.above.adopt(self)
        self.core.tree.changed(self.above.path, self.name)
        self.subsystem.join(self)
        self.send("add")

    def unregister(self) -> None:
        """device_del of an unbound device: `remove`, then the links and the directory go."""
        assert self.above is not None
        self.subsystem.leave(self)
        self.above.abandon(self)
        self.core.power.forget(self.path)
        self.core.tree.changed(self.above.path, self.name)
        self.send("remove")
        if not self.above.children:
            self.core.drop_glue(self.above)


class CharDevice(Device):
    """A device with a character device: `dev`, and MAJOR, MINOR, DEVNAME in its events; `mode` is DEVMODE or ""."""

    __slots__ = ("devname", "major", "minor", "mode")

    def __init__(
        self, name: str, above: Kobject, subsystem: Subsystem, number: tuple[int, int], devname: str, mode: str = ""
    ) -> None:
        super().__init__(name, above, subsystem)
        self.major, self.minor = number
        self.devname = devname
        self.mode = mode

    def uevent_keys(self) -> dict[str, str]:
        keys = {"MAJOR": str(self.major), "MINOR": str(self.minor), "DEVNAME": self.devname}
        return keys | ({"DEVMODE": self.mode} if self.mode else {}) | super().uevent_keys()

    def entries(self) -> dict[str, Entry]:
        return super().entries() | {"dev": Attribute(lambda: f"{self.major}:{self.minor}\n")}


def virtual_device(core: Core, class_name: str, name: str) -> Device:
    """A class device without a parent: `devices/virtual/<class>/<name>`. Not registered yet."""
    return Device(name, core.glue(class_name), core.cls(class_name))
