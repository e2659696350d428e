"""The AP bus: masks, cards, queues, the matrix device (sources: ap_bus.c, vfio_ap_drv.c)."""

from __future__ import annotations

import errno
import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdevfs.bus.ap import ApCore
from mdevfs.bus.ap_identity import ApCard, ApIdentity, format_mask, parse_mask
from mdevfs.bus.core import Core
from mdevfs.bus.kernel import Kernel
from mdevfs.errors import InputError, KernelError
from mdevfs.events.stream import Event
from tests.support import InProcess, check_tree
from vendor_drivers._vfio_ap_matrix import Matrices

ALL = "0x" + "f" * 64 + "\n"
QUEUE = "devices/ap/card05/05.0004"


class Host:
    """An AP bus, a client, and what was announced; `mdevs` are real ones' matrices."""

    def __init__(self, kernel: str = "6.12", apmask: str = "+0-255") -> None:
        self.core = Core(Kernel.parse(kernel))
        self.ap = ApCore(self.core, ApIdentity(apmask=apmask))
        self.mdevs = Matrices(self.ap)
        self.sys = InProcess(self.core.tree)
        self.events: list[Event] = []
        self.core.events.listeners.append(self.events.append)

    def driver(self, path: str = QUEUE) -> str:
        return os.path.basename(self.sys.readlink(f"{path}/driver")) if self.sys.exists(f"{path}/driver") else ""

    async def refused(self, path: str, data: str | bytes) -> int:
        with pytest.raises(OSError) as caught:
            await self.sys.write(path, data)
        assert caught.value.errno is not None
        return caught.value.errno

    def mode(self, path: str) -> int:
        return stat.S_IMODE(self.sys.tree.walk(path).mode)


# -- the bus


async def test_files_of_the_bus() -> None:
    host = Host()
    for name, mode, text in (
        ("ap_max_adapter_id", 0o444, "63\n"),
        ("ap_max_domain_id", 0o444, "15\n"),
        ("apmask", 0o644, ALL),
        ("aqmask", 0o644, ALL),
    ):
        assert await host.sys.read(f"bus/ap/{name}") == text
        assert host.mode(f"bus/ap/{name}") == mode
    assert host.sys.list("bus/ap/drivers") == ["cex4card", "cex4queue"]
    assert host.sys.list("devices/ap") == ["power", "uevent"]
    check_tree(host.core.tree)


@given(st.frozensets(st.integers(0, 255)), st.frozensets(st.integers(0, 255)))
def test_masks_there_and_back(bits: frozenset[int], current: frozenset[int]) -> None:
    text = format_mask(bits)
    assert len(text) == 66
    assert parse_mask(f"{text}\n".encode(), current) == bits
    changes = [f"+{one}" for one in bits - current] + [f"-{one:#x}" for one in current - bits]
    if changes:
        assert parse_mask(",".join(changes).encode(), current) == bits


@pytest.mark.parametrize(
    ("written", "reads"),
    [
        ("0x0", "0x" + "0" * 64),
        ("0x8000000000000000", "0x8" + "0" * 63),
        ("0x04\n", "0x04" + "0" * 62),
        ("04", "0x04" + "0" * 62),
        ("x04", "0x04" + "0" * 62),
        ("\n", "0x" + "0" * 64),
        (b"0x1\0junk", "0x1" + "0" * 63),
        ("-0", "0x7" + "f" * 63),
        ("-0x0-0x3,+1\n", "0x4" + "f" * 63),
        ("-5,-0x6", "0xf9" + "f" * 62),
        ("-0-255", "0x" + "0" * 64),
        ("-010\n", "0xff7" + "f" * 61),
        ("-0-255,+5,+0x6", "0x06" + "0" * 62),
        ("-0-255+7-7", "0x01" + "0" * 62),
    ],
)
async def test_written_masks(written: str | bytes, reads: str) -> None:
    host = Host()
    for name in ("apmask", "aqmask"):
        assert await host.sys.write(f"bus/ap/{name}", written) == len(written)
        assert await host.sys.read(f"bus/ap/{name}") == reads + "\n"


