"""NVIDIA vGPU: who migrates where, and every reason why not."""

from __future__ import annotations

import errno
import itertools
import json

import pytest

from tests.support import InProcess, host_of

UUID = "83b8f4f2-509f-382f-3c1e-e6bfe0fa1001"
HOSTS = {
    "T4": '[[device]]\ndriver = "nvidia"\n',
    "T4 older": '[[device]]\ndriver = "nvidia"\nsettings = { driver_release = "535.247.01" }\n',
    "A16": '[[device]]\ndriver = "nvidia"\nsettings = { board = "A16" }\nsriov = { total = 2, num = 2 }\n',
}
ENDS = [("T4", 222), ("T4", 230), ("T4 older", 222), ("T4 older", 231), ("A16", 709), ("A16", 711)]
BOARD, TYPE, RELEASE = "nvidia-board", "nvidia-type", "nvidia-release"
EXPECTED = {
    (("T4", 222), ("T4", 230)): [TYPE],
    (("T4", 222), ("T4 older", 222)): [RELEASE],
    (("T4", 222), ("T4 older", 231)): [TYPE, RELEASE],
    (("T4", 222), ("A16", 709)): [BOARD, TYPE],
    (("T4", 222), ("A16", 711)): [BOARD, TYPE],
    (("T4", 230), ("T4 older", 222)): [TYPE, RELEASE],
    (("T4", 230), ("T4 older", 231)): [TYPE, RELEASE],
    (("T4", 230), ("A16", 709)): [BOARD, TYPE],
    (("T4", 230), ("A16", 711)): [BOARD, TYPE],
    (("T4 older", 222), ("T4 older", 231)): [TYPE],
    (("T4 older", 222), ("A16", 709)): [BOARD, TYPE, RELEASE],
    (("T4 older", 222), ("A16", 711)): [BOARD, TYPE, RELEASE],
    (("T4 older", 231), ("A16", 709)): [BOARD, TYPE, RELEASE],
    (("T4 older", 231), ("A16", 711)): [BOARD, TYPE, RELEASE],
    (("A16", 709), ("A16", 711)): [TYPE],
}


async def end(kind: str, number: int) -> tuple[InProcess, str]:
    """A client of a host with one vGPU, and the vGPU's path."""
    client = InProcess((await host_of(HOSTS[kind])).tree)
    parent = client.list("class/mdev_bus")[0]
    await client.write(f"class/mdev_bus/{parent}/mdev_supported_types/nvidia-{number}/create", UUID)
    return client, f"bus/mdev/devices/{UUID}"


async def answer(client: InProcess, path: str, string: str) -> list[str]:
    """The codes of the verdict on a handshake; a refusal is EINVAL."""
    answered = 0
    try:
        await client.write(f"{path}/migration_version", string)
    except OSError as error:
        answered = error.errno or 0
    verdict = json.loads(await client.read(f"{path}/mdevfs/last_verdict"))
    codes = [reason["code"] for reason in verdict["reasons"]]
    assert (answered, verdict["compatible"]) == ((errno.EINVAL, False) if codes else (0, True))
    return codes


async def test_all_pairs_of_the_handshake() -> None:
    ends = {one: await end(*one) for one in ENDS}
    strings = {one: await client.read(f"{path}/migration_version") for one, (client, path) in ends.items()}
    assert strings["T4", 222] == "nvidia.com/vgpu,board=10de:1eb8,type=nvidia-222,release=550.163.02\n"
    for source, target in itertools.product(ENDS, ENDS):
        pair = (source, target) if (source, target) in EXPECTED else (target, source)
        expected = [] if source == target else EXPECTED[pair]
        assert await answer(*ends[target], strings[source]) == expected, (source, target)


@pytest.mark.parametrize(
    ("string", "code"),
    [
        ("8086-591d-i915-GVTg_V5_4-00000001", "other-vendor"),
        ("kernel.org/mtty,ports=1", "other-vendor"),
        ("nvidia.com/vgpu", "string-malformed"),
        ("nvidia.com/vgpu,board=10de:1eb8,type=nvidia-222", "string-malformed"),
        ("nvidia.com/vgpu,board=10de:1eb8,type=nvidia-222,release=550.163.02,more=1", "string-malformed"),
    ],
)
async def test_other_strings_are_refused(string: str, code: str) -> None:
    assert await answer(*await end("T4", 222), string) == [code]


async def test_a_type_speaks_for_its_vgpus() -> None:
    client, path = await end("A16", 709)
    kind = "class/mdev_bus/0000:00:02.5/mdev_supported_types/nvidia-709"
    string = await client.read(f"{kind}/migration_version")
    assert string == await client.read(f"{path}/migration_version")
    assert await answer(client, kind, string) == []
    assert await answer(client, kind, string.replace("709", "711")) == [TYPE]
