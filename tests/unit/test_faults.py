"""Faults on purpose: what they do to reads, writes and hooks, how often, and how a host file asks for them."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from mdevfs.errors import InputError, KernelError
from mdevfs.host.faults import make_fault, own_path
from mdevfs.host.host import Host, load
from mdevfs.host.schema import FaultSection
from mdevfs.sysfs.entries import BinaryAttribute, Folder, WholeFile
from mdevfs.sysfs.faults import Fault, On
from mdevfs.sysfs.tree import Tree
from tests.support import InProcess, check_tree, host_of

UUID = "a1b2c3d4-0001-4abc-8def-0123456789ab"
MTTY = "devices/virtual/mtty/mtty"
TYPE = f"{MTTY}/mdev_supported_types/mtty-1"
AVAILABLE = f"{TYPE}/available_instances"


def fault(path: str, on: On = "read", **rest: object) -> Fault:
    return Fault(path, frozenset({on}), **rest)  # type: ignore[arg-type]


async def errno_of(call: Callable[[], object]) -> int:
    """The errno that an awaitable call fails with, 0 when it succeeds."""
    try:
        await call()  # type: ignore[misc]
    except OSError as error:
        return error.errno or -1
    return 0


class Sys(InProcess):
    """mtty's and mdpy's host with faults to set."""

    def __init__(self, host: Host) -> None:
        super().__init__(host.tree)
        self.host = host

    def set(self, path: str, on: On = "read", **rest: object) -> Fault:
        return self.tree.faults.add(fault(path, on, **rest))

    async def reads(self, path: str, times: int) -> list[str]:
        """What so many reads give: the text, or the errno's name."""
        found = []
        for _ in range(times):
            try:
                found.append(await self.read(path))
            except OSError as error:
                found.append(errno.errorcode[error.errno or 0])
        return found


@pytest.fixture
async def sys() -> Sys:
    return Sys(await host_of())


# -- attributes


async def test_a_read_fails_so_many_times_and_then_never(sys: Sys) -> None:
    sys.set("*/mtty-1/available_instances", errno=errno.EIO, count=2, skip=1)
    assert await sys.reads(AVAILABLE, 5) == ["24\n", "EIO", "EIO", "24\n", "24\n"]
    assert not sys.tree.faults.armed


async def test_a_read_that_goes_on_is_not_counted(sys: Sys) -> None:
    """cat reads twice: the text, and the end."""
    sys.set(AVAILABLE, text="0\n", count=1)
    file = await sys.open(AVAILABLE)
    assert [await file.read(0, 4096), await file.read(2, 4096)] == [b"0\n", b""]
    assert await sys.read(AVAILABLE) == "24\n"


async def test_a_descriptor_that_was_open_before_sees_it(sys: Sys) -> None:
    file = await sys.open(AVAILABLE)
    assert await file.read(0, 4096) == b"24\n"
    one = sys.set(AVAILABLE, text="7\n")
    assert await file.read(0, 4096) == b"7\n"
    sys.tree.faults.clear([one.number])
    assert await file.read(0, 4096) == b"24\n"


async def test_others_are_not_struck(sys: Sys) -> None:
    sys.set(AVAILABLE, errno=errno.EIO)
    assert await sys.read(f"{TYPE}/device_api") == "vfio-pci\n"
    assert await sys.read(AVAILABLE.replace("mtty-1", "mtty-2")) == "12\n"
    assert await sys.write(f"{TYPE}/create", UUID) == len(UUID)


async def test_a_write_fails_and_changes_nothing(sys: Sys) -> None:
    sys.set("*/create", "write", errno=errno.ENOMEM, count=1)
    assert await errno_of(lambda: sys.write(f"{TYPE}/create", UUID)) == errno.ENOMEM
    assert sys.list("bus/mdev/devices") == []
    assert await errno_of(lambda: sys.write(f"{TYPE}/create", UUID)) == 0
    check_tree(sys.tree)


async def test_one_fault_of_both_counts_both(sys: Sys) -> None:
    path = f"{MTTY}/uevent"
    sys.tree.faults.add(Fault(path, frozenset({"read", "write"}), errno=errno.EIO, count=2))
    assert await sys.reads(path, 1) == ["EIO"]
    assert await errno_of(lambda: sys.write(path, "change")) == errno.EIO
    assert await errno_of(lambda: sys.write(path, "change")) == 0


