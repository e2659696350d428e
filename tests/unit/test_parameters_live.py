"""`migration/<parameter>` of an mdev, while it is idle and while it is in use; preparing a target (RFC v3)."""

from __future__ import annotations

import errno
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from mdevfs.host.host import Host
from tests.support import InProcess, check_tree, host_of

DRIVER = """
from mdevfs.vendor import Bool, DeviceModel, Int, MdevType, Set, VendorDriver

class Nic(VendorDriver):
    api, name = 1, "nic"
    types = [MdevType("any", instances=3), MdevType("two", params={"queues": 2})]
    model = DeviceModel("a.b/nic", params=[
        Int("size", init=64, off=0, allowed=range(257)),
        Int("queues", init=4, allowed=(1, 2, 4)),
        Bool("log", init=False, off=False, state_only=True),
        Set("services", init=frozenset({"sym"}), off=frozenset(), allowed=("dc", "sym")),
        Int("slices", init=1, off=1, allowed=(1, 2), fixed=True),
    ])
"""
HOST = '[host]\ndrivers = ["nic.py"]\n[[device]]\ndriver = "nic"\n'
TYPE = "devices/virtual/nic/nic/mdev_supported_types/nic-any"
SOURCE, TARGET = "facade00-0000-4000-8000-00000000000a", "facade00-0000-4000-8000-00000000000b"
OWN = "a.b/nic,queues=4,services=sym,size=64"


class Sys(InProcess):
    """A host of the driver above, with shell manners: a write gives its errno, 0 for none."""

    def __init__(self, host: Host) -> None:
        super().__init__(host.tree)
        self.host = host

    async def create(self, uuid: str, arguments: str = "", type: str = TYPE) -> None:
        await self.write(f"{type}/create", uuid + arguments)

    async def echo(self, text: str, path: str) -> int:
        try:
            await self.write(path, text + "\n")
        except OSError as error:
            return error.errno or -1
        return 0

    async def cat(self, path: str) -> str:
        return (await self.read(path)).removesuffix("\n")

    async def last_verdict(self, path: str) -> Any:
        return json.loads(await self.read(f"{path}/mdevfs/last_verdict"))

    async def room(self) -> str:
        return await self.cat(f"{TYPE}/available_instances")


async def machine(folder: Path) -> Sys:
    (folder / "nic.py").write_text(DRIVER)
    return Sys(await host_of(HOST, folder))


def mdev(uuid: str) -> str:
    return f"devices/virtual/nic/nic/{uuid}"


# -- reading and writing


async def test_a_value_is_read_written_and_in_the_string(tmp_path: Path) -> None:
    sys = await machine(tmp_path)
    await sys.create(TARGET)
    path = mdev(TARGET)
    assert sys.list(f"{path}/migration") == ["log", "queues", "services", "size", "slices"]
    assert await sys.cat(f"{path}/migration_version") == OWN
    assert await sys.echo("32", f"{path}/migration/size") == 0
    assert await sys.cat(f"{path}/migration/size") == "32"
    assert await sys.cat(f"{path}/migration_version") == OWN.replace("64", "32")
    assert await sys.echo(OWN, f"{path}/migration_version") == errno.EINVAL
    assert await sys.echo(OWN.replace("64", "32"), f"{path}/migration_version") == 0
    assert await sys.write(f"{path}/migration/services", b"") == 0  # 0 bytes do nothing
    assert await sys.echo("", f"{path}/migration/services") == 0
    assert await sys.echo("0", f"{path}/migration/size") == 0
    assert await sys.cat(f"{path}/migration_version") == "a.b/nic,queues=4"
    check_tree(sys.tree)


async def test_each_mdev_has_its_own(tmp_path: Path) -> None:
    sys = await machine(tmp_path)
    for uuid in (SOURCE, TARGET):
        await sys.create(uuid)
    assert await sys.echo("32", f"{mdev(SOURCE)}/migration/size") == 0
    assert await sys.cat(f"{mdev(TARGET)}/migration/size") == "64"
    assert await sys.cat(f"{TYPE}/migration_version") == OWN


