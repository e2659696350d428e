"""Devices that come, go and come late, types likewise, and the reboot of a whole machine."""

from __future__ import annotations

import errno
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from mdevfs.errors import InputError, KernelError
from mdevfs.events import Event
from mdevfs.host.host import Host, load
from mdevfs.host.read import shipped
from mdevfs.host.schema import DeviceSection
from mdevfs.mdev.parent import Parent
from mdevfs.mdev.types import MdevType
from mdevfs.sysfs.faults import Fault
from tests.support import InProcess, check_tree, host_of

UUID, UUID2 = "a1b2c3d4-0001-4abc-8def-0123456789ab", "a2b2c3d4-0002-4abc-8def-0123456789ab"
MTTY = "devices/virtual/mtty/mtty"
TYPE = f"{MTTY}/mdev_supported_types/mtty-1"


class Sys(InProcess):
    """A host, what it announces, and what it shows."""

    def __init__(self, host: Host) -> None:
        super().__init__(host.tree)
        self.host = host
        self.heard: list[Event] = []
        host.core.events.listeners.append(self.heard.append)

    def told(self) -> list[tuple[str, str]]:
        """Action and path of what was announced since the last time."""
        events, self.heard[:] = list(self.heard), []
        return [(event.action, event.devpath) for event in events]

    def paths(self) -> set[str]:
        return {path for path, _ in self.tree.everything()}

    async def texts(self) -> dict[str, str]:
        """What every file says that can be read and is no clock."""
        found = {}
        for path, entry in self.tree.everything():
            if entry.mode & 0o444 and not entry.mode & 0o040000 and not path.endswith(("_time", "last_verdict")):
                try:
                    found[path] = await self.read(path)
                except (OSError, UnicodeDecodeError) as error:
                    found[path] = type(error).__name__
        return found

    async def create(self, uuid: str = UUID) -> None:
        await self.write(f"{TYPE}/create", uuid)

    async def errno_of(self, call: Callable[[], object]) -> int:
        """The errno of an awaitable call, 0 without one."""
        try:
            await call()  # type: ignore[misc]
        except OSError as error:
            return error.errno or -1
        return 0


@pytest.fixture
async def sys() -> Sys:
    return Sys(await host_of())


@pytest.fixture(params=sorted(shipped()))
async def any_host(request: pytest.FixtureRequest) -> Sys:
    """Each shipped host, with its mdevs taken away: a boot brings none."""
    sys = Sys(await load(request.param))
    for parent in list(sys.host.mdev.parents.values()):
        for mdev in list(parent.mdevs):
            await sys.host.mdev.remove(mdev)
    sys.told()
    return sys


def parent(sys: Sys, name: str = "mtty") -> Parent:
    return sys.host.mdev.parents[name]


# -- a device goes and comes


async def test_every_device_goes_and_comes_as_it_was(any_host: Sys) -> None:
    sys, host = any_host, any_host.host
    before, texts = sys.paths(), await sys.texts()
    for address, planned in list(host.devices.present.items()):
        if planned.driver.bus == "ap":
            with pytest.raises(KernelError, match="matrix goes with the whole machine only"):
                await host.unplug(address)
            continue
        parents = len(host.mdev.parents)
        await host.unplug(address)
        check_tree(host.tree)
        assert address not in host.devices.present
        assert len(host.mdev.parents) < parents
        assert sys.told()[-1][0] == "remove"
        assert await host.appear(planned) == []
        check_tree(host.tree)
        assert (len(host.mdev.parents), sys.paths()) == (parents, before)
    assert await sys.texts() == texts


async def test_a_device_goes_with_its_mdevs(sys: Sys) -> None:
    await sys.create()
    held = await sys.open(f"{MTTY}/{UUID}/uevent")
    sys.told()
    await sys.host.unplug("mtty")
    assert sys.told() == [
        ("remove", f"/{MTTY}/{UUID}/vfio-dev/vfio0"),
        ("remove", "/devices/virtual/vfio/0"),
        ("unbind", f"/{MTTY}/{UUID}"),
        ("remove", f"/{MTTY}/{UUID}"),
        ("change", f"/{MTTY}"),
        ("remove", f"/{MTTY}"),
        ("remove", "/bus/mdev/drivers/mtty"),
        ("remove", "/class/mtty"),
        ("remove", "/module/mtty"),
    ]
    with pytest.raises(KernelError) as caught:
        await held.read(0, 100)
    assert caught.value.errno == errno.ENODEV
    assert (sys.list("class/mdev_bus"), sys.list("bus/mdev/devices")) == (["mdpy"], [])


