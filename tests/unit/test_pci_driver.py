"""Drivers of PCI functions, and functions that go and come back (drivers/pci/pci-driver.c, remove.c, probe.c)."""

from __future__ import annotations

import errno

import pytest
import trio
import trio.testing

from mdevfs.bus.pci_driver import ANY, PciDriver, PciId
from mdevfs.bus.pci_function import PciFunction
from mdevfs.bus.pci_resource import PciIdentity
from mdevfs.errors import KernelError
from tests.support import check_tree
from tests.unit.pci_host import GPU, IGD, PF, PciHost

IGD_AT = "0000:00:02.0"
IGD_PATH = f"devices/pci0000:00/{IGD_AT}"
PORT = "0000:00:1c.0"
PF_PATH = f"devices/pci0000:00/{PORT}/{PF}"
VFIO = "bus/pci/drivers/vfio-pci"
NVIDIA = PciId(0x10DE, class_code=0x030000, class_mask=0xFF0000)


async def test_binding_shows_links_and_events_in_the_kernels_order() -> None:
    host = PciHost()
    host.pci.add(IGD_AT, IGD)
    host.said()

    async def probe(function: PciFunction) -> None:
        function.send("change", {"MDEV_STATE": "registered"})

    await host.driver("i915", PciId(0x8086, 0x591D), probe=probe)
    change = host.events[1]
    assert list(change.keys)[:3] == ["MDEV_STATE", "DRIVER", "PCI_CLASS"]
    assert host.said() == ["add i915", f"change {IGD_AT}", f"bind {IGD_AT}"]
    assert host.sys.readlink(f"{IGD_PATH}/driver") == "../../../bus/pci/drivers/i915"
    driver = "bus/pci/drivers/i915"
    assert host.sys.list(driver) == [IGD_AT, "bind", "module", "new_id", "remove_id", "uevent", "unbind"]
    assert await host.sys.read(f"{IGD_PATH}/enable") == "1\n"
    assert await host.refused(f"{IGD_PATH}/enable") == errno.EBUSY
    assert (await host.sys.read(f"{IGD_PATH}/uevent")).startswith("DRIVER=i915\nPCI_CLASS=")
    await host.sys.write(f"{driver}/unbind", f"{IGD_AT}\n")
    assert (host.bound(IGD_AT), host.said()) == (None, [f"unbind {IGD_AT}"])
    assert await host.sys.read(f"{IGD_PATH}/enable") == "0\n"
    assert host.calls == [f"i915 probe {IGD_AT}", f"i915 remove {IGD_AT}"]
    check_tree(host.core.tree)


async def test_bind_and_unbind_errnos() -> None:
    host = PciHost()
    host.pci.add(IGD_AT, IGD)
    host.pci.add(PF, GPU)
    await host.driver("i915", PciId(0x8086, 0x591D))
    await host.driver("other", PciId(0x8086))
    assert await host.refused("bus/pci/drivers/i915/bind", IGD_AT) == errno.EBUSY
    assert await host.refused("bus/pci/drivers/other/bind", IGD_AT) == errno.EBUSY
    assert await host.refused("bus/pci/drivers/i915/bind", PF) == errno.ENODEV
    assert await host.refused("bus/pci/drivers/i915/bind", "0000:00:09.0") == errno.ENODEV
    assert await host.refused("bus/pci/drivers/other/unbind", IGD_AT) == errno.ENODEV
    assert await host.refused("bus/pci/drivers/i915/unbind", "nonsense") == errno.ENODEV
    assert host.bound(IGD_AT) == "i915"


async def test_a_failing_probe_is_binds_errno_and_leaves_no_trace() -> None:
    host = PciHost()
    host.pci.add(IGD_AT, IGD)
    await host.driver("broken", PciId(0x8086), refuse=errno.ENOMEM)
    host.said()
    assert await host.refused("bus/pci/drivers/broken/bind", IGD_AT) == errno.ENOMEM
    assert (host.bound(IGD_AT), host.said()) == (None, [])
    assert await host.sys.read(f"{IGD_PATH}/enable") == "0\n"
    assert await host.sys.write("bus/pci/drivers_probe", IGD_AT) == len(IGD_AT)
    await host.driver("good", PciId(0x8086))
    assert host.bound(IGD_AT) == "good"
    check_tree(host.core.tree)


async def test_drivers_probe_errnos() -> None:
    host = PciHost()
    host.pci.add(IGD_AT, IGD)
    assert await host.refused("bus/pci/drivers_probe", "0000:00:09.0") == errno.ENODEV
    await host.sys.write("bus/pci/drivers_probe", IGD_AT)
    assert host.bound(IGD_AT) is None
    await host.sys.write("bus/pci/drivers_autoprobe", "0")
    await host.driver("i915", PciId(0x8086))
    assert host.bound(IGD_AT) is None
    await host.sys.write("bus/pci/drivers_probe", IGD_AT)
    assert host.bound(IGD_AT) == "i915"
    await host.sys.write("bus/pci/drivers_probe", IGD_AT)


