"""`mdevfs/migration_state` and `migration_data` in process: what moves, what a lease is, what is refused how."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mdevfs.errors import MdevfsError
from mdevfs.host.host import Host
from mdevfs.mdev.mdev import Mdev
from mdevfs.sysfs.files import File
from tests.support import InProcess, check_tree, host_of

UUID = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001"
MDEV = f"bus/mdev/devices/{UUID}/mdevfs"
DRIVER = """
from mdevfs.vendor import U32, BadState, Bool, Bytes, DeviceModel, MdevType, VendorDriver, VMState

def odd(view):
    if view.state.ctrl == 13:
        raise BadState("test-odd", rule="13 is odd")
    if view.state.ctrl == 14:
        raise ValueError("a driver's mistake")

class Nic(VendorDriver):
    api, name, types = 1, "nic", [MdevType("a")]
    model = DeviceModel("vendor-a.com/nic", [Bool("rss", False, False)])
    state = VMState(
        "nic", 2, 1, fields=[U32("ctrl", reset=1), Bytes("ring", 5000), U32("later", since=2)], after_load=odd,
        subsections=[VMState("nic/rss", fields=[U32("key")], needed="rss")],
    )
"""


class Side:
    """A host with one mdev, and its files."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.sys = InProcess(host.tree)

    @property
    def mdev(self) -> Mdev:
        return next(iter(self.host.mdev.all()))

    async def state(self) -> str:
        return (await self.sys.read(f"{MDEV}/migration_state")).strip()

    async def move(self, state: str) -> None:
        await self.sys.write(f"{MDEV}/migration_state", state)

    async def open(self, flags: int) -> File:
        return await self.sys.open(f"{MDEV}/migration_data", flags)

    async def reasons(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(await self.sys.read(f"{MDEV}/last_verdict"))["reasons"]
        return found


async def side(
    folder: Path, arguments: str = "", driver: str = "nic", type_id: str = "nic-a", source: str = DRIVER
) -> Side:
    (folder / "nic.py").write_text(source)
    host = await host_of(f'[host]\ndrivers = ["nic.py"]\nkernel = "6.18"\n[[device]]\ndriver = "{driver}"\n', folder)
    found = Side(host)
    where = f"class/mdev_bus/{driver}/mdev_supported_types/{type_id}/create"
    await found.sys.write(where, f"{UUID},{arguments}" if arguments else UUID)
    return found


async def read_all(file: File, step: int = 1 << 20) -> bytes:
    data = b""
    while piece := await file.read(len(data), step):
        data += piece
    return data


@contextmanager
def refused(*codes: int) -> Iterator[None]:
    with pytest.raises((OSError, MdevfsError)) as caught:
        yield
    assert getattr(caught.value, "errno", None) in codes


async def saved(source: Side) -> bytes:
    """What a source sends; it goes on as it was."""
    before = await source.state()
    await source.move("STOP_COPY")
    file = await source.open(os.O_RDONLY)
    data = await read_all(file)
    file.closed()
    assert await source.state() == before
    return data


async def resume(target: Side, data: bytes, step: int = 1 << 20) -> File:
    await target.move("RESUMING")
    file = await target.open(os.O_WRONLY)
    for at in range(0, len(data), step):
        await file.write(at, data[at : at + step])
    return file


@pytest.mark.parametrize("step", [1, 977, 1 << 20])
async def test_a_device_moves(tmp_path: Path, step: int) -> None:
    source, target = await side(tmp_path), await side(tmp_path)
    source.mdev.state.ctrl, source.mdev.state.ring[7], source.mdev.state.later = 7, 9, 3
    await source.move("STOP_COPY")
    out = await source.open(os.O_RDONLY)
    data = await read_all(out, step)
    into = await resume(target, data, step)
    await into.sync()
    assert target.mdev.state.ctrl == 1
    await source.move("STOP")
    await target.move("RUNNING")
    out.closed()
    into.closed()
    assert (await source.state(), await target.state()) == ("STOP", "RUNNING")
    assert target.mdev.state == source.mdev.state
    for one in (source, target):
        check_tree(one.host.tree)


async def test_pre_copy_sends_what_shows_an_incompatible_version_early(tmp_path: Path) -> None:
    source = await side(tmp_path)
    whole = await saved(source)
    await source.move("PRE_COPY")
    file = await source.open(os.O_RDONLY)
    early = await file.read(0, 1 << 20)
    with refused(errno.ENOMSG):
        await file.read(len(early), 1)
    assert whole.startswith(early)
    assert early.endswith(b"nic\0\0\0\0\0\0\0\2")
    await source.move("STOP_COPY")
    rest = await file.read(len(early), 1 << 20)
    assert early + rest == whole


async def test_a_lease_that_ends_before_the_commit(tmp_path: Path) -> None:
    source, target = await side(tmp_path), await side(tmp_path)
    source.mdev.state.ctrl = 7
    for begin in ("STOP_COPY", "PRE_COPY", "PRE_COPY_P2P"):
        await source.move(begin)
        (await source.open(os.O_RDONLY)).closed()
        assert await source.state() == "RUNNING"
    data = await saved(source)
    for before in ("RUNNING", "STOP"):
        await target.move(before)
        target.mdev.state.ctrl = 99
        file = await resume(target, data)
        await file.sync()
        file.closed()
        assert (await target.state(), target.mdev.state.ctrl) == (before, 99)


async def test_who_may_open_it(tmp_path: Path) -> None:
    one = await side(tmp_path)
    for state in ("RUNNING", "RUNNING_P2P", "STOP"):
        await one.move(state)
        for access in (os.O_RDONLY, os.O_WRONLY):
            with refused(errno.EINVAL):
                await one.open(access)
    for state, right, wrong in (("STOP_COPY", os.O_RDONLY, os.O_WRONLY), ("RESUMING", os.O_WRONLY, os.O_RDONLY)):
        await one.move(state)
        for access in (wrong, os.O_RDWR):
            with refused(errno.EINVAL):
                await one.open(access)
        file = await one.open(right)
        with refused(errno.EBUSY):
            await one.open(right)
        if state == "RESUMING":
            with refused(errno.EINVAL):
                await one.move("STOP")  # nothing came
        else:
            await one.move("STOP")
        file.closed()
        assert await one.state() == "STOP"


async def test_a_session_that_is_over_and_places_that_are_none(tmp_path: Path) -> None:
    one = await side(tmp_path)
    await one.move("STOP_COPY")
    out = await one.open(os.O_RDONLY)
    with refused(errno.ESPIPE):
        await out.read(4, 4)
    with refused(errno.EINVAL):
        await out.write(0, b"x")
    await one.move("STOP")
    with refused(errno.ENODEV):
        await out.read(0, 4)
    into = await resume(one, b"QEVM")
    with refused(errno.ESPIPE):
        await into.write(0, b"x")
    with refused(errno.EINVAL):
        await into.read(0, 1)
    await one.sys.write(f"bus/mdev/devices/{UUID}/remove", "1")
    for call in (into.write(4, b"x"), into.sync()):
        with refused(errno.ENODEV):
            await call
    into.closed()


@pytest.mark.parametrize(
    ("change", "code", "number"),
    [
        (lambda data: data[:-4000], "state-cut-short", errno.EINVAL),
        (lambda data: b"XEVM" + data[4:], "state-not-a-stream", errno.EINVAL),
        (lambda data: data + b"x", "state-too-long", errno.ENOMEM),
        (
            lambda data: data.replace(b"nic\0\0\0\0\0\0\0\2", b"nic\0\0\0\0\0\0\0\3"),
            "state-version-too-new",
            errno.EINVAL,
        ),
        (lambda data: data.replace(b"\0\0\0\x07", b"\0\0\0\x0d", 1), "test-odd", errno.EINVAL),
        (lambda data: data.replace(b"\0\0\0\x07", b"\0\0\0\x0e", 1), "driver-fault", errno.EIO),
        (lambda data: data.replace(b"vendor-a.com/nic,", b"vendor-b.com/nic,"), "model-differs", errno.EINVAL),
    ],
)
async def test_what_does_not_load_leaves_the_target_as_it_was(
    tmp_path: Path, change: Any, code: str, number: int, expected_logs: object
) -> None:
    source, target = await side(tmp_path), await side(tmp_path)
    source.mdev.state.ctrl = 7
    data = change(await saved(source))
    await target.move("RESUMING")
    file = await target.open(os.O_WRONLY)
    with refused(number):
        await file.write(0, data)
        await file.sync()
    with refused(number, errno.EINVAL):
        await target.move("STOP")
    assert await target.state() == "RESUMING"
    assert [reason["code"] for reason in await target.reasons()] == [code]
    file.closed()
    assert (await target.state(), target.mdev.state.ctrl) == ("RUNNING", 1)


async def test_a_source_that_the_handshake_refuses_does_not_load(tmp_path: Path) -> None:
    source, target = await side(tmp_path, "rss=on"), await side(tmp_path)
    file = await resume(target, await saved(source))
    with refused(errno.EINVAL):
        await file.sync()
    assert [(one["code"], one["parameter"]) for one in await target.reasons()] == [("value-differs", "rss")]


async def test_versions_to_save_with_and_to_block(tmp_path: Path) -> None:
    source, target = await side(tmp_path), await side(tmp_path)
    source.mdev.state.later = 5
    assert await source.sys.read(f"{MDEV}/save_state_version") == "2\n"
    await source.sys.write(f"{MDEV}/save_state_version", "1")
    assert await source.sys.read(f"bus/mdev/devices/{UUID}/migration_version") == "vendor-a.com/nic\n"
    file = await resume(target, await saved(source))
    await target.move("RUNNING")
    file.closed()
    assert target.mdev.state.later == 0
    assert await target.sys.read(f"{MDEV}/blocked_state_versions") == "\n"
    await target.sys.write(f"{MDEV}/blocked_state_versions", "1\n")
    with refused(errno.EINVAL):
        await target.sys.write(f"bus/mdev/devices/{UUID}/migration_version", "vendor-a.com/nic")
    with refused(errno.EINVAL):
        await resume(target, await saved(source))
    assert [one["code"] for one in await target.reasons()] == ["state-version-blocked"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("save_state_version", "3"),
        ("save_state_version", "0"),
        ("save_state_version", "x"),
        ("blocked_state_versions", "1-3"),
        ("blocked_state_versions", "2-1"),
        ("blocked_state_versions", "1-"),
        ("blocked_state_versions", "0-99999999"),
    ],
)
async def test_versions_that_there_are_not(tmp_path: Path, name: str, text: str) -> None:
    one = await side(tmp_path)
    with refused(errno.EINVAL):
        await one.sys.write(f"{MDEV}/{name}", text)
    assert [reason["code"] for reason in await one.reasons()] == ["state-version-unknown"]
    await one.move("STOP_COPY")
    with refused(errno.EBUSY):
        await one.sys.write(f"{MDEV}/{name}", "1")
    assert [reason["code"] for reason in await one.reasons()] == ["state-moving"]
    with refused(errno.EBUSY):
        await one.sys.write(f"bus/mdev/devices/{UUID}/migration/rss", "on")


