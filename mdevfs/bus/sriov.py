"""SR-IOV: virtual functions that come and go with `sriov_numvfs` (drivers/pci/iov.c)."""

from __future__ import annotations

import errno

from attrs import evolve

from mdevfs.bus.pci_attributes import number
from mdevfs.bus.pci_driver import PciDriver
from mdevfs.bus.pci_function import PciFunction, Slot
from mdevfs.bus.pci_resource import BARS, VF_BARS, SriovCapability
from mdevfs.errors import KernelError
from mdevfs.sysfs.entries import Attribute, Entry
from mdevfs.sysfs.parse import kstrtobool, kstrtoull


class Sriov:
    """What a physical function has of it. `count` VFs are enabled; `driver_max` is what its driver lowered the total
    to; `autoprobe` whether VFs are offered to drivers; `links` the VFs by their `virtfnN`."""

    def __init__(self, function: PciFunction, capability: SriovCapability) -> None:
        self.function = function
        self.capability = capability
        self.driver_max = capability.total
        self.autoprobe = True
        self.count = 0
        self.links: dict[str, PciFunction] = {}

    # -- attributes

    def entries(self) -> dict[str, Entry]:
        """The sriov_* files of the physical function."""
        capability = self.capability
        return {
            "sriov_totalvfs": Attribute(lambda: f"{self.driver_max}\n"),
            "sriov_numvfs": Attribute(self._show_numvfs, self._store_numvfs),
            "sriov_offset": Attribute(lambda: f"{capability.offset}\n"),
            "sriov_stride": Attribute(lambda: f"{capability.stride}\n"),
            "sriov_vf_device": Attribute(lambda: f"{capability.vf_device:x}\n"),
            "sriov_vf_total_msix": Attribute(lambda: "0\n"),
            "sriov_drivers_autoprobe": Attribute(lambda: f"{int(self.autoprobe)}\n", self._store_autoprobe),
        }

    def _store_autoprobe(self, data: bytes) -> None:
        self.autoprobe = kstrtobool(data)

    async def _show_numvfs(self) -> str:
        async with self.function.lock:
            return f"{self.count}\n"

    async def _store_numvfs(self, data: bytes) -> None:
        try:
            wanted = kstrtoull(data, 0xFFFF)
        except KernelError:
            raise KernelError(errno.EINVAL) from None
        await self.set_count(wanted)

    # -- coming and going

    async def set_count(self, wanted: int) -> None:
        """A write to sriov_numvfs.

        Raises KernelError ERANGE above the total, ENOENT without a driver that knows SR-IOV, EBUSY when other VFs are
        enabled, and what the driver raises.
        """
        if not 0 <= wanted <= self.driver_max:
            raise KernelError(errno.ERANGE)
        async with self.function.lock:
            if self.function.removing or self.function.gone:
                raise KernelError(errno.ENODEV)
            if wanted == self.count:
                return
            driver = self.function.driver
            configure = driver.sriov_configure if isinstance(driver, PciDriver) else None
            if configure is None:
                raise KernelError(errno.ENOENT)
            if wanted and self.count:
                raise KernelError(errno.EBUSY)
            answer = configure(self.function, wanted)
            allowed = answer if isinstance(answer, int) else await answer
            if wanted:
                await self._enable(min(allowed, wanted))
            else:
                await self.disable()

    async def _enable(self, count: int) -> None:
        """sriov_enable: each VF is added, linked, announced and offered to the drivers; at last the function says
        `change`."""
        for index in range(count):
            vf = self._add(index)
            self.count += 1
            await vf.pci.bus.attach(vf)
        if count:
            self.function.send("change")

    def _add(self, index: int) -> PciFunction:
        pf = self.function
        vf = pf.pci.add_vf(pf, self._slot(index))
        name = f"virtfn{index}"
        self.links[name] = vf
        pf.core.tree.changed(pf.path, name, links=True)
        vf.send("change")
        return vf

    def _slot(self, index: int) -> Slot:
        pf, capability = self.function, self.capability
        of_pf = pf.identity
        subsystem = capability.vf_subsystem_device
        identity = evolve(
            of_pf,
            device=capability.vf_device,
            class_code=of_pf.class_code if capability.vf_class is None else capability.vf_class,
            subsystem_device=of_pf.subsystem_device if subsystem is None else subsystem,
            bars=(),
            rom=0,
            reset_methods=tuple(one for one in of_pf.reset_methods if one == "flr"),
        )
        resources = {
            bar: pf.resources[line].part(index, capability.total)
            for bar, line in zip(BARS, VF_BARS, strict=True)
            if line in pf.resources
        }
        address = pf.address.moved(capability.offset + capability.stride * index)
        return Slot(address, identity, resources, pf.numa_node)

    async def disable(self) -> None:
        """sriov_disable: VF by VF its driver lets go, its links go, it goes. The function's lock is held.

        Raises what a VF's driver raises; the VFs from that one on stay.
        """
        for name, vf in tuple(self.links.items()):
            async with vf.lock:
                vf.removing = True
            if isinstance(vf.driver, PciDriver):
                try:
                    await vf.driver.unbind(vf)
                except BaseException:
                    vf.removing = False
                    raise
            del self.links[name]
            self.function.core.tree.changed(self.function.path, name, links=True)
            vf.pci.drop(vf)
        self.count = 0


def vf_entries() -> dict[str, Entry]:
    """What a VF has of it: the number of MSI-X vectors, which no driver here can set."""

    def store(data: bytes) -> None:
        number(data)
        raise KernelError(errno.EOPNOTSUPP)

    return {"sriov_vf_msix_count": Attribute(store=store)}
