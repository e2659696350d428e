"""NVIDIA vGPU: who migrates where, and every reason why not."""

from __future__ import annotations

import itertools

import pytest

from tests.unit.handshakes import End, answer, end, reasons

HOSTS = {
    "T4": '[[device]]\ndriver = "nvidia"\n',
    "T4 older": '[[device]]\ndriver = "nvidia"\nsettings = { driver_release = "535.247.01" }\n',
    "A16": '[[device]]\ndriver = "nvidia"\nsettings = { board = "A16" }\nsriov = { total = 2, num = 2 }\n',
}
ENDS = [("T4", 222), ("T4", 230), ("T4 older", 222), ("T4 older", 231), ("A16", 709), ("A16", 711)]
EXPECTED = {
    (("T4", 222), ("T4", 230)): ["type"],
    (("T4", 222), ("T4 older", 222)): ["release"],
    (("T4", 222), ("T4 older", 231)): ["release", "type"],
    (("T4", 222), ("A16", 709)): ["board", "type"],
    (("T4", 222), ("A16", 711)): ["board", "type"],
    (("T4", 230), ("T4 older", 222)): ["release", "type"],
    (("T4", 230), ("T4 older", 231)): ["release", "type"],
    (("T4", 230), ("A16", 709)): ["board", "type"],
    (("T4", 230), ("A16", 711)): ["board", "type"],
    (("T4 older", 222), ("T4 older", 231)): ["type"],
    (("T4 older", 222), ("A16", 709)): ["board", "release", "type"],
    (("T4 older", 222), ("A16", 711)): ["board", "release", "type"],
    (("T4 older", 231), ("A16", 709)): ["board", "release", "type"],
    (("T4 older", 231), ("A16", 711)): ["board", "release", "type"],
    (("A16", 709), ("A16", 711)): ["type"],
}
OWN = "nvidia.com/vgpu,board=10de:1eb8,release=550.163.02,type=nvidia-222"


async def vgpu(kind: str, number: int) -> End:
    """A host with one vGPU."""
    return await end(HOSTS[kind], f"nvidia-{number}")


async def test_all_pairs_of_the_handshake() -> None:
    ends = {one: await vgpu(*one) for one in ENDS}
    assert ends["T4", 222].string == OWN
    for source, target in itertools.product(ENDS, ENDS):
        pair = (source, target) if (source, target) in EXPECTED else (target, source)
        expected = [] if source == target else [("value-differs", name) for name in EXPECTED[pair]]
        assert await reasons(ends[target], ends[source].string) == expected, (source, target)


@pytest.mark.parametrize(
    ("string", "codes"),
    [
        ("8086-591d-i915-GVTg_V5_4-00000001", ["string-malformed"]),
        ("kernel.org/mtty,ports=1", ["model-differs"]),
        ("nvidia.com/vgpu", ["parameter-missing"] * 3),
        (OWN.replace(",type=nvidia-222", ""), ["parameter-missing"]),
        (f"{OWN},more=1", ["parameter-unknown"]),
    ],
)
async def test_other_strings_are_refused(string: str, codes: list[str]) -> None:
    assert await answer(await vgpu("T4", 222), string) == codes


async def test_a_type_speaks_for_its_vgpus() -> None:
    one = await vgpu("A16", 709)
    kind = "class/mdev_bus/0000:00:02.5/mdev_supported_types/nvidia-709"
    assert await one.client.read(f"{kind}/migration_version") == f"{one.string}\n"
    assert await one.client.write(f"{kind}/migration_version", one.string) == len(one.string)
    with pytest.raises(OSError, match="value-differs: type"):
        await one.client.write(f"{kind}/migration_version", one.string.replace("709", "711"))
