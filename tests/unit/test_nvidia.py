"""NVIDIA vGPU: types and counts on a T4 and on an A16's VFs, refusals, parameters, VFs that go."""

from __future__ import annotations

import errno
import itertools
import json
from collections.abc import Sequence

import pytest

from mdevfs.errors import InputError
from mdevfs.events.stream import Event
from mdevfs.host.host import Host, load
from tests.support import InProcess, check_tree, host_of

A16 = "bus/pci/devices/0000:41:00.0"
VFS = [f"0000:41:{4 + index >> 3:02x}.{4 + index & 7}" for index in range(16)]


def uuid(number: int) -> str:
    return f"{number:08x}-509f-382f-3c1e-e6bfe0fa1001"


class Gpus:
    """A host, and what an administrator does to its GPUs; a parent is named by its address."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.client = InProcess(host.tree)
        self.numbers = itertools.count(1)

    def type_path(self, parent: str, number: int) -> str:
        return f"class/mdev_bus/{parent}/mdev_supported_types/nvidia-{number}"

    async def create(self, parent: str, number: int) -> str:
        mdev = uuid(next(self.numbers))
        await self.client.write(f"{self.type_path(parent, number)}/create", mdev)
        check_tree(self.host.tree)
        return mdev

    async def refused(self, parent: str, number: int) -> tuple[str, str]:
        """The errno and the code of a creation that is refused."""
        with pytest.raises(OSError) as caught:
            await self.create(parent, number)
        check_tree(self.host.tree)
        verdict = json.loads(await self.client.read(f"{self.type_path(parent, number)}/mdevfs/last_verdict"))
        (reason,) = verdict["reasons"]
        assert reason["mend"]
        assert caught.value.errno is not None
        assert errno.errorcode[caught.value.errno] == verdict["errno"]
        return verdict["errno"], reason["code"]

    async def remove(self, mdev: str) -> None:
        await self.client.write(f"bus/mdev/devices/{mdev}/remove", "1")
        check_tree(self.host.tree)

    async def counts(self, parent: str, numbers: Sequence[int]) -> list[int]:
        paths = [f"{self.type_path(parent, number)}/available_instances" for number in numbers]
        return [int(await self.client.read(path)) for path in paths]

    def types(self, parent: str) -> list[str]:
        return self.client.list(f"class/mdev_bus/{parent}/mdev_supported_types")


@pytest.fixture
async def t4() -> Gpus:
    return Gpus(await load("nvidia-t4"))


@pytest.fixture
async def a16() -> Gpus:
    return Gpus(await load("nvidia-a16"))


# -- what is there


async def test_a_t4_is_a_parent_itself(t4: Gpus) -> None:
    check_tree(t4.host.tree)
    assert t4.client.list("class/mdev_bus") == ["0000:3b:00.0", "0000:d8:00.0"]
    for address, node in (("0000:3b:00.0", "0\n"), ("0000:d8:00.0", "1\n")):
        function = f"bus/pci/devices/{address}"
        ids = [await t4.client.read(f"{function}/{name}") for name in ("vendor", "device", "class", "numa_node")]
        assert ids == ["0x10de\n", "0x1eb8\n", "0x030200\n", node]
        assert t4.client.readlink(f"{function}/driver").endswith("bus/pci/drivers/nvidia")
        assert not t4.client.exists(f"{function}/sriov_numvfs")
    numbers = [*range(222, 235), 252, 319, 320, 321]
    assert t4.types("0000:3b:00.0") == [f"nvidia-{number}" for number in numbers]


async def test_an_a16_has_parents_in_its_vfs_alone(a16: Gpus) -> None:
    check_tree(a16.host.tree)
    assert (VFS[0], VFS[4], VFS[15]) == ("0000:41:00.4", "0000:41:01.0", "0000:41:02.3")
    assert a16.client.list("class/mdev_bus") == VFS
    assert not a16.client.exists(f"{A16}/mdev_supported_types")
    assert await a16.client.read(f"{A16}/sriov_numvfs") == "16\n"
    assert await a16.client.read(f"{A16}/virtfn15/device") == "0x25b6\n"
    assert a16.types(VFS[0]) == a16.types(VFS[15]) == [f"nvidia-{number}" for number in range(709, 724)]


# T4's and A16's ids (-: none), suffix, heads, frame rate limit, framebuffer, resolution, max_instance
TYPES = """
222 709 1B  4 45 1024  5120x2880 16
252 -   1B4 4 45 1024  5120x2880 16
223 710 2B  4 45 2048  5120x2880 8
224 -   2B4 4 45 2048  5120x2880 8
225 716 1A  1 60 1024  1280x1024 16
226 717 2A  1 60 2048  1280x1024 8
227 718 4A  1 60 4096  1280x1024 4
228 719 8A  1 60 8192  1280x1024 2
229 720 16A 1 60 16384 1280x1024 1
230 711 1Q  4 60 1024  5120x2880 16
231 712 2Q  4 60 2048  7680x4320 8
232 713 4Q  4 60 4096  7680x4320 4
233 714 8Q  4 60 8192  7680x4320 2
234 715 16Q 4 60 16384 7680x4320 1
319 721 4C  1 60 4096  4096x2160 4
320 722 8C  1 60 8192  4096x2160 2
321 723 16C 1 60 16384 4096x2160 1
"""


@pytest.mark.parametrize(
    ("host", "column", "prefix", "parent"),
    [("nvidia-t4", 0, "GRID T4", "0000:d8:00.0"), ("nvidia-a16", 1, "NVIDIA A16", VFS[7])],
)
async def test_the_texts_of_all_types(host: str, column: int, prefix: str, parent: str) -> None:
    gpus = Gpus(await load(host))
    rows = [row for line in TYPES.strip().splitlines() if (row := line.split())[column] != "-"]
    assert sorted(f"nvidia-{row[column]}" for row in rows) == gpus.types(parent)
    for row in rows:
        suffix, heads, frl, framebuffer, resolution, most = row[2:]
        kind = gpus.type_path(parent, int(row[column]))
        assert await gpus.client.read(f"{kind}/name") == f"{prefix}-{suffix}\n"
        assert await gpus.client.read(f"{kind}/device_api") == "vfio-pci\n"
        assert await gpus.client.read(f"{kind}/description") == (
            f"num_heads={heads}, frl_config={frl}, framebuffer={framebuffer}M, "
            f"max_resolution={resolution}, max_instance={most}\n"
        )


async def test_a_t4_has_no_vfs_to_give() -> None:
    with pytest.raises(InputError, match=r"device\[0\].*sriov: a Tesla T4's vGPUs need no VFs"):
        await host_of('[[device]]\ndriver = "nvidia"\nsriov = { total = 16 }')


async def test_an_a16_without_vfs_has_no_parent() -> None:
    host = await host_of('[[device]]\ndriver = "nvidia"\nsettings = { board = "A16" }')
    check_tree(host.tree)
    assert list(host.mdev.parents) == []


# -- counts

# 1B 2B 1A 4A 1Q 2Q 16Q 1B4 4C
SOME_T4 = (222, 223, 225, 227, 230, 231, 234, 252, 319)
EMPTY_T4 = [16, 8, 16, 4, 16, 8, 1, 16, 4]


async def test_a_t4s_counts_follow_its_vgpus(t4: Gpus) -> None:
    gpu, other = "0000:3b:00.0", "0000:d8:00.0"
    assert await t4.counts(gpu, SOME_T4) == EMPTY_T4
    first = await t4.create(gpu, 231)
    assert await t4.counts(gpu, SOME_T4) == [0, 7, 0, 0, 0, 7, 0, 0, 0]
    second = await t4.create(gpu, 223)  # B beside Q: only the size must be the same
    assert await t4.counts(gpu, SOME_T4) == [0, 6, 0, 0, 0, 6, 0, 0, 0]
    assert await t4.counts(other, SOME_T4) == EMPTY_T4
    await t4.remove(first)
    assert await t4.counts(gpu, SOME_T4) == [0, 7, 0, 0, 0, 7, 0, 0, 0]
    await t4.remove(second)
    assert await t4.counts(gpu, SOME_T4) == EMPTY_T4
    await t4.create(gpu, 230)
    assert await t4.counts(gpu, SOME_T4) == [15, 0, 15, 0, 15, 0, 0, 15, 0]


@pytest.mark.parametrize(("number", "most"), [(230, 16), (231, 8), (319, 4), (233, 2), (234, 1)])
async def test_a_t4_holds_max_instance(t4: Gpus, number: int, most: int) -> None:
    gpu = "0000:3b:00.0"
    for left in range(most, 0, -1):
        assert await t4.counts(gpu, [number]) == [left]
        await t4.create(gpu, number)
    assert await t4.counts(gpu, [number]) == [0]
    assert await t4.refused(gpu, number) == ("EIO", "nvidia-full")
    assert len(t4.client.list("bus/mdev/devices")) == most
    await t4.create("0000:d8:00.0", number)


async def test_a_t4_refuses_another_size(t4: Gpus) -> None:
    gpu = "0000:3b:00.0"
    await t4.create(gpu, 222)
    assert await t4.refused(gpu, 231) == ("EIO", "nvidia-size")
    assert await t4.refused(gpu, 234) == ("EIO", "nvidia-size")
    verdict = json.loads(await t4.client.read(f"{t4.type_path(gpu, 231)}/mdevfs/last_verdict"))
    (reason,) = verdict["reasons"]
    assert (reason["parameter"], reason["source"], reason["target"]) == ("framebuffer", "2048M", "1024M")
    with pytest.raises(OSError) as caught:
        await t4.client.write(f"{t4.type_path(gpu, 222)}/create", uuid(1))
    assert caught.value.errno == errno.EEXIST


# 1B 2B 1Q 2Q 16Q 2A
SOME_A16 = (709, 710, 711, 712, 715, 717)


async def test_a_vf_says_one_or_none(a16: Gpus) -> None:
    for vf in VFS:
        assert await a16.counts(vf, SOME_A16) == [1] * 6
    made = [await a16.create(VFS[3], 712)]
    assert await a16.counts(VFS[3], SOME_A16) == [0] * 6
    for vf in (VFS[0], VFS[15]):
        assert await a16.counts(vf, SOME_A16) == [0, 1, 0, 1, 0, 1]
    assert await a16.refused(VFS[3], 712) == ("EIO", "nvidia-vf-taken")
    assert await a16.refused(VFS[3], 709) == ("EIO", "nvidia-vf-taken")
    assert await a16.refused(VFS[0], 709) == ("EIO", "nvidia-size")
    for vf in VFS[4:11]:  # 8 of 2048M fill the GPU, and leave 8 VFs without
        made.append(await a16.create(vf, 710))
    for vf in VFS:
        assert await a16.counts(vf, SOME_A16) == [0] * 6
    assert await a16.refused(VFS[0], 710) == ("EIO", "nvidia-full")
    await a16.remove(made.pop())
    assert await a16.counts(VFS[10], SOME_A16) == await a16.counts(VFS[0], SOME_A16) == [0, 1, 0, 1, 0, 1]
    for mdev in made:
        await a16.remove(mdev)
    assert await a16.counts(VFS[3], SOME_A16) == [1] * 6


async def test_an_a16_holds_a_small_vgpu_on_every_vf(a16: Gpus) -> None:
    for vf in VFS:
        await a16.create(vf, 711)
    for vf in VFS:
        assert await a16.counts(vf, SOME_A16) == [0] * 6
    assert await a16.refused(VFS[0], 711) == ("EIO", "nvidia-vf-taken")


async def test_vgpus_from_the_start_take_a_vf_each() -> None:
    host = await host_of(
        '[[device]]\ndriver = "nvidia"\naddress = "0000:41:00.0"\nsettings = { board = "A16" }\n'
        'sriov = { total = 16, num = 16 }\n[[device.mdev]]\ntype = "nvidia-714"\ncount = 2\n'
    )
    check_tree(host.tree)
    assert [mdev.parent.name for mdev in host.mdev.all()] == VFS[:2]


# -- attributes


async def test_a_vgpus_own_attributes(t4: Gpus) -> None:
    mdev = f"bus/mdev/devices/{await t4.create('0000:3b:00.0', 222)}"
    assert t4.client.list(f"{mdev}/nvidia") == ["vgpu_params", "vm_name"]
    modes = [t4.client.tree.walk(f"{mdev}/nvidia/{name}").entry.mode & 0o777 for name in ("vgpu_params", "vm_name")]
    assert modes == [0o644, 0o444]
    assert await t4.client.read(f"{mdev}/nvidia/vgpu_params") == "\n"
    assert await t4.client.read(f"{mdev}/nvidia/vm_name") == "\n"
    assert t4.client.readlink(f"{mdev}/driver").endswith("bus/mdev/drivers/nvidia-vgpu-vfio")


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (b"frame_rate_limiter=0, disable_vnc=1\n", b"frame_rate_limiter=0, disable_vnc=1\n"),
        (b"disable_vnc=0x1", b"disable_vnc=0x\n"),  # without a newline a character is lost
        (b" ", b"\n"),
        (b" \n", b" \n"),  # as `echo " "` clears: no parameter is left
        (b"\n", b"\n"),
        (b"\0", b"\n"),
        (b"1\n", b"1\n"),
        (b"1", b"1\n"),  # ours: the driver leaves nothing
        (b"unknown key\n", b"unknown key\n"),
        (b"a=1\nb=2\n", b"a=1\nb=2\n"),
        (b"a=1\0b=2\n", b"a=1\n"),
        (b"x" * 1024, b"x" * 1023 + b"\n"),
    ],
)
async def test_vgpu_params_are_replaced_but_for_the_last_byte(t4: Gpus, written: bytes, read: bytes) -> None:
    path = f"bus/mdev/devices/{await t4.create('0000:3b:00.0', 222)}/nvidia/vgpu_params"
    await t4.client.write(path, "enable_uvm=1, enable_debugging=1, enable_profiling=1\n")
    assert await t4.client.write(path, written) == len(written)
    assert (await t4.client.read(path)).encode() == read
    for long in (1025, 4096):
        with pytest.raises(OSError) as caught:
            await t4.client.write(path, b"y" * long)
        assert caught.value.errno == errno.E2BIG
    assert (await t4.client.read(path)).encode() == read


async def test_vgpu_params_are_fixed_while_the_device_is_in_use(t4: Gpus) -> None:
    mdev = f"bus/mdev/devices/{await t4.create('0000:3b:00.0', 222)}"
    await t4.client.write(f"{mdev}/nvidia/vgpu_params", "enable_uvm=1\n")
    await t4.client.write(f"{mdev}/mdevfs/in_use", "1")
    with pytest.raises(OSError) as caught:
        await t4.client.write(f"{mdev}/nvidia/vgpu_params", "enable_uvm=0\n")
    assert caught.value.errno == errno.EPERM
    await t4.client.write(f"{mdev}/mdevfs/in_use", "0")
    assert await t4.client.read(f"{mdev}/nvidia/vgpu_params") == "enable_uvm=1\n"


async def test_vgpu_params_belong_to_one_vgpu(t4: Gpus) -> None:
    one, two = [f"bus/mdev/devices/{await t4.create('0000:3b:00.0', 222)}/nvidia/vgpu_params" for _ in range(2)]
    await t4.client.write(one, "enable_uvm=1\n")
    assert (await t4.client.read(one), await t4.client.read(two)) == ("enable_uvm=1\n", "\n")


# -- VFs that come and go


async def test_parents_come_and_go_with_the_vfs(a16: Gpus) -> None:
    mdev = await a16.create(VFS[2], 712)
    heard: list[Event] = []
    a16.host.core.events.listeners.append(heard.append)

    def states(state: str) -> list[str]:
        return [event.devpath.rpartition("/")[2] for event in heard if event.keys.get("MDEV_STATE") == state]

    await a16.client.write(f"{A16}/sriov_numvfs", "0")
    check_tree(a16.host.tree)
    assert (states("unregistered"), states("registered")) == (VFS, [])
    assert a16.client.list("class/mdev_bus") == a16.client.list("bus/mdev/devices") == []
    assert not a16.client.exists(f"{A16}/virtfn0")
    gone = [event.action for event in heard if event.devpath.endswith(mdev)]
    assert gone == ["unbind", "remove"]

    heard.clear()
    await a16.client.write(f"{A16}/sriov_numvfs", "16")
    check_tree(a16.host.tree)
    assert (states("unregistered"), states("registered")) == ([], VFS)
    assert a16.client.list("class/mdev_bus") == VFS
    assert await a16.counts(VFS[2], SOME_A16) == [1] * 6


async def test_fewer_vfs_hold_fewer_vgpus(a16: Gpus) -> None:
    await a16.client.write(f"{A16}/sriov_numvfs", "0")
    await a16.client.write(f"{A16}/sriov_numvfs", "2")
    assert a16.client.list("class/mdev_bus") == VFS[:2]
    await a16.create(VFS[0], 711)
    assert await a16.counts(VFS[1], SOME_A16) == [1, 0, 1, 0, 0, 0]


async def test_an_unbound_vf_is_no_sibling(a16: Gpus) -> None:
    await a16.create(VFS[0], 712)
    await a16.client.write("bus/pci/drivers/nvidia/unbind", VFS[0])
    check_tree(a16.host.tree)
    assert a16.client.list("class/mdev_bus") == VFS[1:]
    assert await a16.counts(VFS[1], SOME_A16) == [1] * 6


async def test_an_unbound_gpu_loses_its_vgpus(t4: Gpus) -> None:
    await t4.create("0000:3b:00.0", 231)
    await t4.client.write("bus/pci/drivers/nvidia/unbind", "0000:3b:00.0")
    check_tree(t4.host.tree)
    assert (t4.client.list("class/mdev_bus"), t4.client.list("bus/mdev/devices")) == (["0000:d8:00.0"], [])
    await t4.client.write("bus/pci/drivers/nvidia/bind", "0000:3b:00.0")
    check_tree(t4.host.tree)
    assert await t4.counts("0000:3b:00.0", SOME_T4) == EMPTY_T4
