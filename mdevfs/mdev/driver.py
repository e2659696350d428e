"""What the mdev core needs of a vendor driver. `mdevfs.vendor` makes it out of what an author writes."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

import trio

from mdevfs.bus.device import Device
from mdevfs.bus.kernel import Kernel
from mdevfs.bus.subsystem import Bus, Driver, Module
from mdevfs.errors import KernelError
from mdevfs.migration.machine import Broken, Machine, Tier
from mdevfs.migration.model import DeviceModel, Values
from mdevfs.migration.parameters import Value
from mdevfs.migration.verdict import Verdict
from mdevfs.state.description import VMState
from mdevfs.sysfs.entries import Entry

if TYPE_CHECKING:
    from mdevfs.bus.vfio import VfioCore
    from mdevfs.mdev.mdev import Mdev
    from mdevfs.mdev.parent import Parent
    from mdevfs.mdev.types import MdevType, Type

T = TypeVar("T")


class VendorHooks(Protocol):
    """A vendor driver as the core calls it; every call raises MdevfsError and nothing else."""

    def run(self, where: Mdev | Type | Parent | str, what: str, function: Callable[..., T], *args: object) -> T:
        """Calls a function that may end in vendor code."""

    @property
    def name(self) -> str:
        """The parent's driver, and the prefix of the type-ids."""

    @property
    def max_instances(self) -> int | None:
        """How many mdevs the core itself allows per parent, all types together; None: the driver counts."""

    @property
    def slow_remove(self) -> bool:
        """Whether its remove may take long."""

    @property
    def migrates(self) -> bool:
        """Whether the handshake's attributes are there."""

    def mdev_driver(self, kernel: Kernel) -> str:
        """The name of the driver that its mdevs are bound to."""

    def shows_name(self, kernel: Kernel) -> bool:
        """Whether types have a `name` file."""

    def types(self, parent: Parent) -> Sequence[MdevType]:
        """The types that this parent offers, in the driver's order."""

    def available(self, type: Type) -> int | Awaitable[int]:
        """What `available_instances` shows."""

    def claim(self, type: Type) -> Awaitable[None] | None:
        """Raises Refused when the driver has no room for one more."""

    def probe(self, mdev: Mdev) -> Awaitable[None] | None:
        """Makes the mdev."""

    def remove(self, mdev: Mdev) -> Awaitable[None] | None:
        """Unmakes it."""

    def configure(self, mdev: Mdev, params: Values) -> Awaitable[None] | None:
        """Makes it fit for these parameters, of which one is about to change; whatever it raises, none does."""

    @property
    def model(self) -> DeviceModel | None:
        """The device model, where one is declared."""

    def device_model(self, settings: object) -> DeviceModel | None:
        """What a device with these settings knows of it."""

    @property
    def broken(self) -> Sequence[Broken]:
        """Its releases that are known to migrate wrongly."""

    @property
    def known_machines(self) -> Sequence[str]:
        """The machine types that it has compat properties or promises for."""

    def machines(self, settings: object) -> Sequence[str]:
        """Those of them that a device with these settings can be on."""

    def device_state(self, settings: object) -> VMState:
        """The description of the state of a device with these settings."""

    @property
    def guest_address(self) -> str:
        """What stands before the section's name in a stream; none: empty."""

    @property
    def migration_features(self) -> Sequence[str]:
        """What its devices offer of VFIO migration: `stop-copy`, `p2p`, `pre-copy`."""

    def reset(self, mdev: Mdev) -> object:
        """The state of a new device."""

    def exercise(self, mdev: Mdev, seed: int) -> None:
        """Drives an mdev's state on, as a guest would."""

    def fingerprint(self, mdev: Mdev) -> Mapping[str, object]:
        """What a guest would see of it."""

    def compat_values(self, settings: object, machine: Machine) -> Mapping[str, Value]:
        """What a host's compat properties make of the parameters of a device with these settings."""

    def tier(self, machine: str | None) -> Tier:
        """What it promises for a machine type."""

    def compatible_devices(self, type: Type) -> Sequence[tuple[str, str]]:
        """(parent id, type-id) of what a type is known to take."""

    def mdev_entries(self, mdev: Mdev) -> Mapping[str, Entry]:
        """The driver's own attributes of an mdev."""

    def type_entries(self, type: Type) -> Mapping[str, Entry]:
        """The driver's own attributes of a type."""

    def parent_entries(self, parent: Parent) -> Mapping[str, Entry]:
        """The driver's own attributes of a parent."""

    def migration_string(self, device: Mdev | Type | Parent) -> str | Awaitable[str]:
        """What the device says of itself."""

    def check(self, device: Mdev | Type | Parent, source: str) -> Verdict | Awaitable[Verdict]:
        """Whether the device takes state of `source`."""


class MdevDriver(Driver):
    """`bus/mdev/drivers/<name>`: binds mdevs when they are created. mdev_bus has no match for an mdev that was
    unbound (6.1, `mdev_match`), so `bind` answers ENODEV for ever."""

    __slots__ = ("_claiming", "vfio")

    def __init__(self, name: str, bus: Bus, module: Module, vfio: VfioCore) -> None:
        super().__init__(name, bus, module)
        self.vfio = vfio
        self._claiming = trio.Lock()

    async def probe(self, device: Device) -> None:
        """The vendor's claim and probe, then VFIO's devices; on failure all counts are as they were."""
        mdev: Mdev = device  # type: ignore[assignment]
        kind = mdev.type
        await self._claim(kind)
        try:
            pending = mdev.parent.driver.probe(mdev)
            if pending is not None:
                await pending
        except BaseException:
            self._count(kind, -1)
            raise
        self.vfio.attach(mdev, emulated=True)

    async def _claim(self, kind: Type) -> None:
        """The vendor's claim and the count; of slow claims one at a time, so that each sees what the last one took."""
        hooks = kind.parent.driver
        pending = hooks.claim(kind) if hooks.max_instances is None else None
        if pending is None:
            self._count(kind, 1)
            return
        async with self._claiming:
            await pending
            self._count(kind, 1)

    async def remove(self, device: Device) -> None:
        """The vendor's remove, then VFIO's devices. If the vendor's raises, nothing has changed."""
        mdev: Mdev = device  # type: ignore[assignment]
        pending = mdev.parent.driver.remove(mdev)
        if pending is not None:
            await pending
        self.vfio.detach(mdev, emulated=True)
        self._count(mdev.type, -1)

    async def unbind(self, device: Device) -> None:
        """A write to `unbind`. Raises KernelError ENODEV while the mdev is being removed or unbound already."""
        mdev: Mdev = device  # type: ignore[assignment]
        if mdev.removing:
            raise KernelError(errno.ENODEV)
        mdev.removing = True
        try:
            await self.release(mdev)
        finally:
            mdev.removing = False
            mdev.refresh()

    @staticmethod
    def _count(kind: Type, change: int) -> None:
        kind.bound += change
        kind.parent.used += change * kind.spec.weight