@pytest.mark.parametrize(
    "written",
    [
        "junk",
        "0x1g",
        "0X1",
        " 0x1",
        "0x1\n\n",
        "0x" + "0" * 65,
        "+",
        "+256",
        "-5-4",
        "+5-256",
        "+5-",
        "+5,6",
        "+08",
        "+5 ",
        "+-5",
        "+0x",
    ],
)
async def test_refused_masks_change_nothing(written: str) -> None:
    host = Host()
    assert await host.refused("bus/ap/apmask", written) == errno.EINVAL
    assert await host.sys.read("bus/ap/apmask") == ALL
    with pytest.raises(KernelError):
        parse_mask(written.encode(), frozenset())


async def test_a_changed_mask_is_announced_once() -> None:
    host = Host()
    await host.sys.write("bus/ap/apmask", "+5")
    assert host.events == []
    await host.sys.write("bus/ap/apmask", "-0")
    await host.sys.write("bus/ap/aqmask", "-0")
    text = "0x7" + "f" * 63 + "\n"
    assert [(e.action, e.devpath, e.subsystem, e.keys) for e in host.events] == [
        ("change", "/devices/ap", "ap", {"APMASK": text}),
        ("change", "/devices/ap", "ap", {"AQMASK": text}),
    ]


# -- cards and queues


async def test_cards_and_queues() -> None:
    host = Host()
    await host.ap.add_card(ApCard(5, frozenset({4, 0})))
    assert host.sys.list("bus/ap/devices") == ["05.0000", "05.0004", "card05"]
    assert host.sys.readlink("bus/ap/devices/05.0004") == f"../../../{QUEUE}"
    assert host.driver("devices/ap/card05") == "cex4card"
    assert host.driver() == "cex4queue"
    assert not host.sys.exists(f"{QUEUE}/status")
    assert await host.sys.read("devices/ap/card05/uevent") == (
        "DEVTYPE=ap_card\nDRIVER=cex4card\nDEV_TYPE=000E\nMODALIAS=ap:t0E\n"
    )
    assert await host.sys.read(f"{QUEUE}/uevent") == "DEVTYPE=ap_queue\nDRIVER=cex4queue\n"
    assert [(e.action, e.devpath.rpartition("/")[2]) for e in host.events] == [
        (action, name) for name in ("card05", "05.0000", "05.0004") for action in ("add", "bind")
    ]
    check_tree(host.core.tree)


async def test_mistaken_cards() -> None:
    host = Host()
    await host.ap.add_card(ApCard(5, frozenset({4})))
    with pytest.raises(InputError) as caught:
        await host.ap.add_card(ApCard(5, frozenset({16, 4, 17})))
    assert caught.value.mistakes == [
        "adapter 0x5 is there already",
        "domain 0x10 is not in 0x0 to 0xf",
        "domain 0x11 is not in 0x0 to 0xf",
    ]
    with pytest.raises(InputError, match="adapter 0x40"):
        await host.ap.add_card(ApCard(64))


async def test_queues_follow_the_masks() -> None:
    host = Host()
    await host.ap.load_vfio_ap(host.mdevs)
    await host.ap.add_card(ApCard(5, frozenset({4, 7})))
    await host.sys.write("bus/ap/aqmask", "-4")
    assert (host.driver(), host.driver("devices/ap/card05/05.0007")) == ("vfio_ap", "cex4queue")
    assert host.sys.readlink("bus/ap/drivers/vfio_ap/module") == "../../../../module/vfio_ap"
    assert await host.sys.read(f"{QUEUE}/status") == "unassigned\n"
    assert host.mode(f"{QUEUE}/status") == 0o444
    check_tree(host.core.tree)
    await host.sys.write("bus/ap/aqmask", "+4")
    assert host.driver() == "cex4queue"
    assert not host.sys.exists(f"{QUEUE}/status")
    check_tree(host.core.tree)


async def test_no_driver_for_what_nobody_keeps_until_vfio_ap_is_loaded() -> None:
    host = Host(apmask="-5")
    await host.ap.add_card(ApCard(5, frozenset({4})))
    assert host.driver() == ""
    assert await host.refused("bus/ap/drivers/cex4queue/bind", "05.0004") == errno.ENODEV
    await host.ap.load_vfio_ap(host.mdevs)
    assert host.driver() == "vfio_ap"
    await host.sys.write("bus/ap/drivers/vfio_ap/unbind", "05.0004")
    assert host.driver() == ""
    assert await host.refused("bus/ap/drivers/cex4queue/bind", "05.0004") == errno.ENODEV
    await host.sys.write("bus/ap/drivers/vfio_ap/bind", "05.0004")
    assert host.driver() == "vfio_ap"


# -- mdevs hold queues


