"""GVT-g: the series' strict rule for single units, and aggregated vGPUs, which are compared by what they take."""

from __future__ import annotations

import errno
import itertools
import json

import pytest

from mdevfs.errors import InputError
from mdevfs.host.read import shipped
from tests.support import InProcess, check_tree, host_of
from tests.unit.handshakes import End, answer, end, reasons

PLAIN = "8086-591d-i915-GVTg_V5_4-00000001"
DIVIDED = "types = { 4 = { fence = 2 }, 8 = { fence = 1, high_gm_mb = 256, resolution = '1920x1200' } }"
KERNEL = "aperture_mb = 1024"
EVEN = f"{KERNEL}, {DIVIDED}"  # one V5_2 = two V5_4 = four V5_8, in every respect
HARDWARE, SOFTWARE, TYPE, RESOURCES = "i915-hardware", "i915-software-version", "i915-type", "i915-resources"
Config = tuple[str, int, int]  # settings, suffix, aggregator
WHOLE = [(EVEN, 2, 1), (EVEN, 4, 2), (EVEN, 8, 4), (KERNEL, 2, 1)]  # all take the same

TABLE: list[tuple[Config, Config, list[tuple[str, str | None]]]] = [
    *((source, target, []) for source, target in itertools.product(WHOLE, WHOLE)),
    # As the kernel shares a GPU, fences and high memory do not divide, and resolutions differ.
    ((KERNEL, 2, 1), (KERNEL, 4, 2), [(RESOURCES, "fence")]),
    ((KERNEL, 4, 2), (KERNEL, 2, 1), [(RESOURCES, "fence")]),
    ((KERNEL, 2, 1), (KERNEL, 8, 4), [(RESOURCES, name) for name in ("high_gm", "fence", "resolution")]),
    ((KERNEL, 4, 2), (KERNEL, 8, 4), [(RESOURCES, name) for name in ("high_gm", "fence", "resolution")]),
    ((KERNEL, 4, 2), (KERNEL, 4, 2), []),
    ((KERNEL, 4, 2), (KERNEL, 4, 1), [(RESOURCES, name) for name in ("low_gm", "high_gm", "fence")]),
    ((KERNEL, 4, 1), (KERNEL, 4, 2), [(RESOURCES, name) for name in ("low_gm", "high_gm", "fence")]),
    # The same type on a host that shares its GPU in another way.
    ((KERNEL, 4, 1), (EVEN, 4, 1), [(RESOURCES, "fence")]),
    ((EVEN, 4, 1), (KERNEL, 4, 1), [(RESOURCES, "fence")]),
    ((EVEN, 4, 1), (EVEN, 4, 1), []),
    ((EVEN, 8, 2), (EVEN, 4, 1), []),
    # One unit of the kernel's: types must be equal, whatever they take.
    ((KERNEL, 4, 1), (KERNEL, 4, 1), []),
    ((KERNEL, 4, 1), (KERNEL, 2, 1), [(TYPE, "type")]),
    # Other reasons go on before.
    ((f"{KERNEL}, software_version = 2", 4, 2), (KERNEL, 2, 1), [(SOFTWARE, "software_version"), (RESOURCES, "fence")]),
    ((f"{EVEN}, device_id = 0x1912", 4, 2), (EVEN, 2, 1), [(HARDWARE, "hardware")]),
]


def host(settings: str) -> str:
    return f'[[device]]\ndriver = "i915"\nsettings = {{ {settings} }}\n'


async def vgpu(settings: str, suffix: int, units: int) -> End:
    return await end(host(settings), f"i915-GVTg_V5_{suffix}", f"aggregator={units}" if units > 1 else "")


@pytest.mark.parametrize(("source", "target", "expected"), TABLE)
async def test_the_handshake(source: Config, target: Config, expected: list[tuple[str, str | None]]) -> None:
    assert await reasons(await vgpu(*target), (await vgpu(*source)).string) == expected


@pytest.mark.parametrize(
    ("settings", "suffix", "units", "string"),
    [
        (KERNEL, 4, 1, PLAIN),
        (EVEN, 2, 1, "8086-591d-i915-GVTg_V5_2-00000001"),
        (
            *(KERNEL, 4, 2),
            "8086-591d-i915-GVTg_V5_4,aggregator=2,low_gm=256,high_gm=1024,fence=8,resolution=1920x1200-00000001",
        ),
        (
            *(EVEN, 4, 1),
            "8086-591d-i915-GVTg_V5_4,aggregator=1,low_gm=128,high_gm=512,fence=2,resolution=1920x1200-00000001",
        ),
    ],
)
async def test_the_string_is_the_series_own_unless_it_would_not_tell_all(
    settings: str, suffix: int, units: int, string: str
) -> None:
    one = await vgpu(settings, suffix, units)
    assert one.string == string
    units_read = await one.client.read(f"{one.path}/migration/aggregator")
    assert units_read == f"{units}\n"


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        ("hello", "i915-format"),
        (PLAIN[:-1], "i915-format"),
        (PLAIN.replace("-i915-", "-i915_"), "i915-format"),
        (PLAIN.replace("V5_4", "V5_4,aggregator=2"), "i915-format"),
        (PLAIN.replace("V5_4", "V5_4,aggregator=2,low_gm=0256,high_gm=1,fence=1,resolution=1x1"), "i915-format"),
        (PLAIN.replace("V5_4", "V5_4,aggregator=0,low_gm=1,high_gm=1,fence=1,resolution=1x1"), "i915-format"),
        (PLAIN.replace("V5_4", "V9_4"), TYPE),
        (PLAIN.replace("V5_4", "V5_4,aggregator=2,low_gm=256,high_gm=1024,fence=8,resolution=1x1"), RESOURCES),
    ],
)
async def test_strings_that_are_not_those_of_a_vgpu_here(spoil: str, code: str) -> None:
    for one in (await vgpu(KERNEL, 4, 2), await vgpu(KERNEL, 2, 1)):
        assert set(await answer(one, spoil)) == {code}