async def test_a_removal_waits_for_mdevs_in_use(sys: Sys) -> None:
    await sys.create()
    await sys.write(f"{MTTY}/{UUID}/mdevfs/in_use", "1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sys.host.unplug, "mtty")
        await wait_all_tasks_blocked()
        assert sys.list("class/mdev_bus") == ["mdpy"]
        assert await sys.errno_of(lambda: sys.create(UUID2)) == errno.ENODEV
        with pytest.raises(KernelError, match="mtty is on its way out already") as caught:
            await sys.host.unplug("mtty")
        assert caught.value.errno == errno.EBUSY
        next(parent(sys).mdevs).use(False)
    assert not sys.exists(MTTY)
    check_tree(sys.tree)


async def test_an_unregistration_waits_for_a_creation(sys: Sys) -> None:
    """mdev_unregister_parent takes the write side of unreg_sem; the creation that has begun ends first."""
    fault = sys.tree.faults.add(Fault("*", frozenset({"probe"}), slow=math.inf))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sys.create)
        await wait_all_tasks_blocked()
        nursery.start_soon(sys.host.mdev.unregister_parent, parent(sys))
        await wait_all_tasks_blocked()
        sys.told()
        sys.tree.faults.clear([fault.number])
    assert [action for action, _ in sys.told()][:3] == ["add", "add", "bind"]
    assert sys.list("bus/mdev/devices") == []
    check_tree(sys.tree)


async def test_an_unregistration_waits_for_a_removal(sys: Sys) -> None:
    await sys.create()
    fault = sys.tree.faults.add(Fault("*", frozenset({"remove"}), slow=math.inf))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sys.write, f"{MTTY}/{UUID}/remove", "1")
        await wait_all_tasks_blocked()
        nursery.start_soon(sys.host.mdev.unregister_parent, parent(sys))
        nursery.start_soon(sys.host.mdev.unregister_parent, parent(sys))  # a second one changes nothing
        await wait_all_tasks_blocked()
        sys.told()
        sys.tree.faults.clear([fault.number])
    assert [action for action, _ in sys.told()] == ["remove", "remove", "unbind", "remove", "change"]
    check_tree(sys.tree)


async def test_a_driver_that_cannot_let_go_keeps_its_device(sys: Sys) -> None:
    await sys.create()
    await sys.create(UUID2)
    sys.tree.faults.add(Fault(f"*/{UUID2}", frozenset({"remove"}), errno=errno.EIO, count=1))
    with pytest.raises(Exception, match="failed on purpose"):
        await sys.host.unplug("mtty")
    check_tree(sys.tree)
    assert (sys.list("bus/mdev/devices"), sys.list("class/mdev_bus")) == ([UUID2], ["mdpy", "mtty"])
    await sys.create()
    await sys.host.unplug("mtty")
    check_tree(sys.tree)


async def test_a_parent_is_unregistered_and_registered(any_host: Sys) -> None:
    sys, host = any_host, any_host.host
    before = sys.paths()
    for name in list(host.devices.offers):
        await host.mdev.unregister_parent(host.mdev.parents[name])
        check_tree(host.tree)
        assert host.devices.register(name) is host.mdev.parents[name]
        with pytest.raises(KernelError, match="is registered"):
            host.devices.register(name)
    check_tree(host.tree)
    assert sys.paths() == before
    assert {action for action, _ in sys.told()} == {"change"}


async def test_a_new_device_in_a_running_machine(sys: Sys) -> None:
    host = sys.host
    section = DeviceSection(driver="nvidia", address="0000:3b:00.0")
    assert await host.appear(host.plan.extend(section, host.devices.present)) == []
    assert sys.list("class/mdev_bus") == ["0000:3b:00.0", "mdpy", "mtty"]
    check_tree(sys.tree)
    with pytest.raises(InputError, match=r'"0000:3b:00\.0" is taken'):
        host.plan.extend(section, host.devices.present)
    await host.unplug("0000:3b:00.0")
    other = DeviceSection(driver="i915", address="0000:3b:00.0")
    assert await host.appear(host.plan.extend(other, host.devices.present)) == []
    assert await sys.read("bus/pci/devices/0000:3b:00.0/vendor") == "0x8086\n"
    check_tree(sys.tree)


async def test_a_device_that_cannot_come_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text(
        "from mdevfs.vendor import MdevType, Refused, VendorDriver\n"
        "class Bad(VendorDriver):\n    api = 1\n    name = 'bad'\n"
        "    def types(self, parent): raise Refused('refused', rule='no')\n"
    )
    sys = Sys(await host_of("host.drivers = ['./bad.py']\n[[device]]\ndriver = 'mtty'\n", tmp_path))
    before = sys.paths()
    planned = sys.host.plan.extend(DeviceSection(driver="bad"), ())
    assert await sys.host.appear(planned) == ["device: refused: no"]
    assert sys.paths() == before
    check_tree(sys.tree)