async def test_one_of_two_binds_at_once_wins() -> None:
    host = PciHost()
    host.pci.add(IGD_AT, IGD)
    entered, go = trio.Event(), trio.Event()

    async def slow(function: PciFunction) -> None:
        entered.set()
        await go.wait()

    driver = PciDriver("slow", host.pci.bus, [PciId(0x8086)], on_probe=slow)
    host.pci.bus.add_driver(driver)
    results: list[int] = []

    async def bind() -> None:
        try:
            await driver.bind(host.pci.functions[IGD_AT])
            results.append(0)
        except KernelError as error:
            results.append(error.errno)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(bind)
        nursery.start_soon(bind)
        await entered.wait()
        await trio.testing.wait_all_tasks_blocked()
        go.set()
    assert sorted(results) == [0, errno.EBUSY]


async def test_driver_override_decides_alone() -> None:
    host = PciHost()
    host.pci.add(IGD_AT, IGD, iommu_group=1)
    await host.driver("i915", PciId(0x8086, 0x591D))
    override = f"{IGD_PATH}/driver_override"
    assert await host.refused(f"{VFIO}/bind", IGD_AT) == errno.ENODEV
    await host.sys.write(override, b"\xe9\n")
    assert await host.bytes(override) == b"\xe9\n"
    await host.sys.write(override, "vfio-pci\n")
    assert (await host.sys.read(override), host.bound(IGD_AT)) == ("vfio-pci\n", "i915")
    await host.sys.write(f"{IGD_PATH}/driver/unbind", IGD_AT)
    host.said()
    await host.sys.write("bus/pci/drivers_probe", IGD_AT)
    assert host.bound(IGD_AT) == "vfio-pci"
    assert host.said() == ["add 1", "add vfio0", f"bind {IGD_AT}"]
    assert host.sys.exists("class/vfio/1")
    assert host.sys.exists(f"{IGD_PATH}/vfio-dev/vfio0/uevent")
    await host.sys.write(f"{VFIO}/unbind", IGD_AT)
    assert host.said() == ["remove vfio0", "remove 1", f"unbind {IGD_AT}"]
    assert host.sys.list("class/vfio") == []
    await host.sys.write(override, "\n")
    assert await host.sys.read(override) == "(null)\n"
    await host.sys.write("bus/pci/drivers_probe", IGD_AT)
    assert host.bound(IGD_AT) == "i915"
    assert await host.refused(override, "x" * 4095) == errno.EINVAL
    await host.sys.write(override, "no-such-driver")
    assert await host.refused("bus/pci/drivers/i915/bind", IGD_AT) == errno.ENODEV
    check_tree(host.core.tree)


async def test_vfio_pci_refuses_a_bridge() -> None:
    host = PciHost()
    host.pci.add(PF, GPU)
    await host.sys.write(f"bus/pci/devices/{PORT}/driver_override", "vfio-pci")
    assert await host.refused(f"{VFIO}/bind", PORT) == errno.EINVAL


async def test_new_id_and_remove_id() -> None:
    host = PciHost()
    host.pci.add(PF, GPU)
    host.pci.add("0000:41:00.1", GPU)
    new, old = f"{VFIO}/new_id", f"{VFIO}/remove_id"
    for text in ("10de", "", " ", "zz 25b6", "10de,25b6"):
        if text:
            assert await host.refused(new, text) == errno.EINVAL, text
    assert await host.sys.write(new, "10de 25b6\n") == 10
    assert (host.bound(PF), host.bound("0000:41:00.1")) == ("vfio-pci", "vfio-pci")
    assert await host.refused(new, "0x10de 0X25B6") == errno.EEXIST
    assert await host.refused(old, "10de") == errno.EINVAL
    assert await host.refused(old, "10de 25b7") == errno.ENODEV
    await host.sys.write(old, "10de 25b6")
    assert await host.refused(old, "10de 25b6") == errno.ENODEV
    assert host.bound(PF) == "vfio-pci"
    await host.sys.write(f"{VFIO}/unbind", PF)
    assert await host.refused(f"{VFIO}/bind", PF) == errno.ENODEV
    check_tree(host.core.tree)


async def test_new_id_with_a_table() -> None:
    host = PciHost()
    await host.driver("nvidia", NVIDIA, PciId(0x8086, 0x591D, data=5))
    new = "bus/pci/drivers/nvidia/new_id"
    assert await host.refused(new, "8086 591d") == errno.EEXIST
    assert await host.refused(new, "1234 1 ffffffff ffffffff 0 0 7") == errno.EINVAL
    await host.sys.write(new, "1234 1 ffffffff ffffffff 0 0 5")
    # The table's line asks for a class, which the made-up device does not have.
    await host.sys.write(new, "10de 25b6")
    assert await host.refused(new, "10de 25b6") == errno.EEXIST


def test_ids_match_class_by_mask_and_subsystem() -> None:
    assert NVIDIA.matches(GPU)
    assert not NVIDIA.matches(PciIdentity(0x10DE, 1, 0x040300))
    assert PciId(0x10DE, ANY, 0x10DE, 0x14A9).matches(GPU)
    assert not PciId(0x10DE, ANY, 0x10DE, 0x1234).matches(GPU)


