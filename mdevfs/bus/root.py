"""Devices without a bus and a class: what others hang below (drivers/base/core.c, root_device_register)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mdevfs.bus.kobject import Kobject
from mdevfs.bus.power import PowerSupport
from mdevfs.bus.subsystem import Module, synthesize
from mdevfs.events.stream import parse_synthetic
from mdevfs.sysfs.entries import Attribute, Entry, Link

if TYPE_CHECKING:
    from mdevfs.bus.core import Core


class RootDevice(Kobject):
    """A device without a `subsystem` link; the kernel filters its events away.

    `speaks_as` is the bus that such a device was given after it was registered: its events pass, its link is missing.
    """

    __slots__ = ("core", "module", "power", "speaks_as")

    def __init__(
        self,
        name: str,
        core: Core,
        above: Kobject | None = None,
        module: Module | None = None,
        speaks_as: str = "",
        power: PowerSupport | None = None,
    ) -> None:
        super().__init__(name, above or core.devices, next(core.salts))
        self.core = core
        self.module = module
        self.speaks_as = speaks_as
        self.power = power or PowerSupport()

    def entries(self) -> dict[str, Entry]:
        entries: dict[str, Entry] = {
            "uevent": Attribute(lambda: "", self._store_uevent),
            "power": self.core.power.folder(self, lambda: self.power),
        }
        if self.module is not None:
            entries["module"] = Link(self, self.module)
        return entries

    def _store_uevent(self, data: bytes) -> None:
        if self.speaks_as:
            synthesize(self.core, self.path, self.speaks_as, data)
        else:
            parse_synthetic(data)

    def send(self, action: str, keys: dict[str, str]) -> None:
        """Announces something about this device, if it may speak."""
        if self.speaks_as:
            self.core.events.send(action, f"/{self.path}", self.speaks_as, keys)

    def register(self) -> None:
        """The directory appears."""
        assert self.above is not None
        self.above.adopt(self)
        self.core.tree.changed(self.above.path, self.name)

    def unregister(self) -> None:
        """The directory goes."""
        assert self.above is not None
        self.above.abandon(self)
        self.core.power.forget(self.path)
        self.core.tree.changed(self.above.path, self.name)
