"""What a manager can tell before it makes anything: the target's migration_info.json and the source's parameter list
alone predict whether a target that is made for the source takes it. For all pairs of what the hosts can be."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mdevfs.host.host import Host, load
from mdevfs.host.read import shipped
from mdevfs.mdev.types import Type
from mdevfs.vendor.loader import all_installed
from tests.support import InProcess, host_of
from tests.unit.manager import Info, Source, allowed, asked_for, parameter_list, predict, prepared

UUID = "facade00-0000-4000-8000-{:012x}"

# More than the shipped hosts: what settings, releases and machine types make of a driver.
GPU = '[[device]]\ndriver = "i915"\nsettings = {{ {} }}\n'
OTHERS = {
    "i915 large": GPU.format("aperture_mb = 1024"),
    "i915 8 fences": GPU.format("aperture_mb = 1024, types = { 2 = { fence = 8 } }"),  # one V5_2 = two V5_4
    "i915 gen8": GPU.format("generation = 8"),
    "i915 gen11": GPU.format("generation = 11"),
    "i915 no version": GPU.format("software_version = 0"),
    "nvidia older": '[[device]]\ndriver = "nvidia"\nsettings = { driver_release = "535.247.01" }\n',
    "qat": '[[device]]\ndriver = "qat"\nsriov = { total = 1, num = 1 }\nsettings = { services = ["sym"] }\n',
    "e1000 11.1": '[[device]]\ndriver = "e1000"\n',
    "e1000e 7.2": '[host]\nmachine = "pc-q35-7.2"\n[[device]]\ndriver = "e1000e"\nsettings = { release = "7.2" }\n',
    "e1000e 11.1": '[[device]]\ndriver = "e1000e"\n',
    "tiered": '[host]\ndrivers = ["tiered.py"]\nmachine = "pc-2"\n[[device]]\ndriver = "tiered"\n',
    "tiered, blocked": '[host]\ndrivers = ["tiered.py"]\nmachine = "pc-1"\n[[device]]\ndriver = "tiered"\n',
}
TIERED = """
from mdevfs.vendor import Bool, DeviceModel, MdevType, Tier, VendorDriver

class Tiered(VendorDriver):
    api, name, types = 1, "tiered", [MdevType("a")]
    model = DeviceModel("a.b/tiered", [Bool("c", True, False)])
    machine_types = {"pc-2": {}}
    tiers = {"pc-1": Tier("unmigratable", "its state has no description")}
