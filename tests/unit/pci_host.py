"""A host with PCI functions, for the tests of the bus: a client, what was announced, drivers that take notes."""

from __future__ import annotations

import os

import pytest

from mdevfs.bus.core import Core
from mdevfs.bus.iommu import Groups
from mdevfs.bus.kernel import Kernel
from mdevfs.bus.pci import PciCore
from mdevfs.bus.pci_driver import Hook, PciDriver, PciId, SriovHook
from mdevfs.bus.pci_function import PciFunction
from mdevfs.bus.pci_resource import Bar, PciIdentity, SriovCapability
from mdevfs.bus.vfio import VfioCore
from mdevfs.errors import KernelError
from mdevfs.events.stream import Event
from tests.support import InProcess

IGD = PciIdentity(
    0x8086,
    0x591D,
    0x030000,
    4,
    0x8086,
    0x2212,
    bars=(Bar(16 << 20, bits64=True), Bar(256 << 20, prefetchable=True, bits64=True), Bar(64, io=True)),
    irq=128,
    pcie=False,
    reset_methods=("flr",),
    rom=0x20000,
)
GPU = PciIdentity(
    0x10DE,
    0x25B6,
    0x030200,
    0xA1,
    0x10DE,
    0x14A9,
    bars=(Bar(16 << 20), Bar(64 << 20, prefetchable=True, bits64=True), Bar(32 << 20, prefetchable=True, bits64=True)),
    irq=16,
)
VF_BARS = (Bar(256 << 10), Bar(1 << 30, prefetchable=True, bits64=True))
SRIOV = SriovCapability(total=16, offset=4, stride=1, vf_device=0x25B6, vf_bars=VF_BARS)
PF = "0000:41:00.0"


class PciHost:
    """One machine with two CPUs."""

    def __init__(self, kernel: str = "6.1") -> None:
        self.core = Core(Kernel.parse(kernel))
        self.groups = Groups(self.core)
        self.vfio = VfioCore(self.core, self.groups)
        self.pci = PciCore(self.core, self.groups, cpus=2)
        self.pci.load_vfio_pci(self.vfio)
        self.sys = InProcess(self.core.tree)
        self.events: list[Event] = []
        self.core.events.listeners.append(self.events.append)
        self.calls: list[str] = []

    async def driver(
        self, name: str, *ids: PciId, refuse: int = 0, probe: Hook | None = None, sriov: SriovHook | None = None
    ) -> PciDriver:
        """Loads a driver that notes its calls, and refuses every function with `refuse` if given."""

        async def on_probe(function: PciFunction) -> None:
            self.calls.append(f"{name} probe {function.name}")
            if probe is not None:
                await probe(function)
            if refuse:
                raise KernelError(refuse)

        async def on_remove(function: PciFunction) -> None:
            self.calls.append(f"{name} remove {function.name}")

        driver = PciDriver(name, self.pci.bus, ids, self.core.module(name), on_probe, on_remove, sriov)
        await self.pci.load(driver)
        return driver

    async def refused(self, path: str, data: str | bytes = "1") -> int:
        """The errno of a write that must fail."""
        with pytest.raises(OSError) as caught:
            await self.sys.write(path, data)
        assert caught.value.errno is not None
        return caught.value.errno

    def bound(self, address: str) -> str | None:
        """The driver that sysfs shows."""
        path = f"bus/pci/devices/{address}/driver"
        return os.path.basename(self.sys.readlink(path)) if self.sys.exists(path) else None

    def said(self) -> list[str]:
        """The events since the last call, as `action name`."""
        told = [f"{event.action} {os.path.basename(event.devpath)}" for event in self.events]
        self.events.clear()
        return told

    async def bytes(self, path: str) -> bytes:
        """The whole of a binary file."""
        return await (await self.sys.open(path)).read(0, 1 << 16)
