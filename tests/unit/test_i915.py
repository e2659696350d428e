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
    ((KERNEL, 2, 1), (KERNEL, 8, 4), [(RESOURCES, name) for name in ("high_gm_size", "fence", "resolution")]),
    ((KERNEL, 4, 2), (KERNEL, 8, 4), [(RESOURCES, name) for name in ("high_gm_size", "fence", "resolution")]),
    ((KERNEL, 4, 2), (KERNEL, 4, 2), []),
    ((KERNEL, 4, 2), (KERNEL, 4, 1), [(RESOURCES, name) for name in ("low_gm_size", "high_gm_size", "fence")]),
    ((KERNEL, 4, 1), (KERNEL, 4, 2), [(RESOURCES, name) for name in ("low_gm_size", "high_gm_size", "fence")]),
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
            "8086-591d-i915-GVTg_V5_4,aggregator=2,low_gm_size=256,high_gm_size=1024,fence=8,resolution=1920x1200-00000001",
        ),
        (
            *(EVEN, 4, 1),
            "8086-591d-i915-GVTg_V5_4,aggregator=1,low_gm_size=128,high_gm_size=512,fence=2,resolution=1920x1200-00000001",
        ),
    ],
)
async def test_the_string_is_the_series_own_unless_it_would_not_tell_all(
    settings: str, suffix: int, units: int, string: str
) -> None:
    one = await vgpu(settings, suffix, units)
    assert one.string == string
    assert await one.client.read(f"{one.path}/intel_vgpu/vgpu_id") == "1\n"
    assert one.client.list(f"{one.path}/migration") == ["generation", "gpu", "resources", "software-version"]
    info = json.loads(await one.client.read(f"{one.path}/mdev_type/migration_info.json"))["models"]["intel.com/gvt-g"]
    held = {"resources": (await one.client.read(f"{one.path}/migration/resources")).strip()}
    assert held == info["arguments"]["aggregator"][str(units)]


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        ("hello", "i915-format"),
        (PLAIN[:-1], "i915-format"),
        (PLAIN.replace("-i915-", "-i915_"), "i915-format"),
        (PLAIN.replace("V5_4", "V5_4,aggregator=2"), "i915-format"),
        (
            PLAIN.replace("V5_4", "V5_4,aggregator=2,low_gm_size=0256,high_gm_size=1,fence=1,resolution=1x1"),
            "i915-format",
        ),
        (PLAIN.replace("V5_4", "V5_4,aggregator=0,low_gm_size=1,high_gm_size=1,fence=1,resolution=1x1"), "i915-format"),
        (PLAIN.replace("V5_4", "V9_4"), TYPE),
        (
            PLAIN.replace("V5_4", "V5_4,aggregator=2,low_gm_size=256,high_gm_size=1024,fence=8,resolution=1x1"),
            RESOURCES,
        ),
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
        ("aperture_mb = 512", 4, 3, "low_gm_size"),
        ("aperture_mb = 1024", 8, 7, "high_gm_size"),
        ("aperture_mb = 2048, ggtt_mb = 16384", 8, 7, "fence"),
    ],
)
async def test_too_many_units_take_nothing(settings: str, suffix: int, units: int, short: str) -> None:
    """More than the GPU has is no argument, more than it has left finds no space; created or written later."""
    built = await host_of(host(settings))
    client = InProcess(built.tree)
    kind = f"class/mdev_bus/0000:00:02.0/mdev_supported_types/i915-GVTg_V5_{suffix}"

    async def reason(device: str) -> tuple[str, str]:
        (found,) = json.loads(await client.read(f"{device}/mdevfs/last_verdict"))["reasons"]
        return found["code"], found["parameter"]

    assert await create(client, suffix, 1, f",aggregator={units + 1}") == errno.EINVAL
    assert await reason(kind) == ("value-not-allowed", "aggregator")
    assert client.list("bus/mdev/devices") == []
    assert await create(client, suffix, 1) == 0
    before = await available(client)
    assert await create(client, suffix, 2, f",aggregator={units}") == errno.ENOSPC
    assert await reason(kind) == ("no-instances", short)
    info = json.loads(await client.read(f"{kind}/migration_info.json"))["models"]["intel.com/gvt-g"]
    most = info["arguments"]["aggregator"][str(units)]["resources"]
    assert most == info["params"]["resources"]["allowed_values"][-1]
    assert await create(client, suffix, 2) == 0
    second = f"bus/mdev/devices/facade00-0000-4000-8000-{2:012x}"
    with pytest.raises(OSError, match=f"no-instances: {short}") as caught:
        await client.write(f"{second}/migration/resources", most)
    assert caught.value.errno == errno.ENOSPC
    assert await reason(second) == ("no-instances", short)
    await client.write(f"{second}/remove", "1")
    assert await available(client) == before
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


@pytest.mark.parametrize(
    "arguments", [",aggregator=0", ",aggregator=8", ",aggregator=two", ",units=2", ",aggregator=1,aggregator=1", ","]
)
async def test_arguments_that_create_nothing(arguments: str) -> None:
    built = await host_of(host(KERNEL))
    client = InProcess(built.tree)
    assert await create(client, 8, 1, arguments) == errno.EINVAL
    assert client.list("bus/mdev/devices") == []