"""


class Machine(InProcess):
    """A host, and what a manager does there."""

    def __init__(self, host: Host, name: str) -> None:
        super().__init__(host.tree)
        self.host, self.name = host, name
        self.numbers = itertools.count()
        self.machine = host.mdev.machine.name

    async def types(self) -> list[Type]:
        """Those of all parents, but of parents that declare the same only those of the first."""
        found: dict[tuple[str, ...], list[Type]] = {}
        for parent in self.host.mdev.parents.values():
            types = list(parent.types.values())
            declared = [parent.driver.name, *[f"{kind.name} {await self.models(kind)}" for kind in types]]
            found.setdefault(tuple(declared), types)
        return [kind for types in found.values() for kind in types]

    async def models(self, kind: Type) -> dict[str, Info] | None:
        """What migration_info.json says."""
        text = await self.text(f"{kind.path}/migration_info.json")
        return json.loads(text)["models"] if text is not None else None

    async def text(self, path: str) -> str | None:
        """What a file reads; None for one that is not there, or whose read fails."""
        try:
            return (await self.read(path)).removesuffix("\n")
        except OSError:
            return None

    async def wrote(self, path: str, text: str) -> bool:
        try:
            await self.write(path, text)
        except OSError:
            return False
        return True

    async def make(self, kind: Type, given: str = "") -> str | None:
        """The path of a new mdev, None if it is refused."""
        uuid = UUID.format(next(self.numbers))
        return f"{kind.parent.path}/{uuid}" if await self.wrote(f"{kind.path}/create", uuid + given) else None

    async def sources(self, kind: Type) -> list[Source]:
        """A device as it comes, and all that migration_info.json says can be asked for."""
        models = await self.models(kind)
        ((model, about),) = models.items() if models is not None else ((None, None),)
        found = []
        for given in ("", *(f",{argument}" for argument in (asked_for(about) if about is not None else ()))):
            path = await self.make(kind, given)
            assert path is not None, (self.name, kind.name, given)
            values = await self.values(path)
            expected = expanded(about, given) if about is not None else {}
            assert expected == {name: values[name] for name in expected}, (self.name, kind.name, given)
            string = await self.text(f"{path}/migration_version")
            parameters = parameter_list(about, values) if about is not None else {}
            if string is not None and string.split(",")[0] == model:  # else the string is the driver's own form
                assert dict(item.split("=", 1) for item in string.split(",")[1:]) == parameters
            found.append(Source(f"{self.name} {kind.name}{given}", model, parameters, string))
            await self.write(f"{path}/remove", "1")
        return found

    async def values(self, mdev: str) -> dict[str, str]:
        """What is under migration/."""
        names = self.list(f"{mdev}/migration") if self.exists(f"{mdev}/migration") else []
        return {name: (await self.read(f"{mdev}/migration/{name}")).removesuffix("\n") for name in names}

    async def created(self, kind: Type, source: Source, wanted: Sequence[tuple[str, str]]) -> bool:
        """Whether a target takes the source that is created for it."""
        path = await self.make(kind, "".join(f",{name}={text}" for name, text in dict(wanted).items()))
        if path is None:
            return False
        answer = await self.handshake(path, source)
        await self.write(f"{path}/remove", "1")
        return answer

    async def prepared(self, mdev: str, source: Source, wanted: Sequence[tuple[str, str]]) -> bool:
        """Whether this mdev does, whatever it was before, after writes to migration/; it is asked even after one that
        failed, for that must be a no too."""
        for name, text in wanted:
            if not await self.wrote(f"{mdev}/migration/{name}", text):
                break
        return await self.handshake(mdev, source)

    async def handshake(self, mdev: str, source: Source) -> bool:
        return source.string is not None and await self.wrote(f"{mdev}/migration_version", source.string)


def expanded(about: Info, given: str) -> dict[str, str]:
    """What migration_info.json says that an argument gives."""
    name, _, text = given.removeprefix(",").partition("=")
    if name == "version":
        offs = {one: param["off_value"] for one, param in about["params"].items() if "off_value" in param}
        return {**offs, **about["versions"][text]}
    return dict(about.get("arguments", {}).get(name, {}).get(text, {}))


async def machines(folder: Path) -> list[Machine]:
    """Of shipped hosts, and the others."""
    (folder / "tiered.py").write_text(TIERED)
    found = [Machine(await load(name), name) for name in shipped()]
    return [*found, *[Machine(await host_of(text, folder), name) for name, text in OTHERS.items()]]


async def test_the_prediction_is_the_answer(tmp_path: Path) -> None:
    hosts = await machines(tmp_path)
    found = [source for one in hosts for kind in await one.types() for source in await one.sources(kind)]
    sources = list({(one.model, one.string, *one.parameters.items()): one for one in found}.values())
    said: Counter[tuple[str, bool]] = Counter()
    for one in hosts:
        for kind in await one.types():
            models = await one.models(kind)
            expected = [predict(models, source, one.machine) for source in sources]
            wanted = [prepared(models, source) for source in sources]
            tries = list(zip(sources, wanted, expected, strict=True))
            for source, writes, yes in tries:
                assert await one.created(kind, source, writes) == yes, (one.name, kind.name, source)
            mdev = await one.make(kind)
            assert mdev is not None
            for source, writes, yes in tries:
                assert await one.prepared(mdev, source, writes) == yes, (one.name, kind.name, source)
            await one.write(f"{mdev}/remove", "1")
            said.update((kind.parent.driver.name, yes) for yes in expected)
    declared = {found.driver.name for found in all_installed() if found.driver.model is not None}
    assert {name for name, yes in said if yes} == declared | {"tiered"}
    assert {name for name, yes in said if not yes} == {found.driver.name for found in all_installed()} | {"tiered"}
    assert said.total() > 10000, said


@pytest.mark.parametrize(
    ("text", "about", "yes"),
    [
        ("5", {"type": "int", "allowed_values": ["0-5"]}, True),
        ("6", {"type": "int", "allowed_values": ["0-5"]}, False),
        ("-3", {"type": "int", "allowed_values": ["-5--1", "7"]}, True),
        ("7", {"type": "int", "allowed_values": ["-5--1", "7"]}, True),
        ("2", {"type": "str", "allowed_values": ["1-3"]}, False),
        ("", {"type": "set", "allowed_values": ["a"]}, True),
        ("a+b", {"type": "set", "allowed_values": ["a"]}, False),
        ("x", {"type": "str"}, True),
    ],
)
def test_what_a_manager_reads_in_allowed_values(text: str, about: dict[str, Any], yes: bool) -> None:
    assert allowed(about, text) == yes