async def test_a_function_that_was_removed_by_sysfs_can_be_unplugged() -> None:
    sys = Sys(await load("gvtg"))
    texts = await sys.texts()
    await sys.write("bus/pci/devices/0000:00:02.0/remove", "1")
    await sys.host.unplug("0000:00:02.0")
    await sys.write("bus/pci/rescan", "1")
    assert "0000:00:02.0" not in sys.list("bus/pci/devices")
    assert await sys.host.appear(sys.host.plan.devices[0]) == []
    assert await sys.texts() == texts
    check_tree(sys.tree)


# -- types


async def test_a_type_goes_and_comes(sys: Sys) -> None:
    mdev, kind = sys.host.mdev, parent(sys).types["mtty-2"]
    known = sys.tree.walk(f"{MTTY}/mdev_supported_types/mtty-2/create")
    before = sys.paths()
    mdev.remove_type(kind)
    check_tree(sys.tree)
    assert sys.list(f"{MTTY}/mdev_supported_types") == ["mtty-1"]
    assert known.dead
    mdev.add_type(parent(sys), kind.spec)
    check_tree(sys.tree)
    assert sys.paths() == before
    assert sys.told() == [("change", f"/{MTTY}")] * 2
    with pytest.raises(KernelError, match="mtty has the type mtty-2"):
        mdev.add_type(parent(sys), kind.spec)


async def test_a_new_type_works(sys: Sys) -> None:
    sys.host.mdev.add_type(parent(sys), MdevType("quad", name="Quad", weight=4))
    await sys.write(f"{MTTY}/mdev_supported_types/mtty-quad/create", UUID)
    assert await sys.read(f"{MTTY}/{UUID}/mdev_type/name") == "Quad\n"
    assert await sys.read(f"{TYPE}/available_instances") == "20\n"
    check_tree(sys.tree)


async def test_a_type_with_mdevs_stays(sys: Sys) -> None:
    kind = parent(sys).types["mtty-1"]
    await sys.create()
    with pytest.raises(KernelError, match=f"mtty-1 of mtty has the mdev {UUID}$") as caught:
        sys.host.mdev.remove_type(kind)
    assert caught.value.errno == errno.EBUSY
    await sys.create(UUID2)
    with pytest.raises(KernelError, match=f"has the mdev {UUID} and 1 more"):
        sys.host.mdev.remove_type(kind)
    check_tree(sys.tree)


async def test_a_type_with_an_mdev_on_its_way_stays(sys: Sys) -> None:
    fault = sys.tree.faults.add(Fault("*", frozenset({"probe"}), slow=math.inf))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sys.create)
        await wait_all_tasks_blocked()
        with pytest.raises(KernelError, match=f"has the mdev {UUID}"):
            sys.host.mdev.remove_type(parent(sys).types["mtty-1"])
        sys.tree.faults.clear([fault.number])
    check_tree(sys.tree)


# -- reboot


async def test_a_reboot_brings_every_host_back_as_it_was(any_host: Sys) -> None:
    sys, host = any_host, any_host.host
    before, texts, old = sys.paths(), await sys.texts(), {path: sys.tree.walk(path) for path in ("bus/mdev", "devices")}
    assert await host.reboot() == []
    check_tree(host.tree)
    assert sys.paths() == before
    assert await sys.texts() == texts
    assert old["bus/mdev"].dead
    assert not old["devices"].dead  # who has mounted something below stays there


async def test_a_reboot_announces_what_went_and_what_came(any_host: Sys) -> None:
    sys = any_host
    devices = {path for path in sys.paths() if path.endswith("/subsystem") and "/drivers/" not in path}
    assert await sys.host.reboot() == []
    told = [(action, path) for action, path in sys.told() if path.startswith("/devices/")]
    count = Counter(action for action, _ in told)
    last_remove = max(index for index, (action, _) in enumerate(told) if action == "remove")
    first_add = min(index for index, (action, _) in enumerate(told) if action == "add")
    assert last_remove < first_add
    assert count["unbind"] == count["bind"]
    seen = {path.removesuffix("/subsystem") for path in devices if path.startswith("devices/")}
    assert {path[1:] for action, path in told if action == "remove"} == seen
    assert {path[1:] for action, path in told if action == "add"} == seen


