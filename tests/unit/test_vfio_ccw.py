"""The vendor driver vfio_ccw on a whole host (sources: css.c, vfio_ccw_drv.c and vfio_ccw_ops.c of 6.1 and 6.12)."""

from __future__ import annotations

import errno
import os

import pytest

from mdevfs.errors import InputError
from mdevfs.events.stream import Event
from mdevfs.host.host import Host, load
from tests.support import InProcess, check_tree, host_of

ADDRESS, OTHER = "0.0.0313", "0.0.0314"
PARENT = f"devices/css0/{ADDRESS}"
TYPE = f"{PARENT}/mdev_supported_types/vfio_ccw-io"
DRIVER = "bus/css/drivers/vfio_ccw"
FIRST, SECOND = "11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222"


class Machine:
    """A host with subchannels, a shell on it, and what it announced since."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.sys = InProcess(host.tree)
        self.events: list[Event] = []
        host.core.events.listeners.append(self.events.append)

    async def write(self, path: str, data: str) -> None:
        await self.sys.write(path, data)
        check_tree(self.host.tree)

    async def refused(self, path: str, data: str) -> int | None:
        with pytest.raises(OSError) as caught:
            await self.sys.write(path, data)
        check_tree(self.host.tree)
        return caught.value.errno

    def driver(self) -> str:
        path = f"{PARENT}/driver"
        return os.path.basename(self.sys.readlink(path)) if self.sys.exists(path) else ""


async def machine(settings: str | None = None, kernel: str = "6.1") -> Machine:
    """The shipped host, or one subchannel with these settings."""
    if settings is None:
        return Machine(await load("vfio-ccw"))
    text = f'[host]\nkernel = "{kernel}"\n[[device]]\ndriver = "vfio_ccw"\nsettings = {{ {settings} }}\n'
    return Machine(await host_of(text))


async def test_the_parent() -> None:
    one = await machine()
    assert one.sys.list("class/mdev_bus") == [ADDRESS, OTHER]
    assert one.sys.readlink(f"class/mdev_bus/{ADDRESS}") == f"../../{PARENT}"
    assert one.driver() == "vfio_ccw"
    assert one.sys.readlink(f"{DRIVER}/module") == "../../../../module/vfio_ccw"
    assert one.sys.list("bus/css/drivers") == ["io_subchannel", "vfio_ccw"]
    for name, text in (
        ("driver_override", "vfio_ccw\n"),
        ("dev_busid", "0.0.1234\n"),
        ("chpids", "30 31 32 33 00 00 00 00 \n"),
        ("pimpampom", "f0 f0 ff\n"),
        ("type", "0\n"),
        ("modalias", "css:t0\n"),
        ("uevent", "DRIVER=vfio_ccw\nST=0\nMODALIAS=css:t0\n"),
    ):
        assert await one.sys.read(f"{PARENT}/{name}") == text
    check_tree(one.host.tree)


@pytest.mark.parametrize("kernel", ["6.1", "6.12"])
async def test_the_type(kernel: str) -> None:
    one = await machine("", kernel)
    assert one.sys.list(f"{PARENT}/mdev_supported_types") == ["vfio_ccw-io"]
    files = {"available_instances", "create", "device_api", "devices", "name"}
    assert {name for name in one.sys.list(TYPE) if name != "mdevfs"} == files  # no description, no migration_version
    assert await one.sys.read(f"{TYPE}/name") == "I/O subchannel (Non-QDIO)\n"
    assert await one.sys.read(f"{TYPE}/device_api") == "vfio-ccw\n"
    assert one.sys.exists(f"{PARENT}/parent") is (kernel == "6.12")
    check_tree(one.host.tree)


async def test_one_mdev_without_attributes_of_its_own() -> None:
    one = await machine()
    assert await one.sys.read(f"{TYPE}/available_instances") == "1\n"
    await one.write(f"{TYPE}/create", FIRST)
    assert await one.sys.read(f"{TYPE}/available_instances") == "0\n"
    assert await one.refused(f"{TYPE}/create", SECOND) == errno.EUSERS
    names = {"driver", "iommu_group", "mdev_type", "power", "remove", "subsystem", "uevent", "vfio-dev"}
    assert {name for name in one.sys.list(f"{PARENT}/{FIRST}") if name != "mdevfs"} == names
    assert os.path.basename(one.sys.readlink(f"{PARENT}/{FIRST}/driver")) == "vfio_ccw_mdev"
    # Each subchannel counts for itself.
    other = TYPE.replace(ADDRESS, OTHER)
    assert await one.sys.read(f"{other}/available_instances") == "1\n"
    await one.write(f"{other}/create", SECOND)
    await one.write(f"{PARENT}/{FIRST}/remove", "1")
    assert await one.sys.read(f"{TYPE}/available_instances") == "1\n"


@pytest.mark.parametrize("kernel", ["6.1", "6.12"])
async def test_unbind_gives_the_parent_up_and_bind_brings_it_back(kernel: str) -> None:
    one = await machine("", kernel)
    await one.write(f"{TYPE}/create", FIRST)
    await one.write(f"{DRIVER}/unbind", ADDRESS)
    assert one.driver() == ""
    assert not one.sys.exists(f"{PARENT}/mdev_supported_types")
    assert not one.sys.exists(f"{PARENT}/parent")
    assert (one.sys.list("class/mdev_bus"), one.sys.list("bus/mdev/devices")) == ([], [])
    assert await one.refused(f"{DRIVER}/unbind", ADDRESS) == errno.ENODEV
    await one.write(f"{DRIVER}/bind", ADDRESS)
    assert one.driver() == "vfio_ccw"
    assert await one.refused(f"{DRIVER}/bind", ADDRESS) == errno.EBUSY
    assert await one.sys.read(f"{TYPE}/available_instances") == "1\n"
    await one.write(f"{TYPE}/create", FIRST)


async def test_back_to_the_host_and_to_vfio_ccw_again() -> None:
    one = await machine("")
    await one.write(f"{DRIVER}/unbind", ADDRESS)
    await one.write(f"{PARENT}/driver_override", "\n")
    await one.write("bus/css/drivers_probe", ADDRESS)
    assert one.driver() == "io_subchannel"
    assert one.sys.list("class/mdev_bus") == []
    await one.write("bus/css/drivers/io_subchannel/unbind", ADDRESS)
    await one.write(f"{PARENT}/driver_override", "vfio_ccw")
    await one.write("bus/css/drivers_probe", ADDRESS)
    assert one.driver() == "vfio_ccw"
    assert one.sys.list("class/mdev_bus") == [ADDRESS]


async def test_events_of_coming_and_going() -> None:
    one = await machine("")
    await one.write(f"{DRIVER}/unbind", ADDRESS)
    await one.write(f"{DRIVER}/bind", ADDRESS)
    bound = {"DRIVER": "vfio_ccw", "ST": "0", "MODALIAS": "css:t0"}
    assert [(event.action, list(event.keys.items())) for event in one.events if event.devpath == f"/{PARENT}"] == [
        ("change", list(({"MDEV_STATE": "unregistered"} | bound).items())),
        ("unbind", [("ST", "0")]),
        ("change", list(({"MDEV_STATE": "registered"} | bound).items())),
        ("bind", list(bound.items())),
    ]


@pytest.mark.parametrize("kernel", ["6.1", "6.12"])
async def test_a_qdio_subchannel_is_no_parent(kernel: str) -> None:
    one = await machine("qdio = true", kernel)
    assert (one.driver(), one.sys.list("class/mdev_bus")) == ("", [])
    assert await one.refused(f"{DRIVER}/bind", ADDRESS) == errno.ENODEV
    assert not one.sys.exists(f"{PARENT}/parent")
    assert one.driver() == ""


async def test_mistakes_in_the_settings() -> None:
    with pytest.raises(InputError) as caught:
        await machine("chpids = [256], pom = -1, dev_busid = '1234'")
    text = str(caught.value)
    assert "device[0].settings.chpids[0]: " in text
    assert "device[0].settings.pom: " in text
    with pytest.raises(InputError, match=r'device\[0\]: dev_busid "1234" is not a device'):
        await machine("dev_busid = '1234'")
    with pytest.raises(InputError, match=r'device\[0\].address: "0\.4\.0000" is not a subchannel'):
        await host_of('[[device]]\ndriver = "vfio_ccw"\naddress = "0.4.0000"\n')
