"""PCI drivers: ids, bind, new_id and remove_id, vfio-pci (drivers/pci/pci-driver.c, drivers/vfio/pci)."""

from __future__ import annotations

import errno
import re
from collections.abc import Awaitable, Callable, Iterable

from attrs import frozen

from mdevfs.bus.device import Device
from mdevfs.bus.pci_function import PciFunction
from mdevfs.bus.pci_resource import PciIdentity
from mdevfs.bus.subsystem import Bus, Driver, Module
from mdevfs.bus.vfio import VfioCore
from mdevfs.errors import KernelError, MdevfsError
from mdevfs.sysfs.entries import Attribute, Entry
from mdevfs.sysfs.parse import text_of

ANY = 0xFFFFFFFF
_HEX = re.compile(rb"\s*(?:0[xX](?=[0-9a-fA-F]))?([0-9a-fA-F]+)")


@frozen
class PciId:
    """One line of an id table (struct pci_device_id); `class_mask` 0 takes any class."""

    vendor: int
    device: int = ANY
    subvendor: int = ANY
    subdevice: int = ANY
    class_code: int = 0
    class_mask: int = 0
    data: int = 0

    def matches(self, one: PciIdentity) -> bool:
        """pci_match_one_device."""
        pairs = (
            (self.vendor, one.vendor),
            (self.device, one.device),
            (self.subvendor, one.subsystem_vendor),
            (self.subdevice, one.subsystem_device),
        )
        same = all(mine in (ANY, its) for mine, its in pairs)
        return same and not (self.class_code ^ one.class_code) & self.class_mask


Hook = Callable[[PciFunction], Awaitable[None]]
SriovHook = Callable[[PciFunction, int], int | Awaitable[int]]


class PciDriver(Driver):
    """A driver on the bus pci.

    `on_probe` takes a function on or raises MdevfsError to refuse it, `on_remove` lets it go; both run under the
    function's lock. `sriov_configure` is asked how many of so many VFs it allows before they come, and with 0 before
    they go; without it the driver knows nothing of SR-IOV. `enables`: the probe enables the function.
    """

    __slots__ = ("dynamic", "enables", "ids", "on_probe", "on_remove", "sriov_configure")

    def __init__(
        self,
        name: str,
        bus: Bus,
        ids: Iterable[PciId] = (),
        module: Module | None = None,
        on_probe: Hook | None = None,
        on_remove: Hook | None = None,
        sriov_configure: SriovHook | None = None,
        enables: bool = True,
    ) -> None:
        super().__init__(name, bus, module)
        self.ids = tuple(ids)
        self.dynamic: list[PciId] = []
        self.on_probe = on_probe
        self.on_remove = on_remove
        self.sriov_configure = sriov_configure
        self.enables = enables

    # -- matching

    def matches(self, device: Device) -> bool:
        """pci_match_device: driver_override where it is set, else the dynamic ids, then the table."""
        if not isinstance(device, PciFunction):
            return False
        wanted = device.override.name
        return wanted == self.name if wanted is not None else self.knows(device.identity)

    def knows(self, identity: PciIdentity) -> bool:
        """Whether an id, dynamic or of the table, takes this identity."""
        return any(one.matches(identity) for one in (*self.dynamic, *self.ids))

    async def attach(self) -> None:
        """driver_attach: binds every unbound function that matches and whose probe succeeds."""
        for device in tuple(self.bus.devices.values()):
            if isinstance(device, PciFunction) and device.driver is None and self.matches(device):
                try:
                    await self.bind(device)
                except MdevfsError:
                    continue

    # -- binding

    async def probe(self, device: Device) -> None:
        assert isinstance(device, PciFunction)
        if self.on_probe is not None:
            await self.on_probe(device)

    async def remove(self, device: Device) -> None:
        assert isinstance(device, PciFunction)
        if self.on_remove is not None:
            await self.on_remove(device)

    async def bind(self, device: Device) -> None:
        """device_driver_attach. Raises KernelError ENODEV for a function that goes, or a VF that its physical
        function's sriov_drivers_autoprobe keeps unbound; EBUSY if it is bound; what the probe raises."""
        assert isinstance(device, PciFunction)
        async with device.lock:
            if device.gone or device.removing:
                raise KernelError(errno.ENODEV)
            if device.driver is not None:
                raise KernelError(errno.EBUSY)
            physical = device.physfn.sriov if device.physfn is not None else None
            # pci_device_can_probe
            if physical is not None and not physical.autoprobe and device.override.name is None:
                raise KernelError(errno.ENODEV)
            device.enabled += self.enables
            try:
                await super().bind(device)
            except BaseException:
                device.enabled -= self.enables
                raise
            device.powered = True

    async def unbind(self, device: Device) -> None:
        """Lets a function go that stays. Raises KernelError ENODEV if it has gone to another driver meanwhile."""
        assert isinstance(device, PciFunction)
        async with device.lock:
            if device.driver is not self:
                raise KernelError(errno.ENODEV)
            await super().unbind(device)
            device.enabled = max(0, device.enabled - self.enables)
            if device.sriov is not None:
                device.sriov.driver_max = device.sriov.capability.total  # pci_iov_remove

    # -- new_id, remove_id

    def entries(self) -> dict[str, Entry]:
        return super().entries() | {
            "new_id": Attribute(store=self._new_id),
            "remove_id": Attribute(store=self._remove_id),
        }

    async def _new_id(self, data: bytes) -> None:
        fields = _numbers(data, 7)
        if len(fields) < 2:
            raise KernelError(errno.EINVAL)
        asked = PciId(*fields)
        if len(fields) < 7 and self.knows(_as_identity(asked)):
            raise KernelError(errno.EEXIST)
        if asked.data not in ({one.data for one in self.ids} or {0}):
            raise KernelError(errno.EINVAL)
        self.dynamic.append(asked)
        await self.attach()

    def _remove_id(self, data: bytes) -> None:
        fields = _numbers(data, 6)
        if len(fields) < 2:
            raise KernelError(errno.EINVAL)
        asked = PciId(*fields)
        for one in self.dynamic:
            same = (one.vendor, one.device) == (asked.vendor, asked.device)
            subsystem = asked.subvendor in (ANY, one.subvendor) and asked.subdevice in (ANY, one.subdevice)
            if same and subsystem and not (one.class_code ^ asked.class_code) & asked.class_mask:
                self.dynamic.remove(one)
                return
        raise KernelError(errno.ENODEV)


