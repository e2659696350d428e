"""Buses, classes, bus drivers and modules (drivers/base/bus.c, class.c, driver.c, kernel/module/sysfs.c)."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import TYPE_CHECKING

from mdevfs.bus.kobject import Kobject, KobjectDirectory, Links
from mdevfs.errors import KernelError, MdevfsError
from mdevfs.events.stream import parse_synthetic
from mdevfs.sysfs.entries import Attribute, Directory, Entry, Link, Overlay
from mdevfs.sysfs.parse import word

if TYPE_CHECKING:
    from mdevfs.bus.core import Core
    from mdevfs.bus.device import Device


class Subsystem(Kobject):
    """A bus or a class: what `subsystem` links to, and the SUBSYSTEM of events."""

    __slots__ = ("core", "devices")

    def __init__(self, name: str, kind: str, core: Core) -> None:
        super().__init__(name, Kobject(kind, None, 0), next(core.salts))
        self.core = core
        self.devices: Mapping[str, Kobject] = {}

    @property
    def device_links(self) -> str:
        """The path of the directory that links to the devices."""
        return self.path

    def join(self, device: Kobject) -> None:
        """Links a device."""
        assert isinstance(self.devices, dict)
        self.devices[device.name] = device
        self.core.tree.changed(self.device_links, device.name, links=True)

    def leave(self, device: Kobject) -> None:
        """Takes the link away."""
        assert isinstance(self.devices, dict)
        self.devices.pop(device.name, None)
        self.core.tree.changed(self.device_links, device.name, links=True)


class Class(Subsystem):
    """A class; its directory links to its devices."""

    __slots__ = ()

    def __init__(self, name: str, core: Core) -> None:
        super().__init__(name, "class", core)

    def directory(self) -> Directory:
        return Overlay(Links(self.path, self.devices), salt=self.salt)


class Bus(Subsystem):
    """A bus: devices, drivers, and which of them match."""

    __slots__ = ("autoprobe", "drivers")

    def __init__(self, name: str, core: Core) -> None:
        super().__init__(name, "bus", core)
        self.drivers: dict[str, Driver] = {}
        self.autoprobe = True

    @property
    def device_links(self) -> str:
        return f"{self.path}/devices"

    def entries(self) -> dict[str, Entry]:
        return {
            "devices": Overlay(Links(self.device_links, self.devices)),
            "drivers": Drivers(self),
            "drivers_autoprobe": Attribute(lambda: f"{int(self.autoprobe)}\n", self._set_autoprobe),
            "drivers_probe": Attribute(store=self._probe),
            "uevent": Attribute(store=lambda data: synthesize(self.core, self.path, "bus", data)),
        }

    def _set_autoprobe(self, data: bytes) -> None:
        self.autoprobe = data[:1] != b"0"  # drivers/base/bus.c: only the first character counts

    async def _probe(self, data: bytes) -> None:
        device = self.devices.get(word(data))
        if device is None:
            raise KernelError(errno.ENODEV)
        await self.attach(device)  # type: ignore[arg-type]

    async def attach(self, device: Device) -> None:
        """device_attach: binds an unbound device to the first driver that matches and whose probe succeeds."""
        if device.driver is None:
            for driver in tuple(self.drivers.values()):
                if driver.matches(device):
                    try:
                        await driver.bind(device)
                    except MdevfsError:
                        continue
                    return

    def add_driver(self, driver: Driver) -> None:
        """Registers a driver; does not probe."""
        self.drivers[driver.name] = driver
        self.core.tree.changed(f"{self.path}/drivers", driver.name)
        self.core.events.send("add", f"/{driver.path}", "drivers")

    def remove_driver(self, driver: Driver) -> None:
        """Unregisters a driver that has no devices any more."""
        del self.drivers[driver.name]
        self.core.tree.changed(f"{self.path}/drivers", driver.name)
        self.core.events.send("remove", f"/{driver.path}", "drivers")


class Drivers(Directory):
    """`bus/<bus>/drivers`."""

    __slots__ = ("bus",)

    def __init__(self, bus: Bus) -> None:
        self.bus = bus

    def lookup(self, name: str) -> Entry | None:
        driver = self.bus.drivers.get(name)
        return driver.directory() if driver is not None else None

    def scan(self) -> list[tuple[str, int, int]]:
        return [(name, Directory.mode, driver.salt) for name, driver in self.bus.drivers.items()]


class Driver(Kobject):
    """A bus driver: its directory links to the devices bound to it and takes `bind` and `unbind`."""

    __slots__ = ("bound", "bus", "module")
    holds_awake = True  # its devices, while they are bound

    def __init__(self, name: str, bus: Bus, module: Module | None = None) -> None:
        super().__init__(name, Kobject("drivers", bus, 0), next(bus.core.salts))
        self.bus = bus
        self.module = module
        self.bound: dict[str, Kobject] = {}
        if module is not None:
            module.drivers[f"{bus.name}:{name}"] = self
            bus.core.tree.refresh(module.path)

    def matches(self, device: Device) -> bool:
        """Whether the bus would offer this device to the driver."""
        return False

    async def probe(self, device: Device) -> None:
        """Takes a device on. Raises MdevfsError to refuse it."""

    async def remove(self, device: Device) -> None:
        """Lets a device go."""

    async def bind(self, device: Device) -> None:
        """really_probe: the driver is there before its probe, so that events of the probe carry DRIVER; then `bind`."""
        self.link(device)
        device.refresh()
        try:
            await self.probe(device)
        except BaseException:
            self.unlink(device)
            raise
        finally:
            device.refresh()
        device.send("bind")

    async def unbind(self, device: Device) -> None:
        """Lets a device go that stays."""
        await self.release(device)
        device.refresh()

    async def release(self, device: Device) -> None:
        """__device_release_driver: the driver's remove, the links go, the `unbind` event."""
        await self.remove(device)
        self.unlink(device)
        device.send("unbind")

    def link(self, device: Device) -> None:
        """Records that `device` is bound to this driver."""
        device.driver = self
        self.bound[device.name] = device
        self.bus.core.tree.changed(self.path, device.name, links=True)

    def unlink(self, device: Device) -> None:
        """Undoes `link`."""
        device.driver = None
        self.bound.pop(device.name, None)
        self.bus.core.tree.changed(self.path, device.name, links=True)

    def entries(self) -> dict[str, Entry]:
        entries: dict[str, Entry] = {
            "bind": Attribute(store=self._bind),
            "unbind": Attribute(store=self._unbind),
            "uevent": Attribute(store=lambda data: synthesize(self.bus.core, self.path, "drivers", data)),
        }
        if self.module is not None:
            entries["module"] = Link(self, self.module)
        return entries

    def directory(self) -> Directory:
        return Overlay(KobjectDirectory(self), Links(self.path, self.bound), salt=self.salt)

    async def _bind(self, data: bytes) -> None:
        device = self.bus.devices.get(word(data))
        if device is None or not self.matches(device):  # type: ignore[arg-type]
            raise KernelError(errno.ENODEV)
        if device.driver is not None:  # type: ignore[attr-defined]
            raise KernelError(errno.EBUSY)
        await self.bind(device)  # type: ignore[arg-type]

    async def _unbind(self, data: bytes) -> None:
        device = self.bound.get(word(data))
        if device is None:
            raise KernelError(errno.ENODEV)
        await self.unbind(device)  # type: ignore[arg-type]