async def test_every_kind_of_file_is_struck() -> None:
    tree = Tree(
        Folder({"whole": WholeFile(lambda: "text"), "binary": BinaryAttribute(4, lambda at, size: b"data"[at:])})
    )
    sys = InProcess(tree)
    for name, struck, right in (("whole", "wrong", "text"), ("binary", "wron", "data")):  # a binary's size stays
        tree.faults.add(fault(name, text="wrong", count=1))
        assert [await sys.read(name), await sys.read(name)] == [struck, right]
        tree.faults.add(fault(name, errno=errno.EFAULT, count=1))
        assert await errno_of(lambda name=name: sys.read(name)) == errno.EFAULT  # type: ignore[misc]


async def test_a_file_that_answers_each_opener_is_struck(sys: Sys) -> None:
    check = await sys.open(f"{TYPE}/mdevfs/check", os.O_RDWR)
    sys.set("*/mdevfs/check", "write", errno=errno.EIO, count=1)
    with pytest.raises(KernelError) as caught:
        await check.write(0, b"x")
    assert caught.value.errno == errno.EIO
    await check.write(0, b"x")
    sys.set("*/mdevfs/check", "read", text="wrong", count=1)
    assert await check.read(0, 4096) == b"wrong"
    assert json.loads(await check.read(0, 4096))["compatible"] is False


# -- slowness


async def test_a_slow_read_stops_nobody_else(sys: Sys, autojump_clock: trio.testing.MockClock) -> None:
    sys.set(AVAILABLE, slow=5, text="0\n")
    begin = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sys.read, AVAILABLE)
        await trio.testing.wait_all_tasks_blocked()
        assert await sys.read(f"{TYPE}/device_api") == "vfio-pci\n"
        assert trio.current_time() == begin
    assert trio.current_time() == begin + 5


async def test_two_slow_faults_add_up(sys: Sys, autojump_clock: trio.testing.MockClock) -> None:
    sys.set(AVAILABLE, slow=5)
    sys.set("*/available_instances", slow=2, errno=errno.ETIMEDOUT)
    begin = trio.current_time()
    assert await sys.reads(AVAILABLE, 1) == ["ETIMEDOUT"]
    assert trio.current_time() == begin + 7


async def test_what_hangs_goes_on_when_the_fault_is_cleared(sys: Sys) -> None:
    one = sys.set(AVAILABLE, slow=math.inf, errno=errno.EIO)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_assert_reads, sys, "24\n")
        await trio.testing.wait_all_tasks_blocked()
        sys.tree.faults.clear([one.number])
    assert not sys.tree.faults.armed


async def _assert_reads(sys: Sys, text: str) -> None:
    assert await sys.read(AVAILABLE) == text


async def test_a_node_that_goes_while_a_read_is_slow(sys: Sys) -> None:
    """kernfs would make the removal wait for the read; here the read finds the node gone."""
    await sys.write(f"{TYPE}/create", UUID)
    one = sys.set(f"*/{UUID}/uevent", slow=math.inf)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_assert_gone, sys, f"{MTTY}/{UUID}/uevent")
        await trio.testing.wait_all_tasks_blocked()
        await sys.write(f"{MTTY}/{UUID}/remove", "1")
        sys.tree.faults.clear([one.number])


async def _assert_gone(sys: Sys, path: str) -> None:
    assert await errno_of(lambda: sys.read(path)) == errno.ENODEV


# -- chance


def strikes(seed: int, skip: int = 0) -> str:
    one = fault("x", errno=errno.EIO, probability=0.3, seed=seed, skip=skip)
    return "".join(".!"[one.due("read", "x")] for _ in range(200))


def test_the_same_seed_strikes_the_same_accesses() -> None:
    assert strikes(1) == strikes(1)
    assert len({strikes(seed) for seed in range(20)}) == 20
    assert 30 < strikes(1).count("!") < 90
    assert strikes(1, skip=5) == "....." + strikes(1)[:-5]


