"""Parents: devices that offer mdev types."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import trio

from mdevfs.bus.core import Core
from mdevfs.bus.device import Device
from mdevfs.bus.kobject import Directories, Kobject
from mdevfs.bus.pci_function import PciFunction
from mdevfs.migration.model import DeviceModel
from mdevfs.migration.parameters import Value
from mdevfs.migration.verdict import Journal, Record
from mdevfs.state.description import VMState
from mdevfs.sysfs.entries import Entry, Overlay

if TYPE_CHECKING:
    from mdevfs.mdev.core import MdevCore
    from mdevfs.mdev.driver import VendorHooks
    from mdevfs.mdev.mdev import Mdev
    from mdevfs.mdev.types import Type


class Parent:
    """A device with types. `count` is the core's number of mdevs, `used` the weight that the bound ones take.

    `settings` are the driver's settings of this device, `data` is the driver's own; `model` is the device model that it
    and its mdevs have with these settings, `description` that of their mdevs' state; `params` and `string` are those of
    a physical function that migrates itself. `configuring` lets one migration parameter of its mdevs change at a time;
    `working` counts creations and removals on their way.
    """

    def __init__(self, device: Device, driver: VendorHooks, settings: object, mdev_core: MdevCore) -> None:
        self.device = device
        self.driver = driver
        self.settings = settings
        self.mdev_core = mdev_core
        self.data: object = None
        self.model: DeviceModel | None = driver.device_model(settings)
        self.description: VMState = driver.device_state(settings)
        self.params: Mapping[str, Value] = driver.compat_values(settings, mdev_core.machine)
        self.string: str | None = None
        self.last_verdict: Record | None = None
        self.count = 0
        self.used = 0
        self.types: dict[str, Type] = {}
        self.types_folder = Kobject("mdev_supported_types", device, next(self.core.salts))
        self.gone = False
        self.configuring = trio.Lock()
        self.leaving = trio.Lock()
        self.working = 0
        self._quiet: trio.Event | None = None

    def done(self) -> None:
        """One of those `working` is."""
        self.working -= 1
        if not self.working and self._quiet is not None:
            self._quiet.set()

    async def quiet(self) -> None:
        """Waits until nothing is `working`."""
        while self.working:
            self._quiet = trio.Event()
            await self._quiet.wait()

    @property
    def core(self) -> Core:
        return self.device.core

    @property
    def journal(self) -> Journal:
        return self.mdev_core.journal

    @property
    def name(self) -> str:
        """As `class/mdev_bus` lists it: `0000:00:02.0`, `mtty`."""
        return self.device.name

    @property
    def path(self) -> str:
        return self.device.path

    @property
    def mdevs(self) -> Iterator[Mdev]:
        """Every mdev on it, oldest first."""
        from mdevfs.mdev.mdev import Mdev

        return (child for child in self.device.children.values() if isinstance(child, Mdev))

    @property
    def siblings(self) -> Iterator[Parent]:
        """The parents on the same physical function and its VFs, itself included, in the order of the VFs."""
        function = self.device
        if not isinstance(function, PciFunction):
            return iter((self,))
        physical = function.physfn or function
        virtual = physical.sriov.links.values() if physical.sriov is not None else ()
        parents = self.mdev_core.parents
        return (parents[one.name] for one in (physical, *virtual) if one.name in parents)

    def entries(self) -> Mapping[str, Entry]:
        """What being a parent adds to the device's directory."""
        return {
            "mdev_supported_types": Overlay(Directories(self.types), salt=self.types_folder.salt),
            **self.driver.parent_entries(self),
        }