class Module(Kobject):
    """`module/<name>`: enough for tools that ask whether a module is loaded and which `holders` use it."""

    __slots__ = ("core", "drivers", "holders")

    def __init__(self, name: str, core: Core) -> None:
        super().__init__(name, Kobject("module", None, 0), next(core.salts))
        self.core = core
        self.drivers: dict[str, Kobject] = {}
        self.holders: dict[str, Kobject] = {}

    def entries(self) -> dict[str, Entry]:
        entries: dict[str, Entry] = {
            "holders": Overlay(Links(f"{self.path}/holders", self.holders)),
            "initstate": Attribute(lambda: "live\n"),
            "refcnt": Attribute(lambda: f"{len(self.holders)}\n"),
            "uevent": Attribute(store=lambda data: synthesize(self.core, self.path, "module", data)),
        }
        if self.drivers:
            entries["drivers"] = Overlay(Links(f"{self.path}/drivers", self.drivers))
        return entries

    def hold(self, holder: Module, *, held: bool = True) -> None:
        """Another module uses this one, or does so no more."""
        if held == (holder.name in self.holders):
            return
        if held:
            self.holders[holder.name] = holder
        else:
            del self.holders[holder.name]
        self.core.tree.changed(f"{self.path}/holders", holder.name, links=True)


def synthesize(core: Core, path: str, subsystem: str, data: bytes, keys: dict[str, str] | None = None) -> None:
    """A write to a `uevent` file. Raises KernelError EINVAL or ENOMEM as kobject_synth_uevent does."""
    action, synthetic = parse_synthetic(data)
    core.events.send(action, f"/{path}", subsystem, synthetic | (keys or {}))
