"""Devices come, go and are registered; the machine reboots; what there is."""

from __future__ import annotations

import errno
import math
from typing import Annotated

from pydantic import Field, model_validator

from mdevfs.control.faults import as_dict
from mdevfs.control.running import Running
from mdevfs.control.verbs import Answer, Verb, unknown
from mdevfs.errors import KernelError, MdevfsError
from mdevfs.host.host import Host
from mdevfs.host.plan import PlannedDevice
from mdevfs.host.schema import DeviceSection
from mdevfs.mdev.parent import Parent


class Add(Verb):
    """A device of the host file that is not there appears; or a new one, described as in a host file."""

    op = "add"
    address: str | None = None
    device: DeviceSection | None = None

    @model_validator(mode="after")
    def _one_of(self) -> Add:
        if (self.address is None) == (self.device is None):
            raise ValueError("give either the address of a described device, or a new device")
        return self

    async def carry_out(self, running: Running) -> Answer:
        host = running.host
        async with running.changing():
            planned = await host.plug_new(self.device) if self.device is not None else await self._known(host)
        return {"did": f"{planned.address} is there", "address": planned.address}

    async def _known(self, host: Host) -> PlannedDevice:
        assert self.address is not None
        if self.address in host.devices.present:
            raise KernelError(errno.EEXIST, f"{self.address} is there already")
        if self.address not in host.awaited:
            raise unknown("device", self.address, host.awaited)
        planned = host.plan.at(self.address)
        await host.plug(planned)
        return planned


class Remove(Verb):
    """A device goes: it is unplugged, a virtual one with its module. With `force`, mdevs in use are let go first."""

    op = "remove"
    address: str
    force: bool = False

    async def carry_out(self, running: Running) -> Answer:
        host = running.host
        if self.address in host.awaited:
            raise KernelError(errno.ENODEV, f"{self.address} is not there")
        if self.address not in host.devices.present:
            raise unknown("device", self.address, host.devices.present)
        async with running.changing():
            if self.force:
                for parent in host.mdev.parents.values():
                    above = getattr(parent.device, "physfn", None) or parent.device
                    if self.address in (parent.name, above.name):
                        let_go(parent)
            await host.unplug(self.address)
        return {"did": f"{self.address} is gone"}


class Register(Verb):
    """A device that was unregistered is a parent again (MDEV_STATE=registered)."""

    op = "register"
    parent: str

    async def carry_out(self, running: Running) -> Answer:
        devices = running.host.devices
        if self.parent not in devices.offers:
            raise unknown("device that could be a parent", self.parent, devices.offers)
        async with running.changing():
            devices.register(self.parent)
        return {"did": f"{self.parent} is registered"}


class Unregister(Verb):
    """A parent and its mdevs go, the device stays (MDEV_STATE=unregistered)."""

    op = "unregister"
    parent: str
    force: bool = False

    async def carry_out(self, running: Running) -> Answer:
        host = running.host
        parent = host.mdev.parents.get(self.parent)
        if parent is None:
            raise unknown("parent", self.parent, host.mdev.parents)
        async with running.changing():
            if self.force:
                let_go(parent)
            await host.mdev.unregister_parent(parent)
        return {"did": f"{self.parent} is unregistered"}


def let_go(parent: Parent) -> None:
    """As if whoever uses its mdevs was killed."""
    for mdev in parent.mdevs:
        mdev.use(False)


class Reboot(Verb):
    """The machine's power goes and comes back; the devices return when they are due, or all of them `late` seconds
    after."""

    op = "reboot"
    late: Annotated[float, Field(ge=0.0)] | None = None

    async def carry_out(self, running: Running) -> Answer:
        host = running.host
        async with running.changing():
            wrong = await host.reboot(self.late)
        running.expect()
        if wrong:
            raise MdevfsError("\n".join(["the machine has rebooted, but", *wrong]))
        return {"did": "the machine has rebooted", **_devices(host)}


class Status(Verb):
    """What there is: devices, parents, types, mdevs in use, faults."""

    op = "status"

    async def carry_out(self, running: Running) -> Answer:
        host = running.host
        parents = [
            {"name": parent.name, "driver": parent.driver.name, "mdevs": parent.count, "types": list(parent.types)}
            for parent in host.mdev.parents.values()
        ]
        in_use = [mdev.name for parent in host.mdev.parents.values() for mdev in parent.mdevs if mdev.idle is not None]
        faults = [as_dict(fault) for fault in host.tree.faults]
        return {"host": host.name, **_devices(host), "parents": parents, "in_use": in_use, "faults": faults}


def _devices(host: Host) -> Answer:
    """`due`: how many seconds after the boot; None: not by itself."""
    return {
        "devices": [
            {
                "address": one.address,
                "driver": one.driver.name,
                "present": one.address in host.devices.present,
                "due": due if (due := host.awaited.get(one.address, 0.0)) < math.inf else None,
            }
            for one in host.plan.devices
        ]
    }