# -- capacity


async def available(client: InProcess) -> list[str]:
    types = "class/mdev_bus/0000:00:02.0/mdev_supported_types"
    return [(await client.read(f"{types}/{name}/available_instances")).strip() for name in client.list(types)]


async def create(client: InProcess, suffix: int, number: int, arguments: str = "") -> int:
    """0 or the errno."""
    path = f"class/mdev_bus/0000:00:02.0/mdev_supported_types/i915-GVTg_V5_{suffix}/create"
    try:
        await client.write(path, f"facade00-0000-4000-8000-{number:012x}{arguments}")
    except OSError as error:
        return error.errno or 0
    return 0


async def test_units_are_taken_and_given_back() -> None:
    built = await host_of(host(KERNEL))
    client = InProcess(built.tree)
    empty = await available(client)
    assert empty == ["1", "2", "5", "7"]  # of V5_1, _2, _4, _8
    assert await create(client, 8, 1, ",aggregator=4") == 0
    assert await available(client) == ["0", "1", "2", "3"]  # 4 * 4 of 28 fences, 4 * 384 of 2688 MB
    assert await create(client, 4, 2, ",aggregator=2") == 0
    assert await available(client) == ["0", "0", "0", "0"]  # 2688 - 1536 - 1024 MB
    last = "bus/mdev/devices/facade00-0000-4000-8000-{:012x}".format
    await client.write(f"{last(1)}/remove", "1")
    assert await available(client) == ["0", "1", "3", "4"]
    assert await client.read(f"{last(2)}/intel_vgpu/vgpu_id") == "2\n"
    await client.write(f"{last(2)}/remove", "1")
    assert await available(client) == empty
    check_tree(built.tree)


@pytest.mark.parametrize(
    ("settings", "suffix", "units", "short"),
    [
        ("aperture_mb = 512", 4, 4, "low_gm"),
        ("aperture_mb = 1024", 8, 8, "high_gm"),
        ("aperture_mb = 2048, ggtt_mb = 16384", 8, 8, "fence"),
    ],
)
async def test_too_many_units_take_nothing(settings: str, suffix: int, units: int, short: str) -> None:
    built = await host_of(host(settings))
    client = InProcess(built.tree)
    before = await available(client)
    assert await create(client, suffix, 1, f",aggregator={units}") == errno.ENOSPC
    assert await available(client) == before
    path = f"class/mdev_bus/0000:00:02.0/mdev_supported_types/i915-GVTg_V5_{suffix}/mdevfs/last_verdict"
    (reason,) = json.loads(await client.read(path))["reasons"]
    assert (reason["code"], reason["parameter"]) == ("no-instances", short)
    assert client.list("bus/mdev/devices") == []
    check_tree(built.tree)


async def test_seven_vgpus_whatever_their_units() -> None:
    built = await host_of(host("aperture_mb = 2048, ggtt_mb = 65536, fences = 64"))
    client = InProcess(built.tree)
    for number in range(1, 8):
        assert await create(client, 8, number, ",aggregator=2" if number % 2 else "") == 0
    assert await create(client, 8, 8) == errno.ENOSPC
    await client.write("bus/mdev/drivers/intel_vgpu_mdev/unbind", f"facade00-0000-4000-8000-{3:012x}")
    assert await create(client, 8, 8) == 0
    assert await client.read(f"bus/mdev/devices/facade00-0000-4000-8000-{8:012x}/intel_vgpu/vgpu_id") == "3\n"
    check_tree(built.tree)


@pytest.mark.parametrize("arguments", [",aggregator=0", ",aggregator=17", ",aggregator=two", ",units=2", ","])
async def test_arguments_that_create_nothing(arguments: str) -> None:
    built = await host_of(host(KERNEL))
    client = InProcess(built.tree)
    assert await create(client, 8, 1, arguments) == errno.EINVAL
    assert client.list("bus/mdev/devices") == []


async def test_units_are_not_changed_later() -> None:
    one = await vgpu(KERNEL, 4, 2)
    with pytest.raises(OSError) as caught:
        await one.client.write(f"{one.path}/migration/aggregator", "1")
    assert caught.value.errno == errno.EACCES


@pytest.mark.parametrize("types", ["{ 3 = {} }", "{ 8 = { low_gm_mb = 3 } }", "{ 8 = { resolution = 'big' } }"])
async def test_impossible_types(types: str) -> None:
    with pytest.raises(InputError, match="types"):
        await host_of(host(f"types = {types}"))


async def test_the_shipped_host_is_even() -> None:
    text = shipped()["gvtg-aggregate"].read_text()
    one = await end(text, "i915-GVTg_V5_8", "aggregator=4")
    whole = await end(text, "i915-GVTg_V5_2")
    assert await answer(one, whole.string) == await answer(whole, one.string) == []
