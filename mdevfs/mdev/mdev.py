"""A created mediated device: `<parent>/<uuid>` (drivers/vfio/mdev/mdev_core.c, mdev_sysfs.c)."""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Mapping
from typing import TYPE_CHECKING, Any

import trio

from mdevfs.bus.device import Device
from mdevfs.bus.kobject import KobjectDirectory
from mdevfs.bus.subsystem import Subsystem
from mdevfs.errors import MdevfsError
from mdevfs.mdev.device_state import DeviceState
from mdevfs.mdev.models import mdev_entries
from mdevfs.migration.handshake import version_entry
from mdevfs.migration.parameters import Value
from mdevfs.migration.verdict import Journal, Record, Verdict
from mdevfs.sysfs.entries import Attribute, Directory, Entry, Link

if TYPE_CHECKING:
    from mdevfs.mdev.core import MdevCore
    from mdevfs.mdev.parent import Parent
    from mdevfs.mdev.types import Type


class Mdev(Device):
    """One mdev. `data` is the vendor driver's own; `coming` until create returns, `removing` from the write to
    `remove` on; `idle` is there while the device is in use, and set when it no longer is."""

    __slots__ = ("_device_state", "_params", "coming", "data", "idle", "last_verdict", "removing", "string", "type")

    def __init__(self, uuid: str, type: Type, bus: Subsystem, params: dict[str, Value] | None = None) -> None:
        super().__init__(uuid, type.parent.device, bus)
        self.type = type
        self.data: object = None
        self.last_verdict: Record | None = None
        self.removing = False
        self.idle: trio.Event | None = None
        self.coming = True
        self.string: str | None = None
        self._params = params
        self._device_state: DeviceState | None = None

    @property
    def uuid(self) -> str:
        """Lower case, with dashes."""
        return self.name

    @property
    def path(self) -> str:
        return f"{self.type.parent.device.path}/{self.name}"  # not kept: there may be 100,000

    @property
    def in_use(self) -> bool:
        """Whether somebody uses the device, as with an open VFIO descriptor."""
        return self.idle is not None

    @property
    def parent(self) -> Parent:
        """The parent that it was created on."""
        return self.type.parent

    @property
    def params(self) -> Mapping[str, Value]:
        """The migration parameters it was made with, where they differ from the model's."""
        return self._params if self._params is not None else self.type.params

    @property
    def values(self) -> Mapping[str, Value]:
        """Every migration parameter's value."""
        model = self.type.model
        return model.initial(self.params) if model is not None else self.params

    @property
    def device_state(self) -> DeviceState:
        """What the guest's device holds, made when somebody first asks."""
        if self._device_state is None:
            self._device_state = DeviceState(self)
        return self._device_state

    @property
    def has_device_state(self) -> bool:
        """Whether somebody has asked for it yet."""
        return self._device_state is not None

    def reset_state(self) -> None:
        """The device is as after a reset: its registers, not what an administrator set."""
        if self._device_state is not None:
            self._device_state.registers = self.parent.driver.reset(self)

    @property
    def blocked_versions(self) -> Collection[int]:
        """The versions of device state that it does not load."""
        kept = self._device_state
        return kept.blocked if kept is not None else self.parent.description.blocked

    @property
    def state(self) -> Any:
        """The object that the fields of the driver's VMState description read and write."""
        return self.device_state.registers

    def set_param(self, name: str, value: Value) -> None:
        """Changes one migration parameter; the string is made anew, and the device itself where the parameter touches
        more than the state's representation. Raises what the driver's reset does, and then nothing has changed."""
        held, self._params = self._params, {**self.params, name: value}
        param = self.type.model.parameters.get(name) if self.type.model is not None else None
        try:
            if param is not None and not param.state_only:
                self.reset_state()
        except MdevfsError:
            self._params = held
            raise
        finally:
            self.string = None

    def use(self, wanted: bool) -> None:
        """What opening and closing the device's VFIO descriptor would do."""
        if wanted and self.idle is None:
            self.idle = trio.Event()
        elif not wanted and self.idle is not None:
            self.idle.set()
            self.idle = None
            if self._device_state is not None:
                self._device_state.migration.close()

    @property
    def mdev_core(self) -> MdevCore:
        return self.parent.mdev_core

    @property
    def journal(self) -> Journal:
        return self.parent.mdev_core.journal

    def entries(self) -> dict[str, Entry]:
        core, driver = self.parent.mdev_core, self.parent.driver
        entries = super().entries()
        entries["mdev_type"] = Link(self, self.type, self.type.salt)
        if not self.removing:
            entries["remove"] = Attribute(store=lambda data: core.remove_store(self, data))
        if self.driver is not None:
            entries.update(driver.mdev_entries(self))
            entries.update(mdev_entries(self))
            if driver.migrates and "migration_version" in core.interfaces:
                entries |= version_entry(self)
        return entries

    def directory(self) -> Directory:
        return MdevDirectory(self)

    def migration_string(self) -> str | Awaitable[str]:
        return self.parent.driver.migration_string(self)

    def check_source(self, source: str) -> Verdict | Awaitable[Verdict]:
        return self.parent.driver.check(self, source)


class MdevDirectory(KobjectDirectory):
    """All mdevs of a type show the same folders, so stat(2) of one need not make them to count them."""

    __slots__ = ()

    def subdirectories(self) -> int:
        mdev = self.kobject
        assert isinstance(mdev, Mdev)
        counts, bound = mdev.type.folders, mdev.driver is not None
        if bound not in counts:
            counts[bound] = super().subdirectories()
        return counts[bound]
