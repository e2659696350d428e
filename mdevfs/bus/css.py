"""The channel subsystem: subchannels and their drivers (drivers/s390/cio/css.c, cio.c, vfio_ccw_drv.c)."""

from __future__ import annotations

import errno
import re
from collections.abc import Awaitable, Callable, Sequence

from mdevfs.bus.core import Core
from mdevfs.bus.device import Device
from mdevfs.bus.kobject import Kobject
from mdevfs.bus.override import DriverOverride
from mdevfs.bus.root import RootDevice
from mdevfs.bus.subsystem import Bus, Driver, Module
from mdevfs.errors import InputError, KernelError
from mdevfs.sysfs.entries import Attribute, Entry

SUBCHANNEL_TYPE_IO = 0
_ADDRESS = re.compile(r"0\.[0-3]\.[0-9a-f]{4}")
_PATHS = 8


class Subchannel(Device):
    """One I/O subchannel: `devices/css0/0.<ssid>.<number>`.

    `chpids` are the ids of its channel paths from the first on; `pim`, `pam` and `pom` the masks of those that are
    installed, available and operational, path 0 leftmost; `dev_busid` the device behind it, None without a valid one.
    """

    __slots__ = ("chpids", "dev_busid", "override", "pam", "pim", "pom", "qdio")

    def __init__(
        self,
        address: str,
        above: Kobject,
        bus: Bus,
        chpids: Sequence[int],
        masks: tuple[int, int, int],
        dev_busid: str | None,
        qdio: bool,
    ) -> None:
        super().__init__(address, above, bus)
        self.chpids = tuple(chpids)
        self.pim, self.pam, self.pom = masks
        self.dev_busid = dev_busid
        self.qdio = qdio
        self.override = DriverOverride()

    @property
    def modalias(self) -> str:
        return f"css:t{SUBCHANNEL_TYPE_IO:X}"

    def uevent_keys(self) -> dict[str, str]:
        return super().uevent_keys() | {"ST": f"{SUBCHANNEL_TYPE_IO:X}", "MODALIAS": self.modalias}

    def entries(self) -> dict[str, Entry]:
        return super().entries() | {
            "type": Attribute(lambda: f"{SUBCHANNEL_TYPE_IO:x}\n"),
            "modalias": Attribute(lambda: f"{self.modalias}\n"),
            "chpids": Attribute(self._show_chpids),
            "pimpampom": Attribute(lambda: f"{self.pim:02x} {self.pam:02x} {self.pom:02x}\n"),
            "dev_busid": Attribute(lambda: f"{self.dev_busid or 'none'}\n"),
            "driver_override": self.override.attribute(),
        }

    def _show_chpids(self) -> str:
        ids = (*self.chpids, *[0] * _PATHS)[:_PATHS]
        return "".join(f"{one if self.pim & 0x80 >> path else 0:02x} " for path, one in enumerate(ids)) + "\n"


Hook = Callable[[Subchannel], Awaitable[None]]


class CssDriver(Driver):
    """A driver of I/O subchannels.

    `on_probe` takes a subchannel on or raises MdevfsError to refuse it, `on_remove` lets it go. With `override_only`
    the driver matches only where driver_override names it; without, any subchannel of its type, as the kernel's do.
    """

    __slots__ = ("on_probe", "on_remove", "override_only")

    def __init__(
        self,
        name: str,
        bus: Bus,
        module: Module | None = None,
        on_probe: Hook | None = None,
        on_remove: Hook | None = None,
        override_only: bool = False,
    ) -> None:
        super().__init__(name, bus, module)
        self.on_probe = on_probe
        self.on_remove = on_remove
        self.override_only = override_only

    def matches(self, device: Device) -> bool:
        """css_bus_match: driver_override where it is set, and the subchannel's type."""
        if not isinstance(device, Subchannel):
            return False
        wanted = device.override.name
        return wanted == self.name if wanted is not None else not self.override_only

    async def probe(self, device: Device) -> None:
        assert isinstance(device, Subchannel)
        if self.on_probe is not None:
            await self.on_probe(device)

    async def remove(self, device: Device) -> None:
        assert isinstance(device, Subchannel)
        if self.on_remove is not None:
            await self.on_remove(device)


