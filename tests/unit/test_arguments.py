"""Creation arguments: what a device is made with, and what is no list of them."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from mdevfs.errors import InputError
from mdevfs.host.host import Host
from mdevfs.migration.arguments import parse
from mdevfs.migration.model import DeviceModel
from mdevfs.migration.parameters import Bool, Int
from mdevfs.migration.verdict import RefusedVerdict
from tests.support import InProcess, check_tree, host_of

UUID = "facade00-0000-4000-8000-000000000001"
MDEV = f"bus/mdev/devices/{UUID}"
NIC = DeviceModel(
    "a.b/nic",
    params=[
        Int("size", init=64, off=0, allowed=range(257)),
        Int("queues", init=4, allowed=(1, 2, 4)),
        Bool("tso", init=True, off=False),
    ],
    versions={"1": {}, "2": {"size": 32}, "3": {"size": 64, "tso": True}},
    arguments={"units": {"1": {"queues": 1, "size": 16}, "2": {"queues": 2, "size": 32}}},
)
DRIVER = """
from mdevfs.vendor import Bool, DeviceModel, Int, MdevType, VendorDriver

class Nic(VendorDriver):
    api, name = 1, "nic"
    types = [
        MdevType("any"), MdevType("two", params={"queues": 2}), MdevType("small", params={"size": 32}),
        MdevType("units", params={"queues": 1}, arguments={"units": {"1": {"queues": 1}, "4": {"queues": 4}}}),
    ]
    model = DeviceModel("a.b/nic", params=[
        Int("size", init=64, off=0, allowed=range(257), compat="nic.size"),
        Int("queues", init=4, allowed=(1, 2, 4)),
        Bool("tso", init=True, off=False),
    ], versions={"1": {}, "2": {"size": 32}, "3": {"size": 64, "tso": True}})
    machine_types = {"pc-1": {"nic.size": "16"}, "pc-2": {"nic.size": "999"}}
