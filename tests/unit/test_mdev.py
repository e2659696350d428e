"""create, remove, unbind: as recorded on Linux 6.1 with mtty and mdpy, and the order of the events."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from mdevfs.events import Event
from mdevfs.host.host import Host
from tests.support import InProcess, check_tree, host_of

UUID = "a1b2c3d4-0001-4abc-8def-0123456789ab"
UUID2 = "a2b2c3d4-0002-4abc-8def-0123456789ab"
MTTY, MDPY = "devices/virtual/mtty/mtty", "devices/virtual/mdpy/mdpy"
T1, T2 = (f"{MTTY}/mdev_supported_types/mtty-{number}" for number in (1, 2))
HD, VGA = (f"{MDPY}/mdev_supported_types/mdpy-{name}" for name in ("hd", "vga"))
DEVICES = "bus/mdev/devices"


class Sys(InProcess):
    """The two samples' host, and what it announced since `heard` was emptied."""

    def __init__(self, host: Host) -> None:
        super().__init__(host.tree)
        self.host = host
        self.heard: list[Event] = []
        host.core.events.listeners.append(self.heard.append)

    async def create(self, type: str, uuid: str) -> int:
        return await self.write(f"{type}/create", uuid)

    async def refused(self, path: str, data: str | bytes) -> int:
        """The errno of a write that changes nothing."""
        before = self.state()
        with pytest.raises(OSError) as caught:
            await self.write(path, data)
        assert self.state() == before
        check_tree(self.tree)
        assert caught.value.errno is not None
        return caught.value.errno

    def state(self) -> list[str]:
        return [path for path, _ in self.tree.everything()]

    async def room(self) -> tuple[int, int]:
        """Of mtty-1 and mtty-2."""
        return int(await self.read(f"{T1}/available_instances")), int(await self.read(f"{T2}/available_instances"))

    async def fill(self, type: str, count: int) -> None:
        for uuid in fresh(count):
            await self.create(type, uuid)

    def told(self) -> list[tuple[str, str, str, dict[str, str]]]:
        """Action, last part of the path, subsystem, keys."""
        events, self.heard[:] = list(self.heard), []
        return [(e.action, e.devpath.rpartition("/")[2], e.subsystem, e.keys) for e in events]


def fresh(count: int) -> Iterator[str]:
    return (f"facade00-0000-4000-8000-{number:012x}" for number in range(count))


async def samples() -> Sys:
    return Sys(await host_of())


# -- create


@pytest.mark.parametrize(
    ("written", "name"),
    [
        *((UUID + tail, UUID) for tail in ("", "\n", " ", "x", "0", "\0", "\r", "\xff")),
        (UUID.upper(), UUID),
        (UUID.upper() + "\n", UUID),
        ("a1b2c3d4-0001-4ABC-8DEF-0123456789AB", UUID),
        ("00000000-0000-0000-0000-000000000000", "00000000-0000-0000-0000-000000000000"),
        ("FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF", "ffffffff-ffff-ffff-ffff-ffffffffffff"),
        ("12345678-9abc-0def-0123-456789abcdef", "12345678-9abc-0def-0123-456789abcdef"),
    ],
)
async def test_create(written: str, name: str) -> None:
    sys = await samples()
    assert await sys.write(f"{T1}/create", written.encode("latin-1")) == len(written)
    assert sys.list(DEVICES) == [name]
    assert await sys.room() == (23, 11)
    check_tree(sys.tree)


@pytest.mark.parametrize(
    "written",
    [
        *(UUID + tail for tail in ("\r\n", "\n\n", " \n", "\0\0", "ab", f"\n{UUID2}\n")),
        *(UUID + "\n" * count for count in (4059, 4060, 4061, 8156)),
        *(head + UUID for head in (" ", "\n", "{", "urn:uuid:")),
        *(
            " " + UUID[:-1],
            "{" + UUID + "}",
            UUID[:-1],
            UUID[:-1] + "\n",
            UUID.replace("-", ""),
            UUID.replace("-", "_"),
        ),
        *(
            "0123456789abcdef0123456789abcdef0123",
            "a1b2c3d-40001-4abc-8def-0123456789ab",
            UUID[:-1] + "g",
            "g" + UUID[1:],
        ),
        *("z" * 36, "-" * 36, " " * 36, "\0" * 36, "+" + UUID[1:], "0x" + UUID[2:], "\n", "\0", "hello\n"),
        *(UUID[:20] + byte + UUID[21:] for byte in "\0\n"),
    ],
)
async def test_create_of_what_is_no_uuid(written: str) -> None:
    sys = await samples()
    assert await sys.refused(f"{T1}/create", written) == errno.EINVAL
    assert sys.told() == []


