"""The channel subsystem: subchannels and their drivers (drivers/s390/cio/css.c, cio.c, vfio_ccw_drv.c)."""

from __future__ import annotations

import errno
import re
from collections.abc import Awaitable, Callable

from attrs import frozen

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


@frozen
class SubchannelIdentity:
    """What a subchannel says it is.

    `chpids` are the ids of its channel paths from the first on; `pim`, `pam` and `pom` the masks of those that are
    installed, available and operational, path 0 leftmost: `pim` is all of `chpids` unless given, `pam` is `pim`.
    `dev_busid` is the device behind it, None without a valid one; `qdio`: it is one of QDIO's.
    """

    chpids: tuple[int, ...] = ()
    pim: int | None = None
    pam: int | None = None
    pom: int = 0xFF
    dev_busid: str | None = None
    qdio: bool = False

    @property
    def masks(self) -> tuple[int, int, int]:
        """pim, pam and pom."""
        pim = self.pim if self.pim is not None else 0xFF00 >> len(self.chpids) & 0xFF
        return pim, self.pam if self.pam is not None else pim, self.pom

    def mistakes(self) -> list[str]:
        """What is wrong with it, a line each."""
        wrong = []
        if self.dev_busid is not None and not _ADDRESS.fullmatch(self.dev_busid):
            wrong.append(
                f'dev_busid "{self.dev_busid}" is not a device\'s: 0, its set 0 to 3, 4 hex digits, as in 0.0.1234'
            )
        if len(self.chpids) > _PATHS:
            wrong.append(f"chpids has {len(self.chpids)} entries: a subchannel has at most {_PATHS} channel paths")
        wrong += [f"chpids: {one:#x} is not in 0x0 to 0xff" for one in self.chpids if not 0 <= one <= 0xFF]
        named = zip(("pim", "pam", "pom"), self.masks, strict=True)
        return wrong + [f"{name} {mask:#x} is not in 0x0 to 0xff" for name, mask in named if not 0 <= mask <= 0xFF]


class Subchannel(Device):
    """One I/O subchannel: `devices/css0/0.<ssid>.<number>`."""

    __slots__ = ("identity", "override")

    def __init__(self, address: str, above: Kobject, bus: Bus, identity: SubchannelIdentity) -> None:
        super().__init__(address, above, bus)
        self.identity = identity
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
            "pimpampom": Attribute(lambda: "{:02x} {:02x} {:02x}\n".format(*self.identity.masks)),
            "dev_busid": Attribute(lambda: f"{self.identity.dev_busid or 'none'}\n"),
            "driver_override": self.override.attribute(),
        }

    def _show_chpids(self) -> str:
        pim = self.identity.masks[0]
        ids = (*self.identity.chpids, *[0] * _PATHS)[:_PATHS]
        return "".join(f"{one if pim & 0x80 >> path else 0:02x} " for path, one in enumerate(ids)) + "\n"


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
    """vfio_ccw: refuses QDIO subchannels (ENODEV) and, since 6.2, hangs a device `parent` below its own.

    Under another `name` it is whatever else makes parents of subchannels.
    """

    __slots__ = ()

    def __init__(
        self, css: CssCore, on_probe: Hook | None = None, on_remove: Hook | None = None, name: str = "vfio_ccw"
    ) -> None:
        super().__init__(name, css.bus, css.core.module(name), on_probe, on_remove)

    async def probe(self, device: Device) -> None:
        assert isinstance(device, Subchannel)
        if device.identity.qdio:
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

    async def add(self, address: str, identity: SubchannelIdentity, driver_override: str | None = None) -> Subchannel:
        """css_register_subchannel, and then the first driver that takes it: io_subchannel unless `driver_override`
        names another. Raises InputError with every mistake."""
        if wrong := self._address_mistakes(address) + identity.mistakes():
            raise InputError(wrong)
        device = Subchannel(address, self.root, self.bus, identity)
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

    def _address_mistakes(self, address: str) -> list[str]:
        if not _ADDRESS.fullmatch(address):
            return [f'address "{address}" is not a subchannel\'s: 0, its set 0 to 3, 4 hex digits, as in 0.0.0313']
        return [f'address "{address}" belongs to another subchannel'] if address in self.bus.devices else []