# -- remove and rescan


async def test_remove_and_rescan_of_one_function() -> None:
    host = PciHost()
    host.pci.add(IGD_AT, IGD, iommu_group=3)
    await host.driver("i915", PciId(0x8086))
    resource = await host.sys.read(f"{IGD_PATH}/resource")
    await host.sys.write(f"{IGD_PATH}/driver_override", "i915")
    host.said()
    assert await host.refused(f"{IGD_PATH}/remove", "x") == errno.EINVAL
    await host.sys.write(f"{IGD_PATH}/remove", "0")
    assert host.said() == []
    stale = await host.sys.open(f"{IGD_PATH}/vendor")
    await host.sys.write(f"{IGD_PATH}/remove", "1")
    assert host.said() == [f"unbind {IGD_AT}", f"remove {IGD_AT}"]
    assert not host.sys.exists(IGD_PATH)
    assert host.sys.list("kernel/iommu_groups") == []
    with pytest.raises(KernelError) as caught:
        await stale.read(0, 100)
    assert caught.value.errno == errno.ENODEV
    check_tree(host.core.tree)

    assert await host.refused("bus/pci/rescan", "x") == errno.EINVAL
    await host.sys.write("bus/pci/rescan", "0")
    assert not host.sys.exists(IGD_PATH)
    await host.sys.write("bus/pci/rescan", "1")
    assert host.said() == [f"add {IGD_AT}", f"bind {IGD_AT}"]
    assert await host.sys.read(f"{IGD_PATH}/resource") == resource
    assert await host.sys.read(f"{IGD_PATH}/driver_override") == "(null)\n"
    assert await host.sys.read(f"{IGD_PATH}/boot_vga") == "1\n"
    assert host.sys.list("kernel/iommu_groups") == ["3"]
    await host.sys.write("bus/pci/rescan", "1")
    assert host.said() == []
    check_tree(host.core.tree)


async def test_a_removed_bridge_takes_its_bus_along() -> None:
    host = PciHost()
    host.pci.add(PF, GPU)
    host.pci.add("0000:41:00.1", GPU)
    await host.driver("nvidia", NVIDIA)
    host.said()
    await host.sys.write(f"bus/pci/devices/{PORT}/remove", "1")
    assert host.said() == [
        "unbind 0000:41:00.1", f"unbind {PF}", "remove 0000:41:00.1", f"remove {PF}", "remove 0000:41", f"remove {PORT}"
    ]  # fmt: skip
    assert host.sys.list("bus/pci/devices") == []
    check_tree(host.core.tree)
    await host.sys.write("class/pci_bus/0000:00/rescan", "1")
    assert host.said() == [
        f"add {PORT}", "add 0000:41", f"add {PF}", "add 0000:41:00.1",
        f"bind {PORT}", f"bind {PF}", "bind 0000:41:00.1",
    ]  # fmt: skip
    check_tree(host.core.tree)


async def test_a_port_is_offered_to_its_driver_once() -> None:
    host = PciHost()
    host.pci.add(PF, GPU)
    await host.pci.attach()
    assert host.bound(PORT) == "pcieport"
    await host.sys.write("bus/pci/drivers/pcieport/unbind", PORT)
    host.pci.add("0000:41:00.1", GPU)
    await host.pci.attach()
    assert host.bound(PORT) is None


async def test_a_rescan_of_one_bus_leaves_others_alone() -> None:
    host = PciHost()
    for address in (IGD_AT, PF, "0000:41:00.1"):
        host.pci.add(address, GPU)
    await host.sys.write(f"{IGD_PATH}/remove", "1")
    await host.sys.write(f"{PF_PATH}/remove", "1")
    await host.sys.write("bus/pci/devices/0000:41:00.1/rescan", "1")
    assert (host.sys.exists(PF_PATH), host.sys.exists(IGD_PATH)) == (True, False)
    await host.sys.write(f"bus/pci/devices/{PORT}/rescan", "1")
    assert host.sys.exists(IGD_PATH)


async def test_a_driver_that_does_not_let_go_keeps_its_function() -> None:
    host = PciHost()
    host.pci.add(IGD_AT, IGD)

    async def refuse(function: PciFunction) -> None:
        raise KernelError(errno.EBUSY)

    await host.pci.load(PciDriver("clingy", host.pci.bus, [PciId(0x8086)], on_remove=refuse))
    host.said()
    assert await host.refused(f"{IGD_PATH}/remove", "1") == errno.EBUSY
    assert (host.bound(IGD_AT), host.said()) == ("clingy", [])
    assert host.sys.exists(f"{IGD_PATH}/remove")
    check_tree(host.core.tree)


async def test_a_synthetic_event_is_echoed() -> None:
    host = PciHost()
    host.pci.add(IGD_AT, IGD)
    host.events.clear()
    await host.sys.write(f"{IGD_PATH}/uevent", "add 12345678-1234-1234-1234-123456789abc")
    assert host.events[0].keys["SYNTH_UUID"] == "12345678-1234-1234-1234-123456789abc"
    assert host.events[0].keys["PCI_SLOT_NAME"] == IGD_AT
