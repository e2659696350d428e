"""Kernel bugs to test tools against (golden/recordings/README.md, "Surprises"), each off unless a host asks for it."""

from __future__ import annotations

import errno

import pytest
import trio

from mdevfs.host.host import Host
from tests.support import InProcess, check_tree, host_of

UUID = "a1b2c3d4-0001-4abc-8def-0123456789ab"
TYPE = "class/mdev_bus/mtty/mdev_supported_types/mtty-1"
DEVICE = f"bus/mdev/devices/{UUID}"


async def machine(*quirks: str) -> Host:
    names = ", ".join(f'"{quirk}"' for quirk in quirks)
    return await host_of(f'[host]\nkernel_quirks = [{names}]\n[[device]]\ndriver = "mtty"\n')


async def client(*quirks: str) -> InProcess:
    return InProcess((await machine(*quirks)).tree)


async def remove_during_create(sys: InProcess) -> list[int]:
    """What a listener gets that writes 1 to `remove` as soon as the device is there."""
    answers: list[int] = []

    async def react() -> None:
        while not sys.exists(f"{DEVICE}/remove"):
            await trio.lowlevel.checkpoint()
        try:
            answers.append(await sys.write(f"{DEVICE}/remove", "1"))
        except OSError as error:
            answers.append(-(error.errno or 0))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(react)
        await sys.write(f"{TYPE}/create", UUID)
    return answers


async def test_remove_race() -> None:
    host = await machine("remove-race")
    sys = InProcess(host.tree)
    assert await remove_during_create(sys) == [-errno.EAGAIN]
    assert "remove" not in sys.list(DEVICE)
    assert await sys.read(f"{TYPE}/available_instances") == "23\n"
    with pytest.raises(OSError, match="exists") as refused:
        await sys.write(f"{TYPE}/create", UUID)
    assert refused.value.errno == errno.EEXIST
    core = host.mdev
    await core.unregister_parent(core.parents["mtty"])  # as an rmmod does
    assert sys.list("bus/mdev/devices") == []
    check_tree(host.tree)


async def test_without_the_quirk_a_listener_removes() -> None:
    sys = await client()
    assert await remove_during_create(sys) == [1]
    assert sys.list("bus/mdev/devices") == []
    assert await sys.read(f"{TYPE}/available_instances") == "24\n"


@pytest.mark.parametrize(("quirks", "answers"), [((), [1, -errno.ENODEV]), (("double-remove",), [1, 1])])
async def test_double_remove(quirks: tuple[str, ...], answers: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    sys = await client(*quirks)
    await sys.write(f"{TYPE}/create", UUID)
    await sys.write(f"{DEVICE}/mdevfs/in_use", "1")  # so that the first remove takes its time
    path = f"devices/virtual/mtty/mtty/{UUID}"
    first, second = await sys.open(f"{path}/remove", 1), await sys.open(f"{path}/remove", 1)
    found: list[int] = []
    async with trio.open_nursery() as nursery:

        async def remove() -> None:
            found.append(await first.write(0, b"1"))

        nursery.start_soon(remove)
        while sys.exists(DEVICE):
            await trio.lowlevel.checkpoint()
        second.node.dead = False  # the second writer was already inside when the node went
        try:
            found.append(await second.write(0, b"1"))
        except Exception as error:
            found.append(-getattr(error, "errno", 0))
        await sys.write(f"{path}/mdevfs/in_use", "0")
    assert sorted(found) == sorted(answers)
    assert sys.list("bus/mdev/devices") == []
