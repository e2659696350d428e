"""Subchannels: their files, events and drivers (sources: css.c, cio.c, vfio_ccw_drv.c)."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from mdevfs.bus.core import Core
from mdevfs.bus.css import CssCore, CssDriver, Subchannel, SubchannelIdentity, VfioCcw
from mdevfs.bus.kernel import Kernel
from mdevfs.errors import InputError, KernelError
from mdevfs.events.stream import Event
from tests.support import InProcess, check_tree

ADDRESS = "0.0.0313"
PATH = f"devices/css0/{ADDRESS}"
IO = "bus/css/drivers/io_subchannel"
CCW = "bus/css/drivers/vfio_ccw"


class Host:
    """A channel subsystem, a client, and what was announced."""

    def __init__(self, kernel: str = "6.1") -> None:
        self.core = Core(Kernel.parse(kernel))
        self.css = CssCore(self.core)
        self.sys = InProcess(self.core.tree)
        self.events: list[Event] = []
        self.core.events.listeners.append(self.events.append)
        self.calls: list[str] = []

    def load_vfio_ccw(self, refuse: int = 0) -> CssDriver:
        async def probe(subchannel: Subchannel) -> None:
            self.calls.append(f"probe {subchannel.name}")
            if refuse:
                raise KernelError(refuse)

        async def remove(subchannel: Subchannel) -> None:
            self.calls.append(f"remove {subchannel.name}")

        driver = VfioCcw(self.css, probe, remove)
        self.css.bus.add_driver(driver)
        return driver

    def driver(self) -> str:
        return os.path.basename(self.sys.readlink(f"{PATH}/driver")) if self.sys.exists(f"{PATH}/driver") else ""


async def refused(host: Host, path: str, data: str | bytes) -> int:
    with pytest.raises(OSError) as caught:
        await host.sys.write(path, data)
    assert caught.value.errno is not None
    return caught.value.errno


async def test_files_and_modes() -> None:
    host = Host()
    await host.css.add(ADDRESS, SubchannelIdentity((0x30, 0x31, 0x32, 0x33), dev_busid="0.0.1234"))
    expected = {
        "type": (0o444, "0\n"),
        "modalias": (0o444, "css:t0\n"),
        "chpids": (0o444, "30 31 32 33 00 00 00 00 \n"),
        "pimpampom": (0o444, "f0 f0 ff\n"),
        "dev_busid": (0o444, "0.0.1234\n"),
        "driver_override": (0o644, "(null)\n"),
        "uevent": (0o644, "DRIVER=io_subchannel\nST=0\nMODALIAS=css:t0\n"),
    }
    for name, (mode, text) in expected.items():
        assert await host.sys.read(f"{PATH}/{name}") == text, name
        assert stat.S_IMODE(host.sys.tree.walk(f"{PATH}/{name}").mode) == mode, name
    assert host.sys.list("devices/css0") == [ADDRESS, "power", "uevent"]
    assert host.sys.readlink(f"bus/css/devices/{ADDRESS}") == f"../../../devices/css0/{ADDRESS}"
    assert host.sys.readlink(f"{PATH}/subsystem") == "../../../bus/css"
    check_tree(host.core.tree)


async def test_paths_outside_the_mask_read_00_and_no_device_reads_none() -> None:
    host = Host()
    await host.css.add(ADDRESS, SubchannelIdentity((0x30, 0x31, 0xF2), pim=0xA0, pam=0x80, pom=0x7F))
    assert await host.sys.read(f"{PATH}/chpids") == "30 00 f2 00 00 00 00 00 \n"
    assert await host.sys.read(f"{PATH}/pimpampom") == "a0 80 7f\n"
    assert await host.sys.read(f"{PATH}/dev_busid") == "none\n"


async def test_events_of_coming_and_going() -> None:
    host = Host()
    subchannel = await host.css.add(ADDRESS, SubchannelIdentity())
    await host.css.remove(subchannel)
    keys = {"ST": "0", "MODALIAS": "css:t0"}
    bound = {"DRIVER": "io_subchannel"} | keys
    assert [(e.action, e.devpath, e.subsystem, list(e.keys.items())) for e in host.events] == [
        ("add", f"/{PATH}", "css", list(keys.items())),
        ("bind", f"/{PATH}", "css", list(bound.items())),
        ("unbind", f"/{PATH}", "css", [("ST", "0")]),
        ("remove", f"/{PATH}", "css", list(keys.items())),
    ]
    assert not host.sys.exists(PATH)
    assert not host.sys.exists(f"bus/css/devices/{ADDRESS}")
    check_tree(host.core.tree)


async def test_the_documented_way_to_vfio_ccw() -> None:
    host = Host()
    host.load_vfio_ccw()
    await host.css.add(ADDRESS, SubchannelIdentity())
    assert host.driver() == "io_subchannel"
    await host.sys.write(f"{IO}/unbind", ADDRESS)
    assert host.driver() == ""
    await host.sys.write(f"{PATH}/driver_override", "vfio_ccw\n")
    assert await host.sys.read(f"{PATH}/driver_override") == "vfio_ccw\n"
    assert await refused(host, f"{IO}/bind", ADDRESS) == errno.ENODEV
    await host.sys.write("bus/css/drivers_probe", ADDRESS)
    assert host.driver() == "vfio_ccw"
    assert host.sys.readlink(f"{CCW}/module") == "../../../../module/vfio_ccw"
    assert host.calls == [f"probe {ADDRESS}"]
    assert await refused(host, f"{CCW}/bind", ADDRESS) == errno.EBUSY
    await host.sys.write(f"{CCW}/unbind", ADDRESS)
    assert host.calls == [f"probe {ADDRESS}", f"remove {ADDRESS}"]
    assert await refused(host, f"{CCW}/unbind", ADDRESS) == errno.ENODEV
    check_tree(host.core.tree)


async def test_without_override_bind_reaches_vfio_ccw_and_drivers_probe_the_first_driver() -> None:
    host = Host()
    host.load_vfio_ccw()
    await host.css.add(ADDRESS, SubchannelIdentity())
    await host.sys.write(f"{IO}/unbind", ADDRESS)
    await host.sys.write("bus/css/drivers_probe", ADDRESS)
    assert host.driver() == "io_subchannel"
    await host.sys.write(f"{IO}/unbind", ADDRESS)
    await host.sys.write(f"{CCW}/bind", ADDRESS)
    assert host.driver() == "vfio_ccw"


async def test_a_described_driver_binds_at_once() -> None:
    host = Host()
    host.load_vfio_ccw()
    await host.css.add(ADDRESS, SubchannelIdentity(), driver_override="vfio_ccw")
    assert host.driver() == "vfio_ccw"


async def test_override_only() -> None:
    host = Host()
    host.css.bus.add_driver(CssDriver("shy", host.css.bus, override_only=True))
    await host.css.add(ADDRESS, SubchannelIdentity())
    await host.sys.write(f"{IO}/unbind", ADDRESS)
    assert await refused(host, "bus/css/drivers/shy/bind", ADDRESS) == errno.ENODEV
    await host.sys.write(f"{PATH}/driver_override", "shy")
    await host.sys.write("bus/css/drivers/shy/bind", ADDRESS)
    assert host.driver() == "shy"


async def test_autoprobe_off_leaves_new_subchannels_unbound() -> None:
    host = Host()
    await host.sys.write("bus/css/drivers_autoprobe", "0")
    await host.css.add(ADDRESS, SubchannelIdentity())
    assert host.driver() == ""


async def test_a_qdio_subchannel_stays_unbound() -> None:
    host = Host("6.12")
    host.load_vfio_ccw()
    await host.css.add(ADDRESS, SubchannelIdentity(qdio=True))
    await host.sys.write(f"{IO}/unbind", ADDRESS)
    assert await refused(host, f"{CCW}/bind", ADDRESS) == errno.ENODEV
    assert (host.driver(), host.calls) == ("", [])
    assert not host.sys.exists(f"{PATH}/parent")


async def test_a_refused_probe_leaves_nothing() -> None:
    host = Host("6.12")
    host.load_vfio_ccw(refuse=errno.EINVAL)
    await host.css.add(ADDRESS, SubchannelIdentity())
    await host.sys.write(f"{IO}/unbind", ADDRESS)
    before = len(host.events)
    assert await refused(host, f"{CCW}/bind", ADDRESS) == errno.EINVAL
    assert host.driver() == ""
    assert not host.sys.exists(f"{PATH}/parent")
    assert host.events[before:] == []
    check_tree(host.core.tree)


@pytest.mark.parametrize(("kernel", "there"), [("6.1", False), ("6.2", True), ("6.12", True)])
async def test_the_child_named_parent(kernel: str, there: bool) -> None:
    host = Host(kernel)
    host.load_vfio_ccw()
    subchannel = await host.css.add(ADDRESS, SubchannelIdentity(), driver_override="vfio_ccw")
    assert host.sys.exists(f"{PATH}/parent") is there
    if there:
        assert host.sys.list(f"{PATH}/parent") == ["power", "uevent"]
        seen = len(host.events)
        await host.sys.write(f"{PATH}/parent/uevent", "change")
        assert await refused(host, f"{PATH}/parent/uevent", "nonsense") == errno.EINVAL
        assert host.events[seen:] == []
    check_tree(host.core.tree)
    await host.sys.write(f"{CCW}/unbind", ADDRESS)
    assert not host.sys.exists(f"{PATH}/parent")
    await host.css.remove(subchannel)
    check_tree(host.core.tree)


@pytest.mark.parametrize(
    ("written", "reads"),
    [
        ("vfio_ccw", "vfio_ccw\n"),
        ("vfio_ccw\nrest", "vfio_ccw\n"),
        ("no_such_driver\n", "no_such_driver\n"),
        (b"vfio_ccw\0rest", "vfio_ccw\n"),
        ("\n", "(null)\n"),
        (b"\0", "(null)\n"),
        ("x" * 4094, "x" * 4094 + "\n"),
    ],
)
async def test_driver_override_texts(written: str | bytes, reads: str) -> None:
    host = Host()
    await host.css.add(ADDRESS, SubchannelIdentity())
    await host.sys.write(f"{PATH}/driver_override", "before")
    assert await host.sys.write(f"{PATH}/driver_override", written) == len(written)
    assert await host.sys.read(f"{PATH}/driver_override") == reads
    assert host.driver() == "io_subchannel"


async def test_a_driver_override_too_long() -> None:
    host = Host()
    await host.css.add(ADDRESS, SubchannelIdentity())
    assert await refused(host, f"{PATH}/driver_override", "x" * 4095) == errno.EINVAL
    assert await host.sys.read(f"{PATH}/driver_override") == "(null)\n"


async def test_all_mistakes_at_once() -> None:
    host = Host()
    await host.css.add(ADDRESS, SubchannelIdentity())
    with pytest.raises(InputError) as caught:
        await host.css.add(ADDRESS, SubchannelIdentity((0x100,) * 9, pim=-1, pom=256, dev_busid="1234"))
    text = str(caught.value)
    for part in ("0.0.0313", "1234", "9 entries", "0x100", "pim -0x1", "pom 0x100"):
        assert part in text
    for address in ("0.4.0000", "0.0.000G", "0.0.00001", "313", "0.0.ABCD"):
        with pytest.raises(InputError, match=address):
            await host.css.add(address, SubchannelIdentity())
    assert host.sys.list("bus/css/devices") == [ADDRESS]


async def test_device_number_unknown_to_the_bus() -> None:
    host = Host()
    for path in (f"{IO}/bind", f"{IO}/unbind", "bus/css/drivers_probe"):
        assert await refused(host, path, "0.0.ffff") == errno.ENODEV