"""


def reasons(text: str, model: DeviceModel | None = NIC) -> list[tuple[str, str | None, str | None]]:
    """Code, parameter and value of every reason."""
    with pytest.raises(RefusedVerdict) as caught:
        parse(text, model)
    assert caught.value.errno == errno.EINVAL
    return [(reason.code, reason.parameter, reason.source) for reason in caught.value.verdict.reasons]


# -- what a list means


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("size=0", {"size": 0}),
        ("size=1,tso=off", {"size": 1, "tso": False}),
        ("tso=off,size=1", {"size": 1, "tso": False}),
        ("version=1", {"size": 0, "tso": False}),
        ("version=2", {"size": 32, "tso": False}),
        ("version=3", {"size": 64, "tso": True}),
        ("version=2,size=48", {"size": 48, "tso": False}),
        ("size=48,version=2", {"size": 48, "tso": False}),
        ("units=2", {"queues": 2, "size": 32}),
        ("units=1,version=3", {"queues": 1, "size": 16, "tso": True}),
        ("size=48,units=2,tso=off", {"queues": 2, "size": 48, "tso": False}),
        ("size=48,version=1,queues=1,tso=on", {"size": 48, "queues": 1, "tso": True}),
    ],
)
def test_a_version_expands_first_and_the_order_is_free(text: str, values: dict[str, object]) -> None:
    assert parse(text, NIC) == values


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [("argument-malformed", None, "")]),
        (",", [("argument-malformed", None, "")] * 2),
        ("size=1,", [("argument-malformed", None, "")]),
        (",size=1", [("argument-malformed", None, "")]),
        ("size=1,,tso=on", [("argument-malformed", None, "")]),
        ("size", [("argument-malformed", None, "size")]),
        ("=1", [("argument-malformed", None, "=1")]),
        ("sise=1", [("parameter-unknown", "sise", "1")]),
        ("Size=1", [("parameter-unknown", "Size", "1")]),
        (" size=1", [("parameter-unknown", " size", "1")]),
        ("size=257", [("value-not-allowed", "size", "257")]),
        ("queues=3", [("value-not-allowed", "queues", "3")]),
        ("size=", [("value-malformed", "size", "")]),
        ("size=1 ", [("value-malformed", "size", "1 ")]),
        ("size=1=1", [("value-malformed", "size", "1=1")]),
        ("tso=1", [("value-malformed", "tso", "1")]),
        ("size=1,size=1", [("parameter-repeated", "size", "1")]),
        ("version=1,version=1", [("parameter-repeated", "version", "1")]),
        ("units=3", [("value-not-allowed", "units", "3")]),
        ("units=", [("value-not-allowed", "units", "")]),
        ("units=1,units=1", [("parameter-repeated", "units", "1")]),
        ("unit=1", [("parameter-unknown", "unit", "1")]),
        ("version=", [("version-unknown", "version", "")]),
        ("version=4", [("version-unknown", "version", "4")]),
        ("version=4,sise=1,size=999,tso", [("argument-malformed", None, "tso"), ("version-unknown", "version", "4"),
                                           ("parameter-unknown", "sise", "1"), ("value-not-allowed", "size", "999")]),
    ],
)  # fmt: skip
def test_what_is_no_list_of_arguments(text: str, expected: list[tuple[str, str | None, str | None]]) -> None:
    assert reasons(text) == expected


def test_without_a_model_there_is_nothing_to_ask_for() -> None:
    assert reasons("version=1", None) == [("no-model", None, "version=1")]
    assert reasons("", None) == [("no-model", None, "")]


# -- on a host


class Sys(InProcess):
    """A host of the driver above."""

    def kind(self, suffix: str) -> str:
        return f"devices/virtual/nic/nic/mdev_supported_types/nic-{suffix}"

    async def create(self, suffix: str, data: str) -> int:
        """0 or the errno; nothing has changed after an errno."""
        before = [path for path, _ in self.tree.everything()]
        room = await self.read(f"{self.kind(suffix)}/available_instances")
        try:
            assert await self.write(f"{self.kind(suffix)}/create", data) == len(data)
        except OSError as error:
            code = error.errno or -1
        else:
            return 0
        assert [path for path, _ in self.tree.everything()] == before
        assert await self.read(f"{self.kind(suffix)}/available_instances") == room
        check_tree(self.tree)
        return code

    async def values(self) -> dict[str, str]:
        names = self.list(f"{MDEV}/migration")
        return {name: (await self.read(f"{MDEV}/migration/{name}")).removesuffix("\n") for name in names}

    async def info(self, suffix: str) -> Any:
        return json.loads(await self.read(f"{self.kind(suffix)}/migration_info.json"))["models"]["a.b/nic"]


async def started(folder: Path, more: str = "") -> Host:
    (folder / "nic.py").write_text(DRIVER)
    return await host_of(f'[host]\ndrivers = ["nic.py"]\n{more}\n[[device]]\ndriver = "nic"\n', folder)


async def nic(folder: Path, more: str = "") -> Sys:
    return Sys((await started(folder, more)).tree)


@pytest.mark.parametrize(
    ("suffix", "given", "string"),
    [
        ("any", "", "a.b/nic,queues=4,size=64,tso=on"),
        ("any", "\n", "a.b/nic,queues=4,size=64,tso=on"),
        ("any", "x", "a.b/nic,queues=4,size=64,tso=on"),
        ("any", ",version=1", "a.b/nic,queues=4"),
        ("any", ",version=1\n", "a.b/nic,queues=4"),
        ("any", ",size=48,version=2,queues=1", "a.b/nic,queues=1,size=48"),
        ("any", ",tso=off", "a.b/nic,queues=4,size=64"),
        ("two", "", "a.b/nic,queues=2,size=64,tso=on"),
        ("two", ",version=1", "a.b/nic,queues=2"),
        ("two", ",queues=2", "a.b/nic,queues=2,size=64,tso=on"),
        ("small", ",version=2", "a.b/nic,queues=4,size=32"),
        ("units", "", "a.b/nic,queues=1,size=64,tso=on"),
        ("units", ",units=4", "a.b/nic,queues=4,size=64,tso=on"),
        ("units", ",queues=4,units=1,version=1", "a.b/nic,queues=4"),
    ],
)
async def test_what_a_device_is_made_with(tmp_path: Path, suffix: str, given: str, string: str) -> None:
    sys = await nic(tmp_path)
    assert await sys.create(suffix, UUID + given) == 0
    assert await sys.read(f"{MDEV}/migration_version") == string + "\n"
    values = dict(item.split("=") for item in string.split(",")[1:])
    assert await sys.values() == {"size": "0", "tso": "off"} | values


@pytest.mark.parametrize(
    ("suffix", "given", "code"),
    [
        ("any", ",", "argument-malformed"),
        ("any", ",version=4", "version-unknown"),
        ("any", ",rx=1", "parameter-unknown"),
        ("any", ",size=257\n", "value-not-allowed"),
        ("any", ",size=1,size=1", "parameter-repeated"),
        ("any", ",size=1\n\n", "value-malformed"),
        ("any", ",size=1\0", "value-malformed"),
        ("any", "\nsize=1", "uuid-malformed"),
        ("any", "xsize=1", "uuid-malformed"),
        ("two", ",queues=4", "value-not-allowed"),
        ("small", ",size=64", "value-not-allowed"),
        ("small", ",version=1", "version-unknown"),
        ("small", ",version=3", "version-unknown"),
        ("units", ",units=2", "value-not-allowed"),
        ("units", ",queues=2", "value-not-allowed"),
        ("any", ",units=1", "parameter-unknown"),
    ],
)
async def test_what_no_device_is_made_with(tmp_path: Path, suffix: str, given: str, code: str) -> None:
    sys = await nic(tmp_path)
    assert await sys.create(suffix, UUID + given) == errno.EINVAL
    verdict = json.loads(await sys.read(f"{sys.kind(suffix)}/mdevfs/last_verdict"))
    told = (verdict["operation"], verdict["target"], verdict["source"], verdict["errno"])
    assert told == ("create", sys.kind(suffix), (UUID + given).removesuffix("\n"), "EINVAL")
    assert [reason["code"] for reason in verdict["reasons"]] == [code]
    assert await sys.create(suffix, UUID) == 0


async def test_a_bare_uuid_stays_as_the_kernel_has_it(tmp_path: Path) -> None:
    """Without the family the 37th byte is ignored, a comma too, and more than 37 are no UUID."""
    sys = await nic(tmp_path, "interfaces = []")
    assert await sys.create("any", f"{UUID},size=1") == errno.EINVAL
    assert await sys.create("any", f"{UUID},") == 0
    assert not sys.exists(f"{MDEV}/migration")
    assert not sys.exists(f"{sys.kind('any')}/migration_info.json")


async def test_a_type_tells_what_it_offers(tmp_path: Path) -> None:
    """After creation each parameter holds its init_value (RFC v3), whoever set it: model, machine type or type."""
    sys = await nic(tmp_path, 'machine = "pc-1"')
    for number, (suffix, size, queues, versions) in enumerate(
        [
            ("any", "16", "4", ["1", "2", "3"]),
            ("two", "16", "2", ["1", "2", "3"]),
            ("small", "32", "4", ["2"]),
            ("units", "16", "1", ["1", "2", "3"]),
        ]
    ):
        info = await sys.info(suffix)
        assert (info["params"]["size"]["init_value"], info["params"]["queues"]["init_value"]) == (size, queues)
        assert list(info["versions"]) == versions
        assert info["latest"] == versions[-1]
        uuid = UUID[:-1] + str(number)
        await sys.create(suffix, uuid)
        for name, about in info["params"].items():
            assert await sys.read(f"bus/mdev/devices/{uuid}/migration/{name}") == about["init_value"] + "\n"
    assert (await sys.info("two"))["params"]["queues"]["allowed_values"] == ["2"]
    assert "arguments" not in await sys.info("two")
    units = await sys.info("units")
    assert units["params"]["queues"]["allowed_values"] == ["1", "4"]
    assert units["arguments"] == {"units": {"1": {"queues": "1"}, "4": {"queues": "4"}}}
    assert (await sys.info("small"))["params"]["size"] == {
        "type": "int", "init_value": "32", "allowed_values": ["32"], "description": ""
    }  # fmt: skip


async def test_a_compat_property_that_no_device_can_have(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="size the value 999 is not allowed"):
        await started(tmp_path, 'machine = "pc-2"')


async def test_arguments_in_a_host_file(tmp_path: Path) -> None:
    mdev = '[[device.mdev]]\nuuid = "{}"\ntype = "nic-two"\nparams = "{}"\n'
    (tmp_path / "nic.py").write_text(DRIVER)
    text = '[host]\ndrivers = ["nic.py"]\n[[device]]\ndriver = "nic"\n'
    sys = Sys((await host_of(text + mdev.format(UUID, "version=2"), tmp_path)).tree)
    assert await sys.read(f"{MDEV}/migration_version") == "a.b/nic,queues=2,size=32\n"
    with pytest.raises(InputError, match="value-not-allowed: queues"):
        await host_of(text + mdev.format(UUID, "queues=1"), tmp_path)