async def test_chance_reproduces_through_files(sys: Sys) -> None:
    seen = []
    for _ in range(2):
        one = sys.set(AVAILABLE, errno=errno.EAGAIN, probability=0.5, seed=7)
        seen.append(await sys.reads(AVAILABLE, 30))
        sys.tree.faults.clear([one.number])
    assert seen[0] == seen[1]
    assert set(seen[0]) == {"EAGAIN", "24\n"}


def test_chance_and_count_together() -> None:
    one = fault("x", errno=errno.EIO, probability=0.5, count=3)
    assert sum(one.due("read", "x") for _ in range(100)) == 3
    assert one.over


# -- hooks


async def test_a_probe_that_fails_creates_nothing(sys: Sys) -> None:
    heard: list[str] = []
    sys.host.core.events.listeners.append(lambda event: heard.append(event.action))
    sys.set("*", "probe", errno=errno.EBUSY, count=1)
    assert await errno_of(lambda: sys.write(f"{TYPE}/create", UUID)) == errno.EBUSY
    assert (await sys.read(AVAILABLE), sys.list("bus/mdev/devices")) == ("24\n", [])
    assert heard == ["add", "remove"]
    told = json.loads(await sys.read(f"{TYPE}/mdevfs/last_verdict"))
    assert (told["operation"], told["errno"]) == ("create", "EBUSY")
    assert [reason["code"] for reason in told["reasons"]] == ["fault"]
    check_tree(sys.tree)
    await sys.write(f"{TYPE}/create", UUID)


async def test_a_remove_that_fails_leaves_the_mdev(sys: Sys) -> None:
    await sys.write(f"{TYPE}/create", UUID)
    sys.set(f"*/{UUID}", "remove", errno=errno.EIO, count=1)
    assert await errno_of(lambda: sys.write(f"{MTTY}/{UUID}/remove", "1")) == errno.EIO
    assert await sys.read(AVAILABLE) == "23\n"
    check_tree(sys.tree)
    await sys.write(f"{MTTY}/{UUID}/remove", "1")


async def test_a_slow_probe_shows_nothing_before_its_time(sys: Sys, autojump_clock: trio.testing.MockClock) -> None:
    sys.set("*/mtty/*", "probe", slow=3)
    begin = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sys.write, f"{TYPE}/create", UUID)
        await trio.testing.wait_all_tasks_blocked()
        assert sys.list("bus/mdev/devices") == []
        assert await sys.read(AVAILABLE) == "23\n"
    assert trio.current_time() == begin + 3
    assert sys.list("bus/mdev/devices") == [UUID]


async def test_a_slow_remove_is_seen_as_the_kernels(sys: Sys, autojump_clock: trio.testing.MockClock) -> None:
    """The links and `remove` are gone at once, the count comes back at the end."""
    await sys.write(f"{TYPE}/create", UUID)
    sys.set("*", "remove", slow=3)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sys.write, f"{MTTY}/{UUID}/remove", "1")
        await trio.testing.wait_all_tasks_blocked()
        assert not sys.exists(f"bus/mdev/devices/{UUID}")
        assert sys.exists(f"{MTTY}/{UUID}/uevent")
        assert not sys.exists(f"{MTTY}/{UUID}/remove")
        assert await sys.read(AVAILABLE) == "23\n"
    assert not sys.exists(f"{MTTY}/{UUID}")
    check_tree(sys.tree)


async def test_hooks_of_other_mdevs_are_not_struck(sys: Sys) -> None:
    sys.set("*/mdpy/*", "probe", errno=errno.EIO)
    await sys.write(f"{TYPE}/create", UUID)
    path = "devices/virtual/mdpy/mdpy/mdev_supported_types/mdpy-hd/create"
    assert await errno_of(lambda: sys.write(path, UUID.replace("a1", "a2"))) == errno.EIO


# -- paths


