"""The vendor driver vfio_ap on a whole host (sources: vfio_ap_ops.c of 6.1 and 6.12, vfio-ap.rst)."""

from __future__ import annotations

import errno
import logging
import os
import stat

import pytest

from mdevfs.errors import InputError
from mdevfs.host.host import Host, load
from mdevfs.vendor import Mdev, Refused
from tests.support import MTTY_AND_MDPY, InProcess, check_tree, host_of
from vendor_drivers.vfio_ap import VfioAp

PARENT = "devices/vfio_ap/matrix"
TYPE = f"{PARENT}/mdev_supported_types/vfio_ap-passthrough"
FIRST, SECOND = "11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222"
WRITES = [f"{verb}_{what}" for verb in ("assign", "unassign") for what in ("adapter", "domain", "control_domain")]
PAGES = {page.code for page in VfioAp.pages}


class Machine:
    """A host with an AP bus, and a shell on it."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.sys = InProcess(host.tree)

    async def create(self, uuid: str = FIRST) -> None:
        await self.sys.write(f"{TYPE}/create", uuid)

    async def write(self, name: str, data: str | bytes, uuid: str = FIRST) -> None:
        """One attribute of an mdev; the tree holds together afterwards."""
        sent = data.encode() if isinstance(data, str) else data
        assert await self.sys.write(f"{PARENT}/{uuid}/{name}", sent) == len(sent)
        check_tree(self.host.tree)

    async def fill(self, uuid: str = FIRST, adapters: str = "", domains: str = "") -> None:
        for what, numbers in (("adapter", adapters), ("domain", domains)):
            for number in numbers.split():
                await self.write(f"assign_{what}", number, uuid)

    async def read(self, name: str = "matrix", uuid: str = FIRST) -> str:
        return await self.sys.read(f"{PARENT}/{uuid}/{name}")

    async def refused(self, name: str, data: str | bytes, uuid: str = FIRST) -> tuple[int, str]:
        """The errno of a write and its code, which has a page. Nothing changes."""
        before = [await self.read(one, uuid) for one in ("matrix", "control_domains", "guest_matrix")]
        with pytest.raises(OSError) as caught:
            await self.sys.write(f"{PARENT}/{uuid}/{name}", data)
        assert before == [await self.read(one, uuid) for one in ("matrix", "control_domains", "guest_matrix")]
        check_tree(self.host.tree)
        refusal = caught.value.__cause__
        assert isinstance(refusal, Refused)
        assert refusal.code in PAGES
        return refusal.errno, refusal.code

    def driver(self, queue: str) -> str:
        path = f"devices/ap/card{queue[:2]}/{queue}/driver"
        return os.path.basename(self.sys.readlink(path)) if self.sys.exists(path) else ""


async def machine(settings: str | None = None, kernel: str = "6.12") -> Machine:
    """The shipped host, or one with these settings."""
    if settings is None:
        return Machine(await load("vfio-ap"))
    text = f'[host]\nkernel = "{kernel}"\n[[device]]\ndriver = "vfio_ap"\nsettings = {{ {settings} }}\n'
    return Machine(await host_of(text))


# -- the parent and its type


async def test_the_parent() -> None:
    one = await machine()
    assert one.sys.readlink("class/mdev_bus/matrix") == f"../../{PARENT}"
    assert os.path.basename(one.sys.readlink(f"{PARENT}/driver")) == "vfio_ap"
    assert one.sys.readlink(f"{PARENT}/subsystem") == "../../../bus/matrix"
    assert one.sys.list("bus/matrix/drivers/vfio_ap") == ["matrix", "uevent"]
    assert await one.sys.read(f"{PARENT}/features") == "guest_matrix hotplug ap_config\n"
    assert [one.driver(f"{card}.0047") for card in ("05", "06", "08")] == ["vfio_ap"] * 3
    assert [one.driver(f"{card}.00ff") for card in ("05", "06", "08")] == ["vfio_ap", "vfio_ap", "cex4queue"]
    check_tree(one.host.tree)


@pytest.mark.parametrize("kernel", ["6.1", "6.12"])
async def test_the_type(kernel: str) -> None:
    one = await machine("", kernel)
    assert one.sys.list(f"{PARENT}/mdev_supported_types") == ["vfio_ap-passthrough"]
    files = {"available_instances", "create", "device_api", "devices", "name"}
    assert {name for name in one.sys.list(TYPE) if name != "mdevfs"} == files  # no description, no migration_version
    assert await one.sys.read(f"{TYPE}/name") == "VFIO AP Passthrough Device\n"
    assert await one.sys.read(f"{TYPE}/device_api") == "vfio-ap\n"
    assert await one.sys.read(f"{TYPE}/available_instances") == "65536\n"
    await one.create()
    assert await one.sys.read(f"{TYPE}/available_instances") == "65535\n"
    await one.sys.write(f"{PARENT}/{FIRST}/remove", "1")
    assert await one.sys.read(f"{TYPE}/available_instances") == "65536\n"
    check_tree(one.host.tree)


async def test_the_core_counts_the_instances(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VfioAp, "max_instances", 1)
    one = await machine()
    await one.create()
    with pytest.raises(OSError) as caught:
        await one.create(SECOND)
    assert caught.value.errno == errno.EUSERS
    assert await one.sys.read(f"{TYPE}/available_instances") == "0\n"


@pytest.mark.parametrize(("kernel", "config"), [("6.1", False), ("6.12", True)])
async def test_the_attributes_of_an_mdev(kernel: str, config: bool) -> None:
    one = await machine("", kernel)
    await one.create()
    modes = dict.fromkeys(WRITES, 0o200) | dict.fromkeys(("control_domains", "matrix", "guest_matrix"), 0o444)
    if config:
        modes["ap_config"] = 0o644
    path = f"{PARENT}/{FIRST}"
    found = {name: stat.S_IMODE(one.sys.tree.walk(f"{path}/{name}").mode) for name in modes}
    assert found == modes
    assert one.sys.exists(f"{path}/ap_config") is config
    assert one.sys.exists(f"{PARENT}/features") is config
    assert not one.sys.exists(f"{path}/migration_version")
    assert os.path.basename(one.sys.readlink(f"{path}/driver")) == "vfio_ap_mdev"
    assert [await one.read(name) for name in ("matrix", "control_domains", "guest_matrix")] == [""] * 3
    check_tree(one.host.tree)


# -- what is written


@pytest.mark.parametrize(("written", "reads"), [("4", "04."), ("0x4", "04."), ("04\n", "04."), ("010", "08.")])
async def test_numbers_in_any_base(written: str, reads: str) -> None:
    one = await machine("")
    await one.create()
    await one.write("assign_adapter", written)
    assert await one.read() == f"{reads}\n"
    await one.write("unassign_adapter", written)
    assert await one.read() == ""


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize(
    ("written", "code"),
    [
        ("four", errno.EINVAL),
        ("4\n\n", errno.EINVAL),
        ("-1", errno.EINVAL),
        (b"\xff\n", errno.EINVAL),
        ("0x10000000000000000", errno.ERANGE),
    ],
)
async def test_no_numbers(name: str, written: str | bytes, code: int) -> None:
    one = await machine("")
    await one.create()
    assert await one.refused(name, written) == (code, "vfio-ap-not-a-number")


@pytest.mark.parametrize(
    ("settings", "adapters", "domains"),
    [("", 63, 15), ("max_adapter_id = 255, max_domain_id = 255", 255, 255), ("max_domain_id = 84", 63, 84)],
)
async def test_above_the_maximum(settings: str, adapters: int, domains: int) -> None:
    one = await machine(", ".join(filter(None, ("aqmask = '0x0'", settings))))
    await one.create()
    assert await one.sys.read("bus/ap/ap_max_adapter_id") == f"{adapters}\n"
    assert await one.sys.read("bus/ap/ap_max_domain_id") == f"{domains}\n"
    for name in WRITES:
        limit, what = (adapters, "adapter") if name.endswith("adapter") else (domains, "domain")
        await one.write(name, str(limit))
        assert await one.refused(name, str(limit + 1)) == (errno.ENODEV, f"vfio-ap-no-such-{what}")


async def test_again_is_success_even_where_ownership_has_changed() -> None:
    one = await machine()
    await one.create()
    await one.fill(adapters="5", domains="4")
    for name in ("assign_adapter", "assign_domain", "unassign_control_domain"):
        await one.write(name, "5" if name == "assign_adapter" else "4")
    await one.write("assign_control_domain", "4")
    await one.write("assign_control_domain", "4")
    assert [await one.read(), await one.read("control_domains")] == ["05.0004\n", "0004\n"]


async def test_a_queue_that_the_host_keeps() -> None:
    one = await machine()
    await one.create()
    await one.fill(adapters="8", domains="4")
    assert await one.refused("assign_domain", "0xff") == (errno.EADDRNOTAVAIL, "vfio-ap-reserved")
    await one.write("unassign_adapter", "8")
    await one.fill(adapters="5", domains="0xff")
    # One queue of the whole matrix is enough, whichever attribute completes it.
    assert await one.refused("assign_adapter", "8") == (errno.EADDRNOTAVAIL, "vfio-ap-reserved")
    await one.sys.write("bus/ap/aqmask", "-0xff")
    await one.write("assign_adapter", "8")
    assert await one.read() == "05.0004\n05.00ff\n08.0004\n08.00ff\n"


async def test_a_queue_of_another_mdev(caplog: pytest.LogCaptureFixture) -> None:
    one = await machine()
    await one.create()
    await one.create(SECOND)
    await one.fill(FIRST, "5 6", "4")
    await one.fill(SECOND, "6", "0x47")
    with caplog.at_level(logging.INFO, "mdevfs.vendor"):
        assert await one.refused("assign_domain", "4", SECOND) == (errno.EADDRINUSE, "vfio-ap-in-use")
    assert [record.getMessage() for record in caplog.records] == [
        f"mdev {SECOND}: queue 06.0004 is assigned to mdev {FIRST}"
    ]
    await one.write("unassign_adapter", "6")
    await one.write("assign_domain", "4", SECOND)
    assert await one.read(uuid=SECOND) == "06.0004\n06.0047\n"


async def test_the_queues_of_a_removed_mdev_are_free() -> None:
    one = await machine()
    for uuid in (FIRST, SECOND):
        await one.create(uuid)
    await one.fill(FIRST, "5", "4")
    await one.fill(SECOND, "5")
    assert (await one.refused("assign_domain", "4", SECOND))[0] == errno.EADDRINUSE
    await one.sys.write(f"{PARENT}/{FIRST}/remove", "1")
    check_tree(one.host.tree)
    await one.write("assign_domain", "4", SECOND)
    # An mdev unbound from its driver has no attributes and holds nothing.
    await one.sys.write("bus/mdev/drivers/vfio_ap_mdev/unbind", SECOND)
    assert not one.sys.exists(f"{PARENT}/{SECOND}/matrix")
    check_tree(one.host.tree)
    await one.create(FIRST)
    await one.fill(FIRST, "5", "4")
    await one.sys.write(f"{PARENT}/{SECOND}/remove", "1")
    check_tree(one.host.tree)


async def test_never_refused_for_ownership() -> None:
    one = await machine("")  # everything is the host's
    for uuid in (FIRST, SECOND):
        await one.create(uuid)
        await one.write("assign_control_domain", "4", uuid)
        assert await one.read("control_domains", uuid) == "0004\n"
    await one.fill(FIRST, adapters="5 6")
    await one.fill(SECOND, domains="4 7")
    assert [await one.read(uuid=uuid) for uuid in (FIRST, SECOND)] == ["05.\n06.\n", ".0004\n.0007\n"]
    await one.write("unassign_adapter", "5")
    await one.write("unassign_domain", "4", SECOND)
    assert [await one.read(uuid=uuid) for uuid in (FIRST, SECOND)] == ["06.\n", ".0007\n"]


# -- what is read


async def test_matrix_and_guest_matrix() -> None:
    one = await machine()
    await one.create()
    await one.sys.write("bus/ap/aqmask", "-9")
    await one.fill(adapters="6 5 7", domains="0xab 4 9")
    whole = [f"{adapter:02x}.{domain:04x}" for adapter in (5, 6, 7) for domain in (4, 9, 0xAB)]
    assert (await one.read()).splitlines() == whole
    # Without adapter 7 and domain 9, which the host does not have.
    assert (await one.read("guest_matrix")).splitlines() == ["05.0004", "05.00ab", "06.0004", "06.00ab"]
    await one.sys.write("bus/ap/drivers/vfio_ap/unbind", "06.00ab")
    assert (await one.read("guest_matrix")).splitlines() == ["05.0004", "05.00ab"]
    assert (await one.read()).splitlines() == whole
    await one.sys.write("bus/ap/drivers/vfio_ap/bind", "06.00ab")
    assert len((await one.read("guest_matrix")).splitlines()) == 4
    check_tree(one.host.tree)


async def test_control_domains() -> None:
    one = await machine()
    await one.create()
    for number in ("0xab", "0", "9"):
        await one.write("assign_control_domain", number)
    assert await one.read("control_domains") == "0000\n0009\n00ab\n"
    await one.write("unassign_control_domain", "9")
    assert await one.read("control_domains") == "0000\n00ab\n"


# -- ap_config


async def test_ap_config() -> None:
    one = await machine()
    await one.create()
    zeros = "0x" + "0" * 64
    assert await one.read("ap_config") == f"{zeros},{zeros},{zeros}\n"
    await one.write("ap_config", "0x06,0x08,0x80\n")
    assert [await one.read(), await one.read("control_domains")] == ["05.0004\n06.0004\n", "0000\n"]
    text = await one.read("ap_config")
    assert text == f"0x06{'0' * 62},0x08{'0' * 62},0x80{'0' * 62}\n"
    await one.write("ap_config", text)
    assert await one.read("ap_config") == text


@pytest.mark.parametrize("written", ["0x04", "0x04,0x08", "junk", "0x04,0x08,0xg", "0x" + "0" * 65 + ",0,0"])
async def test_ap_config_junk(written: str) -> None:
    one = await machine()
    await one.create()
    await one.fill(adapters="5", domains="4")
    assert await one.refused("ap_config", written) == (errno.EINVAL, "vfio-ap-malformed-masks")


async def test_ap_config_asks_for_ownership_before_the_maximum() -> None:
    one = await machine("apmask = '-5,-6'")
    for uuid in (FIRST, SECOND):
        await one.create(uuid)
    await one.fill(SECOND, "6", "4")
    beyond, domain = "0" * 16 + "8", "0x08"  # adapter 64
    for adapters, expected in (
        ("0x07" + beyond[2:], (errno.EADDRNOTAVAIL, "vfio-ap-reserved")),
        ("0x02", (errno.EADDRINUSE, "vfio-ap-in-use")),
    ):
        assert await one.refused("ap_config", f"{adapters},{domain},0") == expected
    assert await one.refused("ap_config", f"0x{beyond},0,0") == (errno.ENODEV, "vfio-ap-no-such-adapter")
    assert await one.refused("ap_config", "0,0x00008,0") == (errno.ENODEV, "vfio-ap-no-such-domain")
    assert await one.refused("ap_config", "0,0,0x00008") == (errno.ENODEV, "vfio-ap-no-such-domain")


# -- around it


async def test_the_masks_do_not_take_back_what_an_mdev_holds() -> None:
    one = await machine()
    await one.create()
    path = "devices/ap/card05/05.0004"
    assert await one.sys.read(f"{path}/status") == "unassigned\n"
    await one.fill(adapters="5", domains="4")
    assert await one.sys.read(f"{path}/status") == "assigned\n"
    await one.sys.write("bus/ap/apmask", "+5")  # its domain is still no default one
    with pytest.raises(OSError) as caught:
        await one.sys.write("bus/ap/aqmask", "+4")
    assert caught.value.errno == errno.EBUSY
    assert one.driver("05.0004") == "vfio_ap"
    await one.write("unassign_domain", "4")
    await one.sys.write("bus/ap/aqmask", "+4")
    assert one.driver("05.0004") == "cex4queue"
    check_tree(one.host.tree)


@pytest.mark.parametrize(("kernel", "code"), [("5.19", errno.EBUSY), ("6.1", 0), ("6.12", 0)])
async def test_hot_plug_came_with_6_0(kernel: str, code: int) -> None:
    one = await machine("apmask = '-5'", kernel)
    await one.create()
    mdev = one.host.mdev.bus.devices[FIRST]
    assert isinstance(mdev, Mdev)
    mdev.data.open("vm1")  # type: ignore[attr-defined]
    if code:
        assert await one.refused("assign_adapter", "5") == (code, "vfio-ap-guest-fixed")
    else:
        await one.write("assign_adapter", "5")


async def test_mistakes_in_the_settings_are_told_at_once() -> None:
    with pytest.raises(InputError) as caught:
        await machine("apmask = 'five', cards = [{ adapter = 64, domains = [16] }, { adapter = 5 }, { adapter = 5 }]")
    mask = "up to 64 hex digits, bit 0 leftmost, or changes to all ones such as -5,-0x10"
    assert caught.value.mistakes == [
        f'host.toml: device[0]: apmask "five" is not a mask: {mask}',
        "host.toml: device[0]: adapter 0x40 is not in 0x0 to 0x3f",
        "host.toml: device[0]: domain 0x10 is not in 0x0 to 0xf",
        "host.toml: device[0]: adapter 0x5 is there twice",
    ]
    with pytest.raises(InputError) as caught:
        await machine("cards = [{ adaptor = 5 }]")
    assert 'device[0].settings.cards[0].adaptor: unknown key, did you mean "adapter"?' in str(caught.value)
    with pytest.raises(InputError, match='"matrix" is taken'):
        await host_of('[[device]]\ndriver = "vfio_ap"\n' * 2)


async def test_only_a_matrix_has_an_ap_host() -> None:
    from mdevfs.vendor import ap_host

    host = await host_of(MTTY_AND_MDPY)
    with pytest.raises(TypeError, match="mtty is not the AP matrix"):
        ap_host(host.mdev.parents["mtty"])