async def test_mtty_as_in_the_kernel(tmp_path: Path) -> None:
    source = await side(tmp_path, driver="mtty", type_id="mtty-2")
    data = await saved(source)
    assert len(data) == 96
    await source.move("PRE_COPY")
    file = await source.open(os.O_RDONLY)
    assert await file.read(0, 4096) == data[:24]
    assert await file.read(24, 4096) == b""
    await source.move("STOP_COPY")
    assert await file.read(24, 4096) == data[24:]
    file.closed()
    for wrong, number in ((data + b"x", errno.ENOMEM), (b"x" + data[1:24], errno.EFAULT)):
        await source.move("RESUMING")
        file = await source.open(os.O_WRONLY)
        with refused(number):
            await file.write(0, wrong)
        file.closed()
    file = await resume(source, data[:95])
    with refused(errno.EINVAL):
        await source.move("STOP")


async def test_debugfs_shows_where_it_is(tmp_path: Path) -> None:
    one = await side(tmp_path)
    where = f"kernel/debug/vfio/{UUID}/migration"
    assert await one.sys.read(f"{where}/features") == "stop-copy\np2p\npre-copy\n"
    for state in ("PRE_COPY", "STOP_COPY", "STOP", "RESUMING"):
        await one.move(state)
        assert await one.sys.read(f"{where}/state") == f"{state}\n"