async def test_create_of_nothing_does_nothing() -> None:
    sys = await samples()
    assert await sys.create(T1, "") == 0
    assert (sys.list(DEVICES), sys.told()) == ([], [])


async def test_two_uuids_on_one_descriptor_and_one_in_two_pieces() -> None:
    sys = await samples()
    file = await sys.open(f"{T1}/create", 1)
    assert [await file.write(offset, uuid.encode()) for offset, uuid in ((0, UUID), (77, UUID2))] == [36, 36]
    assert sys.list(DEVICES) == [UUID, UUID2]
    for piece in (UUID[:18], UUID[18:]):
        assert await sys.refused(f"{T1}/create", piece) == errno.EINVAL


@pytest.mark.parametrize("type", [T1, T2, HD])
@pytest.mark.parametrize("written", [UUID, UUID.upper(), UUID + "\n"])
async def test_a_uuid_is_taken_on_every_parent(type: str, written: str) -> None:
    sys = await samples()
    await sys.create(T1, UUID)
    sys.told()
    assert await sys.refused(f"{type}/create", written) == errno.EEXIST
    assert sys.told() == []


async def test_what_a_new_mdev_shows() -> None:
    sys = await samples()
    await sys.create(T1, UUID)
    mdev = f"{DEVICES}/{UUID}"
    assert sys.readlink(mdev) == f"../../../devices/virtual/mtty/mtty/{UUID}"
    assert sys.readlink(f"{mdev}/mdev_type") == "../mdev_supported_types/mtty-1"
    assert sys.readlink(f"{T1}/devices/{UUID}") == f"../../../{UUID}"
    assert sys.readlink(f"{mdev}/driver") == "../../../../../bus/mdev/drivers/mtty"
    assert sys.readlink(f"{mdev}/iommu_group") == "../../../../../kernel/iommu_groups/0"
    assert sys.readlink(f"{mdev}/vfio-dev/vfio0/device") == f"../../../{UUID}"
    assert await sys.read(f"{mdev}/uevent") == "DRIVER=mtty\n"
    assert await sys.read(f"{mdev}/vendor/sample_mdev_dev") == f"This is MDEV {UUID}\n"
    assert await sys.read("kernel/iommu_groups/0/name") == "vfio-noiommu\n"
    assert not sys.exists(f"{MTTY}/{UUID.upper()}")
    with pytest.raises(PermissionError):
        await sys.read(f"{T1}/create")


# -- room


@pytest.mark.parametrize(("type", "count"), [(T1, 24), (T2, 12)])
async def test_the_drivers_count_is_enospc_with_events(type: str, count: int) -> None:
    sys = await samples()
    await sys.fill(type, count)
    assert await sys.room() == (0, 0)
    sys.told()
    assert await sys.refused(f"{T1}/create", UUID) == errno.ENOSPC
    assert sys.told() == [("add", UUID, "mdev", {}), ("remove", UUID, "mdev", {})]
    assert await sys.refused(f"{T1}/create", next(fresh(1))) == errno.EEXIST
    assert await sys.refused(f"{T1}/create", "junk") == errno.EINVAL
    await sys.write(f"{DEVICES}/{next(fresh(1))}/remove", "1")
    assert await sys.create(type, UUID) == 36
    check_tree(sys.tree)


async def test_the_cores_count_is_eusers_without_events() -> None:
    sys = await samples()
    await sys.fill(HD, 2)
    await sys.create(VGA, UUID)
    await sys.create(VGA, UUID2)
    assert await sys.read(f"{HD}/available_instances") == await sys.read(f"{VGA}/available_instances") == "0\n"
    sys.told()
    assert await sys.refused(f"{HD}/create", UUID[:-1] + "c") == errno.EUSERS
    assert sys.told() == []
    assert await sys.refused(f"{HD}/create", UUID) == errno.EEXIST
    assert await sys.refused(f"{HD}/create", "junk") == errno.EINVAL


async def test_types_share_the_pool_by_weight() -> None:
    sys = await samples()
    await sys.create(T1, UUID)
    assert await sys.room() == (23, 11)
    await sys.create(T2, UUID2)
    assert await sys.room() == (21, 10)
    await sys.write(f"{DEVICES}/{UUID}/remove", "1")
    assert await sys.room() == (22, 11)
    await sys.write(f"{DEVICES}/{UUID2}/remove", "1")
    assert await sys.room() == (24, 12)