@pytest.mark.parametrize(
    ("name", "text", "code"),
    [
        ("size", "257", "value-not-allowed"),
        ("size", "-1", "value-not-allowed"),
        ("size", "032", "value-malformed"),
        ("size", " 32", "value-malformed"),
        ("size", "32\n", "value-malformed"),
        ("queues", "3", "value-not-allowed"),
        ("log", "yes", "value-malformed"),
        ("services", "sym+dc", "value-malformed"),
        ("services", "asym", "value-not-allowed"),
        ("services", "sym\x1b[31m", "value-malformed"),
    ],
)
async def test_a_refused_write_changes_nothing(tmp_path: Path, name: str, text: str, code: str) -> None:
    sys = await machine(tmp_path)
    await sys.create(TARGET)
    path = mdev(TARGET)
    before = await sys.cat(f"{path}/migration/{name}")
    assert await sys.echo(text, f"{path}/migration/{name}") == errno.EINVAL
    assert await sys.cat(f"{path}/migration/{name}") == before
    assert await sys.cat(f"{path}/migration_version") == OWN
    verdict = await sys.last_verdict(path)
    assert (verdict["operation"], verdict["source"]) == ("parameter", f"{name}={text}")
    (reason,) = verdict["reasons"]
    given = (reason["code"], reason["parameter"], reason["source"], reason["target"])
    assert given == (code, name, text, before)


async def test_a_fixed_parameter_takes_what_it_has(tmp_path: Path) -> None:
    """So that RFC v3's writes prepare a target that was made right, and no other."""
    sys = await machine(tmp_path)
    await sys.create(TARGET, ",slices=2")
    path = f"{mdev(TARGET)}/migration/slices"
    for name in sys.list(f"{mdev(TARGET)}/migration"):
        assert sys.tree.walk(f"{mdev(TARGET)}/migration/{name}").permissions & 0o777 == 0o644
    assert await sys.echo("2", path) == 0
    for text, code, answer in (("1", "parameter-fixed", errno.EPERM), ("3", "value-not-allowed", errno.EINVAL)):
        assert await sys.echo(text, path) == answer
        (reason,) = (await sys.last_verdict(mdev(TARGET)))["reasons"]
        assert (reason["code"], reason["parameter"], reason["target"]) == (code, "slices", "2")
    assert await sys.cat(path) == "2"


async def test_what_a_type_fixes_stays(tmp_path: Path) -> None:
    sys = await machine(tmp_path)
    await sys.create(TARGET, type=TYPE.replace("-any", "-two"))
    path = f"{mdev(TARGET)}/migration/queues"
    assert await sys.echo("4", path) == errno.EINVAL
    assert [one["code"] for one in (await sys.last_verdict(mdev(TARGET)))["reasons"]] == ["value-not-allowed"]
    assert await sys.echo("2", path) == 0
    assert await sys.cat(path) == "2"


# -- in use


async def test_in_use_holds_all_but_the_representation(tmp_path: Path) -> None:
    sys = await machine(tmp_path)
    await sys.create(TARGET)
    path = mdev(TARGET)
    assert await sys.cat(f"{path}/mdevfs/in_use") == "0"
    assert await sys.echo("1", f"{path}/mdevfs/in_use") == 0
    assert await sys.cat(f"{path}/mdevfs/in_use") == "1"
    for name, text in (("size", "32"), ("size", "64"), ("queues", "2"), ("services", "")):
        assert await sys.echo(text, f"{path}/migration/{name}") == errno.EBUSY
        (reason,) = (await sys.last_verdict(path))["reasons"]
        assert (reason["code"], reason["parameter"], reason["source"]) == ("in-use", name, text)
        assert reason["target"] == await sys.cat(f"{path}/migration/{name}")
    assert await sys.cat(f"{path}/migration_version") == OWN
    assert await sys.echo("on", f"{path}/migration/log") == 0
    assert await sys.cat(f"{path}/migration_version") == "a.b/nic,log=on,queues=4,services=sym,size=64"
    assert await sys.echo("0", f"{path}/mdevfs/in_use") == 0
    assert await sys.echo("32", f"{path}/migration/size") == 0


@pytest.mark.parametrize("text", ["", "2", "x"])
async def test_what_in_use_does_not_take(tmp_path: Path, text: str) -> None:
    sys = await machine(tmp_path)
    await sys.create(TARGET)
    assert await sys.echo(text, f"{mdev(TARGET)}/mdevfs/in_use") == errno.EINVAL
    assert await sys.cat(f"{mdev(TARGET)}/mdevfs/in_use") == "0"