async def test_a_state_file_that_is_open_for_both_is_a_lease_too(tmp_path: Path) -> None:
    """So that nobody who dies between two calls leaves a device stopped."""
    one = await side(tmp_path)
    for state in ("STOP_COPY", "PRE_COPY", "RESUMING"):
        moved = await one.sys.open(f"{MDEV}/migration_state", os.O_RDWR)
        await moved.write(0, state.encode())
        assert await moved.read(0, 4096) == f"{state}\n".encode()
        moved.closed()
        assert await one.state() == "RUNNING"
    moved = await one.sys.open(f"{MDEV}/migration_state", os.O_RDWR)
    for state in ("STOP_COPY", "STOP"):
        await moved.write(0, state.encode())
    moved.closed()
    assert await one.state() == "STOP"


async def e1000_of(machine: str, release: str) -> Side:
    host = await host_of(
        f'host.machine = "{machine}"\n[[device]]\ndriver = "e1000"\naddress = "0000:00:03.0"\n'
        f'settings = {{ release = "{release}" }}\n'
    )
    found = Side(host)
    await found.sys.write("class/mdev_bus/0000:00:03.0/mdev_supported_types/e1000-nic/create", UUID)
    return found


async def test_a_stream_names_its_machine_type_and_a_handshake_outweighs_it() -> None:
    """Who says its string has been asked; a stream of QEMU's, which says none, is held to the machine type."""
    source, target = await e1000_of("pc-q35-6.2", "7.2"), await e1000_of("pc-q35-7.0", "7.2")
    data = await saved(source)
    assert data[13:23] == b"pc-q35-6.2"
    file = await resume(target, data)
    await target.move("RUNNING")
    file.closed()
    foreign = data.replace(b'"migration_version"', b'"migration_wording"')
    file = await resume(target, foreign)
    with refused(errno.EINVAL):
        await file.sync()
    assert [one["code"] for one in await target.reasons()] == ["state-machine-differs"]
    file.closed()
    assert await target.state() == "RUNNING"