async def test_numbers_are_the_lowest_free_ones() -> None:
    sys = await samples()
    uuids = list(fresh(5))
    for uuid in uuids[:4]:
        await sys.create(T1, uuid)
    for index in (2, 0):
        await sys.write(f"{DEVICES}/{uuids[index]}/remove", "1")
    for index, number in ((4, 0), (0, 2), (2, 4)):
        await sys.create(T1, uuids[index])
        mdev = f"{DEVICES}/{uuids[index]}"
        assert sys.readlink(f"{mdev}/iommu_group").rpartition("/")[2] == str(number)
        assert sys.list(f"{mdev}/vfio-dev") == [f"vfio{number}"]
        assert await sys.read(f"devices/virtual/vfio/{number}/dev") == f"246:{number}\n"
    check_tree(sys.tree)


# -- remove

YES = ["1", "1\n", "2", "255\n", "1\0", "1\0xyz", "0x1", "0X1\n", "01", "010", "+1", "+1\n", "0" * 4095 + "1"]
NO = ["", "0", "0\n", "0x0", "+0", *("0" * count for count in (4095, 4096, 4097, 9000)), "0" * 4096 + "1"]


@pytest.mark.parametrize(
    ("written", "goes"),
    [*((text, True) for text in (*YES, str(2**64 - 1), hex(2**64 - 1))), *((text, False) for text in NO)],
)
async def test_remove(written: str, goes: bool) -> None:
    sys = await samples()
    await sys.create(T1, UUID)
    sys.told()
    assert await sys.write(f"{DEVICES}/{UUID}/remove", written) == min(len(written), 4096)
    assert sys.exists(f"{MTTY}/{UUID}") is not goes
    assert await sys.room() == ((24, 12) if goes else (23, 11))
    assert bool(sys.told()) is goes
    check_tree(sys.tree)


@pytest.mark.parametrize(
    "written",
    [
        "abc",
        "\n",
        " 1",
        "1 ",
        "1\n\n",
        "1\nx",
        "0x",
        "08",
        "-1",
        "-0",
        str(2**64),
        "1abc",
        "yes",
        "Y",
        "true",
        "1.0",
        UUID,
    ],
)
async def test_remove_with_no_number(written: str) -> None:
    sys = await samples()
    await sys.create(T1, UUID)
    assert await sys.refused(f"{DEVICES}/{UUID}/remove", written) == errno.EINVAL


async def test_remove_once() -> None:
    sys = await samples()
    await sys.create(T1, UUID)
    one, two = await sys.open(f"{MTTY}/{UUID}/remove", 1), await sys.open(f"{DEVICES}/{UUID}/remove", 1)
    assert await one.write(0, b"1") == 1
    for path in (f"{MTTY}/{UUID}/remove", f"{DEVICES}/{UUID}/remove"):
        assert await sys.refused(path, "1") == errno.ENOENT
    await sys.create(T1, UUID)
    for file in (one, two):
        for data in (b"1", b"0", b""):
            with pytest.raises(Exception, match="No such device"):
                await file.write(0, data)
    assert sys.list(DEVICES) == [UUID]
    check_tree(sys.tree)


# -- events, in order


async def test_events_of_create_and_remove() -> None:
    sys = await samples()
    await sys.create(T1, UUID2)
    sys.told()
    await sys.create(T2, UUID)
    assert sys.told() == [
        ("add", UUID, "mdev", {}),
        ("add", "1", "vfio", {"MAJOR": "246", "MINOR": "1", "DEVNAME": "vfio/1"}),
        ("add", "vfio1", "vfio-dev", {}),
        ("bind", UUID, "mdev", {"DRIVER": "mtty"}),
    ]
    await sys.write(f"{DEVICES}/{UUID}/remove", "1")
    assert sys.told() == [
        ("remove", "vfio1", "vfio-dev", {}),
        ("remove", "1", "vfio", {"MAJOR": "246", "MINOR": "1", "DEVNAME": "vfio/1"}),
        ("unbind", UUID, "mdev", {}),
        ("remove", UUID, "mdev", {}),
    ]


