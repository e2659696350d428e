"""QAT: the target's services must contain the source's; virtual functions are the parents."""

from __future__ import annotations

import errno
import json

import pytest

from mdevfs.errors import InputError
from mdevfs.host.host import load
from tests.support import InProcess, check_tree, host_of
from tests.unit.handshakes import UUID, End, answer, end, reasons

MODEL = "intel.com/qat/4xxx-vf"
DIFFERS = ["value-differs"]
SERVICES = {
    "sym": '["sym"]',
    "crypto": '["asym", "sym"]',
    "dc": '["dc"]',
    "all": '["asym", "sym", "dc"]',
}
TABLE = [
    ("sym", "sym", []),
    ("sym", "crypto", []),
    ("sym", "all", []),
    ("crypto", "all", []),
    ("dc", "all", []),
    ("crypto", "sym", DIFFERS),
    ("all", "sym", DIFFERS),
    ("all", "crypto", DIFFERS),
    ("dc", "crypto", DIFFERS),
    ("sym", "dc", DIFFERS),
]


def text(services: str = '["sym"]', more: str = "", vfs: int = 2) -> str:
    return (
        '[[device]]\ndriver = "qat"\naddress = "0000:6b:00.0"\n'
        f"sriov = {{ total = 16, num = {vfs} }}\nsettings = {{ services = {services}{more} }}\n"
    )


async def vf(services: str, more: str = "", parent: int = 0) -> End:
    return await end(text(SERVICES[services], more), "qat-vf", parent=parent)


@pytest.mark.parametrize(("source", "target", "codes"), TABLE)
async def test_the_handshake(source: str, target: str, codes: list[str]) -> None:
    assert await answer(await vf(target, parent=1), (await vf(source)).string) == codes


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        (', extdc = ["a"]', ', extdc = ["a", "b"]', []),
        (', extdc = ["a", "b"]', ', extdc = ["a"]', [("value-differs", "extdc")]),
        (', svcmap = "asym.sym.asym.sym"', ', svcmap = "asym.sym.asym.sym"', []),
        (', svcmap = "asym.sym.asym.sym"', ', svcmap = "sym.asym.sym.asym"', [("value-differs", "svcmap")]),
        ("", ', svcmap = "asym.sym.asym.sym"', [("value-differs", "svcmap")]),
        (
            ', extdc = ["a"], svcmap = "asym.sym.asym.sym"',
            "",
            [("value-differs", "extdc"), ("value-differs", "svcmap")],
        ),
    ],
)
async def test_what_the_kernels_driver_checks(source: str, target: str, expected: list[tuple[str, str]]) -> None:
    assert await reasons(await vf("crypto", target), (await vf("crypto", source)).string) == expected


@pytest.mark.parametrize(
    ("string", "expected"),
    [
        (f"{MODEL},services=sym,state-version=1", []),
        (f"{MODEL},services=sym,state-version=2", [("value-not-allowed", "state-version")]),
        (f"{MODEL},services=cipher", [("value-not-allowed", "services")]),
        (f"{MODEL},services=sym+asym", [("value-malformed", "services")]),
        (MODEL, [("parameter-missing", "services")]),
        ("kernel.org/mtty,ports=1", [("model-differs", None)]),
    ],
)
async def test_strings_from_elsewhere(string: str, expected: list[tuple[str, str | None]]) -> None:
    assert await reasons(await vf("all"), string) == expected


async def test_the_string_and_what_a_manager_reads() -> None:
    one = await vf("all", ', extdc = ["a"]')
    assert one.string == f"{MODEL},extdc=a,services=asym+dc+sym"
    info = json.loads(await one.client.read(f"{one.path}/mdev_type/migration_info.json"))
    assert info["models"][MODEL]["params"]["services"]["allowed_values"] == ["asym", "dc", "sym"]


async def test_the_virtual_functions_are_the_parents_of_one_mdev_each() -> None:
    host = await load("qat")
    client = InProcess(host.tree)
    function = "bus/pci/devices/0000:6b:00.0"
    assert await client.read(f"{function}/device") == "0x4940\n"
    assert await client.read(f"{function}/virtfn0/device") == "0x4941\n"
    vfs = [f"0000:6b:00.{number}" for number in range(1, 5)]
    assert client.list("class/mdev_bus") == vfs
    kind = f"class/mdev_bus/{vfs[0]}/mdev_supported_types/qat-vf"
    await client.write(f"{kind}/create", UUID)
    assert await client.read(f"{kind}/available_instances") == "0\n"
    with pytest.raises(OSError) as caught:
        await client.write(f"{kind}/create", UUID[:-1] + "2")
    assert caught.value.errno == errno.ENOSPC
    assert await client.read(f"class/mdev_bus/{vfs[1]}/mdev_supported_types/qat-vf/available_instances") == "1\n"
    check_tree(host.tree)


@pytest.mark.parametrize(
    ("settings", "mistake"),
    [
        ("services = []", "at least 1"),
        ('services = ["cipher"]', "cipher"),
        ('services = ["sym"], svcmap = "sym"', "match pattern"),
        ('services = ["sym"], extdc = ["a,b"]', "match pattern"),
    ],
)
async def test_impossible_settings(settings: str, mistake: str) -> None:
    with pytest.raises(InputError, match=mistake):
        await host_of(f'[[device]]\ndriver = "qat"\nsettings = {{ {settings} }}\n')


async def test_more_virtual_functions_than_there_are() -> None:
    with pytest.raises(InputError, match="16 VFs"):
        await host_of('[[device]]\ndriver = "qat"\nsriov = { total = 17, num = 0 }\n')
