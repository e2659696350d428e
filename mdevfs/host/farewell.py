"""The end of a boot, as those hear it who outlive it.

No kernel announces that its machine's power goes. But an emulated host's listeners (udevd, libvirtd, a device plugin
under test) run on, so each device says `remove`, the youngest first, and nobody keeps what is not there.
"""

from __future__ import annotations

from collections.abc import Iterator

from mdevfs.bus.core import Core
from mdevfs.bus.device import Device
from mdevfs.bus.vfio import VfioCore
from mdevfs.mdev.core import MdevCore


def say_goodbye(core: Core, vfio: VfioCore, mdev_core: MdevCore) -> None:
    """Announces that every device has gone, mdevs first, and wakes who waits for one that is in use.

    No vendor driver is called: it has no power either.
    """
    for parent in list(mdev_core.parents.values()):
        parent.gone = True
        for mdev in list(parent.mdevs):
            mdev.use(False)
            if mdev.has_device_state:
                mdev.device_state.migration.stop()
            vfio.detach(mdev, emulated=True)
            _leave(mdev)
        mdev_core.parents_class.leave(parent.device)
        parent.device.send("change", {"MDEV_STATE": "unregistered"})
    for device in sorted(_devices(core), key=lambda one: one.salt, reverse=True):
        vfio.detach(device)
        _leave(device)


def _leave(device: Device) -> None:
    if device.driver is not None:
        device.driver.unlink(device)
        device.send("unbind")
    device.unregister()


def _devices(core: Core) -> Iterator[Device]:
    for subsystem in (*core.buses.values(), *core.classes.values()):
        for device in subsystem.devices.values():
            if isinstance(device, Device) and device.subsystem is subsystem:
                yield device