class VfioCcw(CssDriver):
    """vfio_ccw: refuses QDIO subchannels (ENODEV) and, since 6.2, hangs a device `parent` below its own."""

    __slots__ = ()

    def __init__(self, css: CssCore, on_probe: Hook | None = None, on_remove: Hook | None = None) -> None:
        super().__init__("vfio_ccw", css.bus, css.core.module("vfio_ccw"), on_probe, on_remove)

    async def probe(self, device: Device) -> None:
        assert isinstance(device, Subchannel)
        if device.qdio:
            raise KernelError(errno.ENODEV)
        parent = RootDevice("parent", device.core, device) if device.core.kernel.since("6.2") else None
        if parent is not None:
            parent.register()
        try:
            await super().probe(device)
        except BaseException:
            if parent is not None:
                parent.unregister()
            raise

    async def remove(self, device: Device) -> None:
        await super().remove(device)
        parent = device.children.get("parent")
        if isinstance(parent, RootDevice):
            parent.unregister()


class CssCore:
    """The channel subsystem of one host: `devices/css0`, the bus `css` and its built-in driver io_subchannel."""

    def __init__(self, core: Core) -> None:
        self.core = core
        self.bus = core.bus("css")
        self.root = RootDevice("css0", core)
        self.root.register()
        self.bus.add_driver(CssDriver("io_subchannel", self.bus))

    async def add(
        self,
        address: str,
        chpids: Sequence[int] = (),
        pim: int | None = None,
        pam: int | None = None,
        pom: int = 0xFF,
        dev_busid: str | None = None,
        qdio: bool = False,
        driver_override: str | None = None,
    ) -> Subchannel:
        """css_register_subchannel, and then the first driver that takes it: io_subchannel unless `driver_override`
        names another.

        `pim` is all of `chpids` unless given, `pam` is `pim`. Raises InputError with every mistake.
        """
        if pim is None:
            pim = 0xFF00 >> len(chpids) & 0xFF
        masks = (pim, pim if pam is None else pam, pom)
        self._check(address, chpids, masks, dev_busid)
        device = Subchannel(address, self.root, self.bus, chpids, masks, dev_busid, qdio)
        device.override.name = driver_override
        device.register()
        if self.bus.autoprobe:
            await self.bus.attach(device)
        return device

    async def remove(self, device: Subchannel) -> None:
        """css_sch_device_unregister: the driver lets go, then the device goes."""
        if device.driver is not None:
            await device.driver.release(device)
        device.unregister()

    def _check(self, address: str, chpids: Sequence[int], masks: tuple[int, ...], dev_busid: str | None) -> None:
        wrong = []
        if not _ADDRESS.fullmatch(address):
            wrong.append(f'address "{address}" is not a subchannel\'s: 0, its set 0 to 3, 4 hex digits, as in 0.0.0313')
        elif address in self.bus.devices:
            wrong.append(f'address "{address}" belongs to another subchannel')
        if dev_busid is not None and not _ADDRESS.fullmatch(dev_busid):
            wrong.append(f'dev_busid "{dev_busid}" is not a device\'s: 0, its set 0 to 3, 4 hex digits, as in 0.0.1234')
        if len(chpids) > _PATHS:
            wrong.append(f"chpids has {len(chpids)} entries: a subchannel has at most {_PATHS} channel paths")
        wrong += [f"chpids: {one:#x} is not in 0x0 to 0xff" for one in chpids if not 0 <= one <= 0xFF]
        named = zip(("pim", "pam", "pom"), masks, strict=True)
        wrong += [f"{name} {mask:#x} is not in 0x0 to 0xff" for name, mask in named if not 0 <= mask <= 0xFF]
        if wrong:
            raise InputError(wrong)