def _numbers(data: bytes, most: int) -> list[int]:
    """What sscanf reads with `most` times %x: it stops at the first thing that is not a number."""
    text, found = text_of(data), []
    for at in range(most):
        match = _HEX.match(text)
        if match is None:
            break
        found.append(int(match[1], 16) & (ANY if at < 6 else (1 << 64) - 1))
        text = text[match.end() :]
    return found


def _as_identity(one: PciId) -> PciIdentity:
    """The device that new_id_store makes up to see whether its ids are known: 16 bits of each, the class whole."""
    return PciIdentity(
        one.vendor & 0xFFFF,
        one.device & 0xFFFF,
        one.class_code,
        subsystem_vendor=one.subvendor & 0xFFFF,
        subsystem_device=one.subdevice & 0xFFFF,
    )


class VfioPci(PciDriver):
    """vfio-pci: has no ids of its own, takes what driver_override or new_id gives it."""

    __slots__ = ("vfio",)
    holds_awake = False

    def __init__(self, bus: Bus, vfio: VfioCore) -> None:
        super().__init__("vfio-pci", bus, module=bus.core.module("vfio-pci"), enables=False)
        self.vfio = vfio

    async def probe(self, device: Device) -> None:
        """Raises KernelError EINVAL for a bridge, EBUSY for a physical function with VFs."""
        assert isinstance(device, PciFunction)
        if device.is_bridge:
            raise KernelError(errno.EINVAL)
        if device.vfs:
            raise KernelError(errno.EBUSY)
        self.vfio.attach(device)
        device.core.power.keep(device, "control", "auto")  # pm_runtime_allow

    async def remove(self, device: Device) -> None:
        self.vfio.detach(device)
        device.core.power.keep(device, "control", "on")  # pm_runtime_forbid


class PortDriver(PciDriver):
    """pcieport, which is built in: takes every bridge (drivers/pci/pcie/portdrv_pci.c)."""

    __slots__ = ()

    def __init__(self, bus: Bus) -> None:
        super().__init__("pcieport", bus, [PciId(ANY, class_code=0x060400, class_mask=ANY)])
