"""Moves that fail, and leases that end: where the device is then, and what `mdevfs/last_verdict` says."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.unit.test_migration_data import MDEV, UUID, Side, refused, resume, saved, side

SILENT = """
from mdevfs.vendor import U32, DeviceModel, MdevType, Refused, VendorDriver, VMState

def busy(view):
    if view.state.ctrl == 13:
        raise Refused("test-busy", 16, rule="13 is busy")
    if view.state.ctrl == 14:
        raise ValueError("a driver's mistake")

class Silent(VendorDriver):
    api, name, types = 1, "silent", [MdevType("a")]
    migration_features = {features}
    state = VMState("silent", fields=[U32("ctrl")], before_save=busy)

    def migration_string(self, device):
        if getattr(device, "data", None) == "mute":
            raise Refused("test-mute", 19, rule="it does not migrate now")
        return "silent"

    def check(self, device, source):
        from mdevfs.vendor import Verdict
        return Verdict()
"""


async def silent(folder: Path, features: tuple[str, ...] = ("stop-copy", "p2p", "pre-copy")) -> Side:
    return await side(folder, driver="silent", type_id="silent-a", source=SILENT.format(features=features))


async def codes(one: Side) -> list[str]:
    return [reason["code"] for reason in await one.reasons()]


@pytest.mark.parametrize(("ctrl", "number", "code"), [(13, errno.EBUSY, "test-busy"), (14, errno.EIO, "driver-fault")])
@pytest.mark.parametrize("begin", ["RUNNING", "RUNNING_P2P", "STOP"])
async def test_what_cannot_be_saved_stays_where_it_was(
    tmp_path: Path, begin: str, ctrl: int, number: int, code: str, expected_logs: object
) -> None:
    """A source whose driver raises runs on, though the way led through STOP."""
    one = await silent(tmp_path)
    await one.move(begin)
    one.mdev.state.ctrl = ctrl
    with refused(number):
        await one.move("STOP_COPY")
    assert await one.state() == begin
    assert await codes(one) == [code]
    one.mdev.state.ctrl = 1
    await one.move("STOP_COPY")


async def test_what_cannot_be_saved_after_pre_copy_is_in_pre_copy(tmp_path: Path, expected_logs: object) -> None:
    one = await silent(tmp_path)
    await one.move("PRE_COPY")
    file = await one.open(os.O_RDONLY)
    one.mdev.state.ctrl = 14
    with refused(errno.EIO):
        await one.move("STOP_COPY")
    assert await one.state() == "PRE_COPY"
    file.closed()
    assert await one.state() == "RUNNING"


@pytest.mark.parametrize("state", ["STOP_COPY", "PRE_COPY", "RESUMING"])
async def test_a_device_that_does_not_migrate_now_takes_part_in_nothing(tmp_path: Path, state: str) -> None:
    """Where the read of its migration_version answers ENODEV."""
    one = await silent(tmp_path)
    one.mdev.data = "mute"
    with refused(errno.ENODEV):
        await one.move(state)
    assert await one.state() == "RUNNING"
    assert await codes(one) == ["test-mute"]


@pytest.mark.parametrize(
    ("features", "now", "wanted", "code", "named"),
    [
        (("stop-copy",), "RUNNING", "PRE_COPY", "migration-state-unknown", "STOP, RUNNING, STOP_COPY, RESUMING"),
        (("stop-copy",), "RUNNING", "RUNNING_P2P", "migration-state-unknown", "STOP, RUNNING, STOP_COPY, RESUMING"),
        (("stop-copy", "p2p", "pre-copy"), "RUNNING", "stop", "migration-state-unknown", "PRE_COPY_P2P"),
        (("stop-copy", "p2p", "pre-copy"), "RUNNING", "ERROR", "migration-state-unreachable", "STOP, RUNNING"),
        (("stop-copy", "p2p", "pre-copy"), "STOP_COPY", "PRE_COPY", "migration-state-unreachable", "STOP, RUNNING"),
    ],
)
async def test_a_move_that_there_is_not(
    tmp_path: Path, features: tuple[str, ...], now: str, wanted: str, code: str, named: str
) -> None:
    one = await silent(tmp_path, features)
    await one.move(now)
    with refused(errno.EINVAL):
        await one.move(wanted)
    assert await one.state() == now
    (reason,) = await one.reasons()
    assert (reason["code"], reason["source"]) == (code, wanted)
    assert now in reason["rule"]
    assert named in reason["mend"]
    verdict = json.loads(await one.sys.read(f"{MDEV}/last_verdict"))
    assert (verdict["operation"], verdict["errno"]) == ("parameter", "EINVAL")


async def test_a_stopped_source_stays_stopped(tmp_path: Path) -> None:
    """It may have a target that runs: a look at its state must not make it run."""
    one = await side(tmp_path)
    await one.move("STOP")
    assert await saved(one)
    assert await one.state() == "STOP"


@pytest.mark.parametrize("state", ["STOP_COPY", "PRE_COPY", "RESUMING"])
async def test_closing_the_device_ends_what_is_under_way(tmp_path: Path, state: str) -> None:
    """As the last close of the VFIO descriptor does (mtty_close, mtty_disable_files)."""
    one = await side(tmp_path)
    in_use = f"{MDEV}/in_use"
    await one.sys.write(in_use, "1")
    await one.move(state)
    file = await one.open(os.O_WRONLY if state == "RESUMING" else os.O_RDONLY)
    await one.sys.write(in_use, "0")
    assert await one.state() == "RUNNING"
    call: Awaitable[object] = file.write(0, b"x") if state == "RESUMING" else file.read(0, 1)
    with refused(errno.ENODEV):
        await call
    file.closed()
    assert await one.state() == "RUNNING"


async def test_what_comes_while_it_is_checked_is_checked_too(tmp_path: Path) -> None:
    """fsync(2) says yes to what had come when it was called, and to no more."""
    source, target = await side(tmp_path), await side(tmp_path)
    data = await saved(source)
    file = await resume(target, data[:-8])
    await file.sync()
    await file.write(len(data) - 8, data[-8:-1])
    await file.write(len(data) - 1, b"x")  # no JSON any more: who sent it stays unknown, as with QEMU's own
    await file.sync()
    with refused(errno.ENOMEM):
        await file.write(len(data), b"x")
    with refused(errno.ENOMEM):
        await file.sync()


@pytest.mark.parametrize("make", [silent, side])
async def test_versions_that_are_blocked_do_not_load(tmp_path: Path, make: Callable[[Path], Awaitable[Side]]) -> None:
    one = await make(tmp_path)
    data = await saved(one)
    version = (await one.sys.read(f"{MDEV}/save_state_version")).strip()
    await one.sys.write(f"{MDEV}/blocked_state_versions", version)
    with refused(errno.EINVAL):
        await resume(one, data)
    assert await codes(one) == ["state-version-blocked"]


async def test_bare_versions_too(tmp_path: Path) -> None:
    one = await side(tmp_path, driver="mtty", type_id="mtty-1")
    data = await saved(one)
    await one.sys.write(f"{MDEV}/blocked_state_versions", "1")
    with refused(errno.EINVAL):
        await resume(one, data)
    assert await codes(one) == ["state-version-blocked"]


async def test_the_migration_of_a_removed_mdev(tmp_path: Path) -> None:
    one = await side(tmp_path)
    await one.move("STOP_COPY")
    file = await one.open(os.O_RDONLY)
    await one.sys.write(f"bus/mdev/devices/{UUID}/remove", "1")
    with refused(errno.ENODEV):
        await file.read(0, 1)
    file.closed()


async def test_a_lease_that_somebody_else_ended_commits_nothing(tmp_path: Path) -> None:
    """What was copied is old: the device has run on, and its STOP would not be the end of that copy."""
    one = await side(tmp_path)
    lease = await one.sys.open(f"{MDEV}/migration_state", os.O_RDWR)
    await lease.write(0, b"STOP_COPY")
    await one.move("RUNNING")
    with refused(errno.ENODEV):
        await lease.write(0, b"STOP")
    assert await one.state() == "RUNNING"
    assert await lease.read(0, 4096) == b"RUNNING\n"
    lease.closed()
    assert await one.state() == "RUNNING"