async def test_events_of_a_parent_that_goes() -> None:
    sys = await samples()
    await sys.create(T1, UUID)
    sys.told()
    await sys.host.mdev.unregister_parent(sys.host.mdev.parents["mtty"])
    assert [event[:2] for event in sys.told()] == [
        ("remove", "vfio0"),
        ("remove", "0"),
        ("unbind", UUID),
        ("remove", UUID),
        ("change", "mtty"),
    ]
    assert not sys.exists(f"{MTTY}/mdev_supported_types")
    assert sys.list("class/mdev_bus") == ["mdpy"]
    check_tree(sys.tree)


# -- unbind and bind


async def test_unbind_leaves_the_mdev_and_gives_mttys_instance_back() -> None:
    sys = await samples()
    await sys.create(T1, UUID)
    sys.told()
    assert await sys.write("bus/mdev/drivers/mtty/unbind", UUID) == 36
    assert [event[:2] for event in sys.told()] == [("remove", "vfio0"), ("remove", "0"), ("unbind", UUID)]
    mdev = f"{MTTY}/{UUID}"
    assert not {"driver", "vendor", "iommu_group", "vfio-dev"} & set(sys.list(mdev))
    assert {"mdev_type", "remove", "power", "subsystem", "uevent"} <= set(sys.list(mdev))
    assert await sys.read(f"{mdev}/uevent") == ""
    assert await sys.refused(f"{T1}/create", UUID) == errno.EEXIST
    assert await sys.room() == (24, 12)
    await sys.fill(T1, 24)
    assert len(sys.list(DEVICES)) == 25
    assert await sys.refused(f"{T1}/create", UUID2) == errno.ENOSPC
    sys.told()
    await sys.write(f"{mdev}/remove", "1")
    assert sys.told() == [("remove", UUID, "mdev", {})]
    assert await sys.room() == (0, 0)
    check_tree(sys.tree)


async def test_unbind_keeps_mdpys_instance() -> None:
    sys = await samples()
    await sys.create(HD, UUID)
    await sys.write("bus/mdev/drivers/mdpy/unbind", UUID)
    assert await sys.read(f"{HD}/available_instances") == "3\n"
    await sys.fill(HD, 3)
    assert await sys.refused(f"{HD}/create", UUID2) == errno.EUSERS
    await sys.write(f"{MDPY}/{UUID}/remove", "1")
    assert await sys.read(f"{HD}/available_instances") == "1\n"
    check_tree(sys.tree)


NO_DEVICE = [UUID2, "\n", "nothing", UUID.upper(), UUID + " ", UUID[:-1], UUID + "\n\n", " " + UUID, UUID + "\r\n"]


@pytest.mark.parametrize("written", NO_DEVICE)
@pytest.mark.parametrize("name", ["drivers/mtty/bind", "drivers/mtty/unbind", "drivers/mdpy/unbind", "drivers_probe"])
async def test_names_that_are_no_device(name: str, written: str) -> None:
    sys = await samples()
    await sys.create(T1, UUID)
    assert await sys.refused(f"bus/mdev/{name}", written) == errno.ENODEV
    assert await sys.write(f"bus/mdev/{name}", "") == 0


@pytest.mark.parametrize("tail", ["", "\n", "\0", "\0junk"])
async def test_bind_is_enodev_for_ever(tail: str) -> None:
    sys = await samples()
    await sys.create(T1, UUID)
    assert await sys.refused("bus/mdev/drivers/mtty/bind", UUID) == errno.ENODEV
    assert await sys.write("bus/mdev/drivers/mtty/unbind", UUID + tail) == len(UUID + tail)
    for name in ("mtty", "mdpy"):
        assert await sys.refused(f"bus/mdev/drivers/{name}/bind", UUID) == errno.ENODEV
        assert await sys.refused(f"bus/mdev/drivers/{name}/unbind", UUID) == errno.ENODEV
    assert await sys.write("bus/mdev/drivers_probe", UUID) == 36
    assert not sys.exists(f"{MTTY}/{UUID}/driver")


async def test_drivers_autoprobe_and_probe() -> None:
    sys = await samples()
    for written, shown in (("0", 0), ("1", 1), ("0\n", 0), ("5", 1), ("0", 0), ("x", 1), ("0", 0), ("\n", 1), ("0", 0)):
        assert await sys.write("bus/mdev/drivers_autoprobe", written) == len(written)
        assert await sys.read("bus/mdev/drivers_autoprobe") == f"{shown}\n"
    await sys.create(T1, UUID)
    assert sys.exists(f"{MTTY}/{UUID}/driver")
    assert await sys.write("bus/mdev/drivers_probe", UUID + "\n") == 37