async def test_a_queue_that_an_mdev_holds_is_not_taken_back() -> None:
    host = Host(apmask="-5,-6")
    await host.ap.load_vfio_ap(host.mdevs)
    await host.ap.add_card(ApCard(5, frozenset({4})))
    mdev = host.mdevs.add("a")
    mdev.assign("adapter", 5)
    mdev.assign("domain", 4)
    assert await host.sys.read(f"{QUEUE}/status") == "assigned\n"
    before = await host.sys.read("bus/ap/apmask")
    assert await host.refused("bus/ap/apmask", "+5") == errno.EBUSY
    assert await host.refused("bus/ap/apmask", ALL) == errno.EBUSY
    assert await host.sys.read("bus/ap/apmask") == before
    assert host.driver() == "vfio_ap"
    await host.sys.write("bus/ap/apmask", "+6,-7")
    await host.sys.write("bus/ap/aqmask", "-4")
    await host.sys.write("bus/ap/apmask", "+5")  # apmask has it now, aqmask has not
    assert await host.refused("bus/ap/aqmask", "+4") == errno.EBUSY
    mdev.open("vm")
    assert await host.sys.read(f"{QUEUE}/status") == "in use\n"
    host.mdevs.drop("a")
    await host.sys.write("bus/ap/aqmask", "+4")
    assert host.driver() == "cex4queue"


async def test_the_bus_answers_what_mdevs_ask() -> None:
    host = Host(apmask="-5,-6")
    await host.ap.load_vfio_ap(host.mdevs)
    await host.ap.add_card(ApCard(5, frozenset({4, 7})))
    await host.ap.add_card(ApCard(8, frozenset({4})))
    assert (host.ap.max_adapter_id, host.ap.max_domain_id) == (63, 15)
    assert (set(host.ap.adapters), set(host.ap.domains)) == ({5, 8}, {4, 7})
    assert [host.ap.reserved_for_host(one) for one in ((5, 4), (8, 4), (9, 255))] == [False, True, True]
    assert [host.ap.bound_to_vfio_ap(one) for one in ((5, 4), (8, 4), (6, 4))] == [True, False, False]
    mdev = host.mdevs.add("a")
    for adapter in (5, 6):
        mdev.assign("adapter", adapter)
    mdev.assign("domain", 4)
    assert (mdev.matrix_text(), mdev.guest_matrix_text()) == ("05.0004\n06.0004\n", "05.0004\n")
    await host.sys.write("bus/ap/drivers/vfio_ap/unbind", "05.0004")
    assert mdev.guest_matrix_text() == ".0004\n"


# -- the matrix device


@pytest.mark.parametrize(("kernel", "features"), [("6.1", None), ("6.12", "guest_matrix hotplug ap_config\n")])
async def test_the_matrix_device(kernel: str, features: str | None) -> None:
    host = Host(kernel)
    matrix = await host.ap.load_vfio_ap(host.mdevs)
    path = "devices/vfio_ap/matrix"
    assert (matrix.path, matrix.ap) == (path, host.ap)
    assert host.driver(path) == "vfio_ap"
    assert host.sys.readlink("devices/vfio_ap/module") == "../../module/vfio_ap"
    assert host.sys.list("bus/matrix/drivers/vfio_ap") == ["matrix", "uevent"]
    assert host.sys.list("bus/matrix/devices") == ["matrix"]
    assert await host.sys.read(f"{path}/uevent") == "DRIVER=vfio_ap\n"
    assert host.sys.exists(f"{path}/features") is (features is not None)
    if features is not None:
        assert await host.sys.read(f"{path}/features") == features
        assert host.mode(f"{path}/features") == 0o444
    with pytest.raises(InputError, match="one matrix device"):
        await host.ap.load_vfio_ap()
    check_tree(host.core.tree)


async def test_events_of_devices_without_a_bus_are_kept_back() -> None:
    host = Host()
    await host.ap.load_vfio_ap(host.mdevs)
    seen = len(host.events)
    await host.sys.write("devices/vfio_ap/uevent", "change")
    assert host.events[seen:] == []
    await host.sys.write("devices/ap/uevent", "change")
    assert [(e.devpath, e.subsystem) for e in host.events[seen:]] == [("/devices/ap", "ap")]
    assert await host.refused("devices/vfio_ap/uevent", "nonsense") == errno.EINVAL
    assert await host.sys.read("devices/ap/uevent") == ""