async def test_a_reboot_takes_every_mdev(sys: Sys) -> None:
    await sys.create()
    file = await sys.open(f"{MTTY}/{UUID}/uevent")
    sys.told()
    await sys.host.reboot()
    told = sys.told()
    assert told[:6] == [
        ("remove", f"/{MTTY}/{UUID}/vfio-dev/vfio0"),
        ("remove", "/devices/virtual/vfio/0"),
        ("unbind", f"/{MTTY}/{UUID}"),
        ("remove", f"/{MTTY}/{UUID}"),
        ("change", f"/{MTTY}"),
        ("change", "/devices/virtual/mdpy/mdpy"),
    ]
    assert sys.list("bus/mdev/devices") == []
    assert await sys.read(f"{TYPE}/available_instances") == "24\n"
    with pytest.raises(KernelError):
        await file.read(0, 100)
    await sys.create()
    check_tree(sys.tree)


async def test_a_reboot_takes_described_mdevs_as_well() -> None:
    text = f"[[device]]\ndriver = 'mtty'\n[[device.mdev]]\nuuid = '{UUID}'\ntype = 'mtty-1'\n"
    sys = Sys(await host_of(text))
    assert sys.list("bus/mdev/devices") == [UUID]
    assert await sys.host.reboot() == []
    assert sys.list("bus/mdev/devices") == []


async def test_a_reboot_does_not_wait_for_mdevs_in_use(sys: Sys) -> None:
    """A removal that waited for the guest to let go returns; nobody hears of it any more."""
    await sys.create()
    await sys.write(f"{MTTY}/{UUID}/mdevfs/in_use", "1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sys.write, f"{MTTY}/{UUID}/remove", "1")
        await wait_all_tasks_blocked()
        await sys.host.reboot()
        sys.told()
    assert sys.told() == []
    assert await sys.read(f"{TYPE}/available_instances") == "24\n"
    check_tree(sys.tree)


async def test_a_creation_that_a_reboot_overtakes_creates_nothing(sys: Sys) -> None:
    fault = sys.tree.faults.add(Fault("*", frozenset({"probe"}), slow=math.inf))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sys.create)
        await wait_all_tasks_blocked()
        await sys.host.reboot()
        sys.told()
        sys.tree.faults.clear([fault.number])
    assert sys.told() == []
    assert sys.list("bus/mdev/devices") == []
    check_tree(sys.tree)
    await sys.create()


async def test_faults_outlast_a_reboot(sys: Sys) -> None:
    sys.tree.faults.add(Fault("*/create", frozenset({"write"}), errno=errno.EIO))
    await sys.host.reboot()
    assert await sys.errno_of(sys.create) == errno.EIO


async def test_what_was_unplugged_stays_away(sys: Sys) -> None:
    await sys.host.unplug("mdpy")
    await sys.host.reboot()
    assert sys.list("class/mdev_bus") == ["mtty"]
    await sys.host.appear(next(one for one in sys.host.plan.devices if one.address == "mdpy"))
    await sys.host.reboot()
    assert sys.list("class/mdev_bus") == ["mdpy", "mtty"]


LATE = f"""
[[device]]
driver = "mtty"
late = 2.5
[[device.mdev]]
uuid = "{UUID}"
type = "mtty-1"
[[device]]
driver = "mdpy"
late = inf
"""


async def test_devices_that_come_late() -> None:
    sys = Sys(await host_of(LATE))
    assert (sys.list("class"), sys.host.awaited) == (
        ["iommu", "mdev_bus", "misc", "pci_bus", "vfio", "vfio-dev"],
        {"mtty": 2.5, "mdpy": math.inf},
    )
    mtty, mdpy = sys.host.plan.devices
    assert await sys.host.appear(mtty) == []
    assert sys.list("bus/mdev/devices") == [UUID]
    await sys.host.reboot()
    assert sys.host.awaited == {"mtty": 2.5, "mdpy": math.inf}
    await sys.host.reboot(late=1)
    assert sys.host.awaited == {"mtty": 1, "mdpy": math.inf}
    await sys.host.appear(mtty)
    assert sys.list("bus/mdev/devices") == []  # the boot took it, and no boot brings one
    await sys.host.appear(mdpy)
    await sys.host.reboot(late=0)
    assert (sys.host.awaited, sys.list("class/mdev_bus")) == ({}, ["mdpy", "mtty"])


async def test_late_devices_are_checked_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "host.toml"
    path.write_text(LATE.replace("mtty-1", "mtty-3"))
    with pytest.raises(InputError, match='mtty has no type "mtty-3"'):
        await load(str(path))
