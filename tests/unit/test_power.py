"""power/: what was written to a device stays for the device's life, and no longer."""

from __future__ import annotations

import errno

import pytest

from mdevfs.host.host import Host
from tests.support import InProcess, check_tree, host_of
from tests.unit.test_vfio import Machine

UUID = "a1b2c3d4-0001-4abc-8def-0123456789ab"
PARENT = "devices/virtual/mtty/mtty"
MDEV = f"{PARENT}/{UUID}"
CREATE = f"{PARENT}/mdev_supported_types/mtty-1/create"
GPU = "devices/pci0000:00/0000:00:02.0"
ALL = [PARENT, MDEV, f"{MDEV}/vfio-dev/vfio0", "devices/virtual/vfio/0", "devices/virtual/misc/vfio", GPU]
TWO = '[[device]]\ndriver = "mtty"\n[[device]]\ndriver = "i915"\naddress = "0000:00:02.0"\niommu_group = 7\n'


async def machine() -> tuple[Host, InProcess]:
    host = await host_of(TWO)
    sys = InProcess(host.tree)
    await sys.write(CREATE, UUID)
    return host, sys


@pytest.mark.parametrize("device", ALL)
async def test_what_is_written_stays_when_nobody_looks(device: str) -> None:
    host, sys = await machine()
    for name, words in (("control", ("on", "auto")), ("async", ("enabled", "disabled"))):
        for word in words:
            await sys.write(f"{device}/power/{name}", f"{word}\n")
            host.tree.trim()  # as when the kernel forgets the directory
            assert await sys.read(f"{device}/power/{name}") == f"{word}\n"
        with pytest.raises(OSError) as caught:
            await sys.write(f"{device}/power/{name}", "1")
        assert caught.value.errno == errno.EINVAL
        assert await sys.read(f"{device}/power/{name}") == f"{words[1]}\n"
    others = [other for other in ALL if other != device]
    for other in others:
        untouched = ("on\n", "enabled\n") if other == GPU else ("auto\n", "disabled\n")
        assert (await sys.read(f"{other}/power/control"), await sys.read(f"{other}/power/async")) == untouched
    check_tree(host.tree)


async def test_another_life_begins_anew() -> None:
    host, sys = await machine()
    mine = [MDEV, f"{MDEV}/vfio-dev/vfio0", "devices/virtual/vfio/0"]
    for device in (PARENT, *mine):
        await sys.write(f"{device}/power/control", "on")
    await sys.write(f"{MDEV}/driver/unbind", UUID)
    assert await sys.read(f"{MDEV}/power/control") == "on\n"
    await sys.write(f"{MDEV}/remove", "1")
    await sys.write(CREATE, UUID)
    assert [await sys.read(f"{device}/power/control") for device in mine] == ["auto\n"] * 3
    assert await sys.read(f"{PARENT}/power/control") == "on\n"
    check_tree(host.tree)


async def test_vfios_devices_begin_anew_with_the_next_driver() -> None:
    vfio = Machine()
    device = vfio.device("one")
    vfio.groups.join(vfio.groups.new(), device)
    mine = ("class/acme/one/vfio-dev/vfio0", "class/vfio/0")
    for _ in range(2):
        vfio.vfio.attach(device)
        for one in mine:
            assert await vfio.sys.read(f"{one}/power/control") == "auto\n"
            await vfio.sys.write(f"{one}/power/control", "on")
        vfio.vfio.detach(device)


async def test_control_shows_in_runtime_enabled() -> None:
    _, sys = await machine()
    for device, forbidden, allowed in ((GPU, "forbidden", "enabled"), (MDEV, "disabled & forbidden", "disabled")):
        for word, shown in (("auto", allowed), ("on", forbidden)):
            await sys.write(f"{device}/power/control", word)
            assert await sys.read(f"{device}/power/runtime_enabled") == f"{shown}\n"