@pytest.mark.parametrize(
    ("asked", "own"),
    [
        ("class/mdev_bus/mtty/mdev_supported_types/mtty-1/create", f"{TYPE}/create"),
        ("/class/mdev_bus/mtty/mdev_supported_types/*/create", f"{MTTY}/mdev_supported_types/*/create"),
        ("*/create", "*/create"),
        ("devices/virtual/[m]*/create", "devices/virtual/[m]*/create"),
        (f"{TYPE}/name", f"{TYPE}/name"),
        ("bus/mdev/drivers_probe", "bus/mdev/drivers_probe"),
    ],
)
async def test_a_path_is_the_files_own(sys: Sys, asked: str, own: str) -> None:
    assert own_path(sys.tree, asked) == own
    check_tree(sys.tree)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (
            f"{TYPE}/available_instance",
            f'path: {TYPE} has no "available_instance", did you mean "available_instances"?;'
            " for what may come later: */available_instance",
        ),
        ("clas/mdev_bus/*", 'path: the tree has no "clas", did you mean "class"?; for what may come later: */clas'),
        (TYPE, f"path: {TYPE} is a directory, a fault is of a file: write {TYPE}/*"),
        (
            "class/mdev_bus/*/mdev_supported_types/*/create",
            "path: in class/mdev_bus/*/mdev_supported_types/*/create the first wildcard stands among links, and a"
            " pattern is compared with a file's own path, which has none: write */mdev_supported_types/*/create",
        ),
    ],
)
async def test_a_path_that_is_nobodys(sys: Sys, asked: str, told: str) -> None:
    with pytest.raises(InputError) as caught:
        make_fault(FaultSection(path=asked, errno="EIO"), sys.tree)
    assert caught.value.mistakes == [told]
    check_tree(sys.tree)


# -- host.toml

HOST = f"""
[[device]]
driver = "mtty"
[[device.mdev]]
uuid = "{UUID}"
type = "mtty-1"
[[fault]]
on = "probe"
errno = "EIO"
[[fault]]
path = "class/mdev_bus/mtty/mdev_supported_types/mtty-2/available_instances"
text = "0\\n"
count = 1
"""


async def test_a_host_begins_with_its_faults() -> None:
    """And with its mdevs, which they do not strike."""
    sys = Sys(await host_of(HOST))
    assert sys.list("bus/mdev/devices") == [UUID]
    path = f"{MTTY}/mdev_supported_types/mtty-2"
    assert await errno_of(lambda: sys.write(f"{path}/create", UUID.replace("a1", "a2"))) == errno.EIO
    assert await sys.reads(f"{path}/available_instances", 2) == ["0\n", "11\n"]


async def test_every_mistake_of_its_faults(tmp_path: Path) -> None:
    path = tmp_path / "host.toml"
    faults = [
        "slow = 0",
        "path = '*/name'\nerno = 'EIO'\nerrno = 'EIOO'",
        "path = '*/name'\ntext = 'x'\nerrno = 'EIO'",
        "path = '*/create'\non = 'write'\ntext = 'x'",
        "path = '*/name'\nslow = nan\ncount = 0\nskip = -1\nprobability = 1.5",
        "errno = 'EIO'",
        "path = '*/name'\non = 'remov'\nslow = 1",
    ]
    path.write_text("[[device]]\ndriver = 'mtty'\n" + "".join(f"[[fault]]\n{text}\n" for text in faults))
    with pytest.raises(InputError) as caught:
        await load(str(path))
    assert [line.removeprefix(f"{path}: ") for line in caught.value.mistakes] == [
        "fault[0]: a fault does something: give slow, errno or text",
        'fault[1].errno: "EIOO" is unknown, did you mean "EIO"?',
        'fault[1].erno: unknown key, did you mean "errno"?',
        "fault[2]: a read that fails with errno has no text: give one of the two",
        'fault[3]: text is what a read gives: it cannot be on "write"',
        'fault[4].slow: Input should be greater than or equal to 0 (is "nan")',
        'fault[4].count: Input should be greater than or equal to 1 (is "0")',
        'fault[4].skip: Input should be greater than or equal to 0 (is "-1")',
        'fault[4].probability: Input should be less than or equal to 1 (is "1.5")',
        "fault[5]: a fault of an attribute needs its path, such as */available_instances",
        'fault[6].on: "remov" is unknown, did you mean "remove"?',
    ]


async def test_a_fault_of_a_file_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "host.toml"
    path.write_text("[[device]]\ndriver = 'mtty'\n[[fault]]\npath = 'devices/virtual/mty/x'\nerrno = 'EIO'\n")
    with pytest.raises(InputError) as caught:
        await load(str(path))
    assert caught.value.mistakes == [
        f'{path}: fault[0].path: devices/virtual has no "mty", did you mean "mtty"?; for what may come later: */mty'
    ]
