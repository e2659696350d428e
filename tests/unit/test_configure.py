"""`configure`: a driver is asked before a parameter of one of its mdevs changes, one change at a time."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from mdevfs.mdev.mdev import Mdev
from tests.support import InProcess, check_tree, host_of

DRIVER = """
import errno, os
from mdevfs.vendor import DeviceModel, Int, MdevType, Refused, VendorDriver, blocking

class Nic(VendorDriver):
    api, name = 1, "nic"
    types = [MdevType("any")]
    model = DeviceModel("a.b/nic", params=[Int(one, init=1, allowed=range(10)) for one in ("rx", "tx")])

    def configure(self, mdev, params):
        mdev.data = params
        used = params.get("rx", 1) + params.get("tx", 1)
        if used == 13:
            raise RuntimeError("thirteen")
        if used > 8:
            rule = "the device has 8 queues"
            raise Refused("no-instances", errno.ENOSPC, rule=rule, parameter="queues", source=str(used), side="target")

    def reset(self, mdev):
        if mdev.params.get("tx") == 5:
            raise RuntimeError("five")
        return super().reset(mdev)

class Slow(Nic):
    name = "slow"

    @blocking
    def configure(self, mdev, params):
        os.read(GATE, 1)  # until somebody lets it go on
        super().configure(mdev, params)
"""
GATE, LET_GO = os.pipe()
HOST = '[host]\ndrivers = ["nic.py"]\n[[device]]\ndriver = "nic"\n[[device]]\ndriver = "slow"\n'
UUID = "facade00-0000-4000-8000-000000000001"


async def mdev(folder: Path, driver: str) -> tuple[InProcess, str]:
    (folder / "nic.py").write_text(f"GATE = {GATE}\n{DRIVER}")
    client = InProcess((await host_of(HOST, folder)).tree)
    await client.write(f"class/mdev_bus/{driver}/mdev_supported_types/{driver}-any/create", UUID)
    return client, f"bus/mdev/devices/{UUID}"


async def echo(client: InProcess, path: str, text: str) -> int:
    """0 or the errno."""
    try:
        await client.write(path, text)
    except OSError as error:
        return error.errno or -1
    return 0


@pytest.mark.parametrize("driver", ["nic", "slow"])
async def test_what_the_driver_refuses_changes_nothing(tmp_path: Path, driver: str, expected_logs: object) -> None:
    client, path = await mdev(tmp_path, driver)
    os.write(LET_GO, bytes(3) if driver == "slow" else b"")
    assert await echo(client, f"{path}/migration/rx", "7") == 0
    assert await client.read(f"{path}/migration_version") == "a.b/nic,rx=7,tx=1\n"
    for text, answer, code in (("2", errno.ENOSPC, "no-instances"), ("6", errno.EIO, "driver-fault")):
        assert await echo(client, f"{path}/migration/tx", text) == answer
        verdict = json.loads(await client.read(f"{path}/mdevfs/last_verdict"))
        assert (verdict["operation"], verdict["source"]) == ("parameter", f"tx={text}")
        assert [reason["code"] for reason in verdict["reasons"]] == [code]
        assert await client.read(f"{path}/migration/tx") == "1\n"
        assert await client.read(f"{path}/migration_version") == "a.b/nic,rx=7,tx=1\n"
    check_tree(client.tree)


async def test_a_device_that_cannot_be_made_anew_stays_as_it_is(tmp_path: Path, expected_logs: object) -> None:
    """A parameter that is more than representation makes a new state, which the driver may fail to."""
    (tmp_path / "nic.py").write_text(f"GATE = {GATE}\n{DRIVER}")
    host = await host_of(HOST, tmp_path)
    client, path = InProcess(host.tree), f"bus/mdev/devices/{UUID}"
    await client.write("class/mdev_bus/nic/mdev_supported_types/nic-any/create", UUID)
    device = host.mdev.bus.devices[UUID]
    assert isinstance(device, Mdev)
    before = device.state
    assert await echo(client, f"{path}/migration/tx", "5") == errno.EIO
    assert await client.read(f"{path}/migration/tx") == "1\n"
    assert await client.read(f"{path}/migration_version") == "a.b/nic,rx=1,tx=1\n"
    assert device.state is before
    assert await echo(client, f"{path}/migration/tx", "4") == 0
    assert device.state is not before


@pytest.mark.parametrize("driver", ["nic", "slow"])
async def test_two_writers_do_not_take_the_same(tmp_path: Path, driver: str) -> None:
    """Each change is asked for with what the last one left."""
    client, path = await mdev(tmp_path, driver)
    answers: list[int] = []

    async def write(name: str) -> None:
        answers.append(await echo(client, f"{path}/migration/{name}", "6"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write, "rx")
        nursery.start_soon(write, "tx")
        await wait_all_tasks_blocked()  # both have come, and the slow one is asked about the first
        os.write(LET_GO, bytes(2) if driver == "slow" else b"")
    assert sorted(answers) == [0, errno.ENOSPC]
    held = [(await client.read(f"{path}/migration/{name}")).strip() for name in ("rx", "tx")]
    assert sorted(held) == ["1", "6"]