async def test_remove_waits_until_nobody_uses_it(tmp_path: Path) -> None:
    sys = await machine(tmp_path)
    await sys.create(TARGET)
    path = mdev(TARGET)
    await sys.echo("1", f"{path}/mdevfs/in_use")
    removed = False

    async def remove() -> None:
        nonlocal removed
        assert await sys.echo("1", f"{path}/remove") == 0
        removed = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(remove)
        await trio.testing.wait_all_tasks_blocked()
        assert not removed
        assert not sys.exists(f"{path}/remove")
        assert not sys.exists(f"bus/mdev/devices/{TARGET}")
        assert await sys.room() == "2"
        with pytest.raises(OSError, match="uuid-exists") as caught:
            await sys.create(TARGET)
        assert caught.value.errno == errno.EEXIST
        await sys.create(SOURCE)
        assert await sys.room() == "1"
        assert await sys.echo("0", f"{path}/mdevfs/in_use") == 0
    assert removed
    assert not sys.exists(path)
    assert await sys.room() == "2"
    await sys.create(TARGET)
    assert await sys.cat(f"{mdev(TARGET)}/mdevfs/in_use") == "0"
    check_tree(sys.tree)


# -- preparing a target


async def prepare(sys: Sys, target: str, string: str) -> bool:
    """RFC v3: write every off value, then the source's list, one by one; any error means no."""
    info = json.loads(await sys.read(f"{target}/mdev_type/migration_info.json"))["models"]
    name, *items = string.split(",")
    if name not in info:
        return False
    offs = [(name, one["off_value"]) for name, one in info[name]["params"].items() if "off_value" in one]
    for param, text in [*offs, *(item.split("=") for item in items)]:
        path = f"{target}/migration/{param}"
        if not sys.exists(path) or await sys.echo(text, path) != 0:
            return False
    return True


@pytest.mark.parametrize(
    "arguments",
    ["", ",size=0", ",size=256,queues=1,services=dc+sym,log=on", ",size=0,services=,log=off"],
)
async def test_a_prepared_target_takes_the_source(tmp_path: Path, arguments: str) -> None:
    sys = await machine(tmp_path)
    await sys.create(SOURCE, arguments)
    await sys.create(TARGET, ",size=128,queues=2,log=on")
    string = await sys.cat(f"{mdev(SOURCE)}/migration_version")
    assert await sys.echo(string, f"{mdev(TARGET)}/migration_version") == errno.EINVAL
    assert await prepare(sys, mdev(TARGET), string)
    assert await sys.cat(f"{mdev(TARGET)}/migration_version") == string
    assert await sys.echo(string, f"{mdev(TARGET)}/migration_version") == 0


@pytest.mark.parametrize(
    "string",
    ["a.b/nic,queues=4,size=512", "a.b/nic,queues=3", "a.b/nic,queues=4,rss=on", "a.b/gpu", "a.b/nic,queues=4,log=yes"],
)
async def test_a_target_that_cannot_be_prepared(tmp_path: Path, string: str) -> None:
    sys = await machine(tmp_path)
    await sys.create(TARGET)
    assert not await prepare(sys, mdev(TARGET), string)
    assert await sys.echo(string, f"{mdev(TARGET)}/migration_version") == errno.EINVAL


async def test_a_target_in_use_cannot_be_prepared(tmp_path: Path) -> None:
    sys = await machine(tmp_path)
    await sys.create(TARGET)
    await sys.echo("1", f"{mdev(TARGET)}/mdevfs/in_use")
    assert not await prepare(sys, mdev(TARGET), OWN.replace("64", "32"))


async def test_every_device_can_be_prepared_from_every_other(tmp_path: Path) -> None:
    sys = await machine(tmp_path)
    await sys.create(TARGET)
    for size, queues, log, services in itertools.product("09", "14", ("on", "off"), ("", "dc")):
        await sys.create(SOURCE, f",size={size},queues={queues},log={log},services={services}")
        string = await sys.cat(f"{mdev(SOURCE)}/migration_version")
        assert await prepare(sys, mdev(TARGET), string)
        assert await sys.cat(f"{mdev(TARGET)}/migration_version") == string
        await sys.echo("1", f"{mdev(SOURCE)}/remove")