async def test_resources_are_changed_later() -> None:
    """RFC v3's way to prepare a target: what the GPU gives is counted anew; a device in use keeps what it has."""
    one, two = await vgpu(KERNEL, 4, 1), await vgpu(KERNEL, 4, 3)
    write, resources = one.client.write, f"{one.path}/migration/resources"
    assert await available(one.client) == ["1", "2", "4", "5"]
    for name in one.client.list(f"{two.path}/migration"):
        await write(f"{one.path}/migration/{name}", await two.client.read(f"{two.path}/migration/{name}"))
    assert await one.client.read(f"{one.path}/migration_version") == f"{two.string}\n"
    assert await available(one.client) == await available(two.client) == ["0", "1", "2", "3"]
    assert await one.client.read(f"{one.path}/intel_vgpu/vgpu_id") == "1\n"
    await write(f"{one.path}/mdevfs/in_use", "1")
    with pytest.raises(OSError, match="in-use: resources"):
        await write(resources, "low_gm_size:128/high_gm_size:512/fence:4/resolution:1920x1200")
    await write(f"{one.path}/mdevfs/in_use", "0")
    await write(resources, "low_gm_size:128/high_gm_size:512/fence:4/resolution:1920x1200")
    assert await one.client.read(f"{one.path}/migration_version") == f"{PLAIN}\n"
    assert await available(one.client) == ["1", "2", "4", "5"]
    check_tree(one.host.tree)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("gpu", "8086-1912"),
        ("generation", "8"),
        ("software-version", "2"),
        (
            "resources",
            "low_gm_size:256/high_gm_size:1024/fence:4/resolution:1920x1200",
        ),  # V5_2's, two V5_4 have 8 fences
        ("resources", "8086"),
    ],
)
async def test_what_no_unit_of_the_type_is(name: str, text: str) -> None:
    one = await vgpu(KERNEL, 4, 1)
    with pytest.raises(OSError, match=f"value-not-allowed: {name}"):
        await one.client.write(f"{one.path}/migration/{name}", text)
    assert await create(one.client, 4, 2, f",{name}={text}") == errno.EINVAL


async def test_a_parameter_is_taken_instead_of_units() -> None:
    """As it is taken instead of a version's."""
    built = await host_of(host(EVEN))
    client = InProcess(built.tree)
    for number, given in enumerate(("", ",aggregator=4"), 1):
        wanted = ",resources=low_gm_size:128/high_gm_size:512/fence:2/resolution:1920x1200"
        assert await create(client, 8, number, given + wanted) == 0
        string = await client.read(f"bus/mdev/devices/facade00-0000-4000-8000-{number:012x}/migration_version")
        assert "V5_8,aggregator=2,low_gm_size=128" in string


async def test_two_generations_with_one_device_id() -> None:
    """A host.toml can say so; neither the series' rule nor ours takes it."""
    for settings, codes in ((KERNEL, [(TYPE, "type")]), (EVEN, [(HARDWARE, "generation")])):
        older = await end(host(f"{settings}, generation = 8"), "i915-GVTg_V4_4")
        assert await reasons(await vgpu(settings, 4, 1), older.string) == codes


@pytest.mark.parametrize("settings", ["generation = 11", "software_version = 0"])
async def test_what_does_not_migrate_has_no_model(settings: str) -> None:
    built = await host_of(host(settings))
    client, kind = InProcess(built.tree), "class/mdev_bus/0000:00:02.0/mdev_supported_types/i915-GVTg_V5_4"
    assert await create(client, 4, 1) == 0
    assert not client.exists(f"{kind}/migration_info.json")
    assert not client.exists(f"bus/mdev/devices/facade00-0000-4000-8000-{1:012x}/migration")
    for path in (kind, f"bus/mdev/devices/facade00-0000-4000-8000-{1:012x}"):
        with pytest.raises(OSError, match="cannot-migrate") as caught:
            await client.read(f"{path}/migration_version")
        assert caught.value.errno == errno.ENODEV
    assert await create(client, 4, 2, ",aggregator=2") == errno.EINVAL
    verdict = json.loads(await client.read(f"{kind}/mdevfs/last_verdict"))
    assert [reason["code"] for reason in verdict["reasons"]] == ["no-model"]


@pytest.mark.parametrize("types", ["{ 3 = {} }", "{ 8 = { low_gm_mb = 3 } }", "{ 8 = { resolution = 'big' } }"])
async def test_impossible_types(types: str) -> None:
    with pytest.raises(InputError, match="types"):
        await host_of(host(f"types = {types}"))


async def test_the_shipped_host_is_even() -> None:
    text = shipped()["gvtg-aggregate"].read_text()
    one = await end(text, "i915-GVTg_V5_8", "aggregator=4")
    whole = await end(text, "i915-GVTg_V5_2")
    assert await answer(one, whole.string) == await answer(whole, one.string) == []
