"""What a manager can tell before it makes anything: the target's migration_info.json and the source's parameter list
alone predict whether a target that is made for the source takes it."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from attrs import frozen

from mdevfs.host.host import Host, load
from mdevfs.host.read import shipped
from mdevfs.mdev.types import Type
from mdevfs.vendor.loader import all_installed
from tests.support import InProcess

UUID = "facade00-0000-4000-8000-0000000000{:02x}"
RANGE = re.compile(r"(-?\d+)-(-?\d+)\Z")


# -- what a manager does, with texts alone


@frozen
class Source:
    """A device somewhere: what its migration_version reads, taken apart."""

    where: str
    string: str

    @property
    def model(self) -> str:
        return self.string.split(",")[0]

    @property
    def parameters(self) -> dict[str, str]:
        return dict(item.split("=", 1) for item in self.string.split(",")[1:])


def allowed(about: dict[str, Any], text: str) -> bool:
    """Whether allowed_values of a parameter hold a value."""
    values = about.get("allowed_values")
    if values is None:
        return True
    if about["type"] == "set":
        return set(text.split("+") if text else []) <= set(values)
    ranges = [match for value in values if about["type"] == "int" and (match := RANGE.match(value))]
    return text in values or any(int(match[1]) <= int(text) <= int(match[2]) for match in ranges)


def edges(model: dict[str, Any]) -> Iterator[str]:
    """Arguments for a device of each version, and for one of each parameter's least and greatest value."""
    yield from (f"version={version}" for version in model.get("versions", {}))
    for name, about in model["params"].items():
        texts = [about["off_value"]] if "off_value" in about else []
        for value in about.get("allowed_values", []):
            match = RANGE.match(value) if about["type"] == "int" else None
            texts += match.groups() if match else [value]
        yield from (f"{name}={text}" for text in dict.fromkeys(texts))


def predict(info: dict[str, Any], source: Source) -> bool:
    """RFC v3: the models' names are equal, every name of the list exists, every value is allowed. A parameter that the
    list does not name is off at the source, so it must have an off value."""
    model = info["models"].get(source.model)
    if model is None:
        return False
    params, given = model["params"], source.parameters
    return (
        given.keys() <= params.keys()
        and all(allowed(params[name], text) for name, text in given.items())
        and all(name in given or "off_value" in about for name, about in params.items())
    )


def arguments(info: dict[str, Any], source: Source) -> str:
    """What to write to create: every off value, and over them the source's list."""
    params = info["models"].get(source.model, {"params": {}})["params"]
    offs = {name: about["off_value"] for name, about in params.items() if "off_value" in about}
    return "".join(f",{name}={text}" for name, text in (offs | source.parameters).items())


# -- what the hosts do


class Machine(InProcess):
    """A shipped host."""

    def __init__(self, host: Host, name: str) -> None:
        super().__init__(host.tree)
        self.host, self.name = host, name
        self.numbers = itertools.count()

    def types(self) -> list[Type]:
        """Those of declared models."""
        return [
            kind
            for parent in self.host.mdev.parents.values()
            for kind in parent.types.values()
            if self.exists(f"{kind.path}/migration_info.json")
        ]

    async def info(self, kind: Type) -> dict[str, Any]:
        found = json.loads(await self.read(f"{kind.path}/migration_info.json"))
        assert isinstance(found, dict)
        return found

    async def make(self, kind: Type, given: str = "") -> str | None:
        """The path of a new mdev, None if it is refused."""
        uuid = UUID.format(next(self.numbers) % 256)
        try:
            await self.write(f"{kind.path}/create", uuid + given)
        except OSError:
            return None
        return f"{kind.parent.path}/{uuid}"

    async def sources(self, kind: Type) -> list[Source]:
        """A device as it comes, one of each version, and one of each parameter's edges; none where the string is the
        driver's own form."""
        (model,) = (await self.info(kind))["models"].items()
        found = []
        for given in ("", *(f",{argument}" for argument in edges(model[1]))):
            path = await self.make(kind, given)
            if path is None:
                verdict = json.loads(await self.read(f"{kind.path}/mdevfs/last_verdict"))
                assert [one["code"] for one in verdict["reasons"]] == ["no-instances"], (self.name, kind.name, given)
                continue
            try:
                string = (await self.read(f"{path}/migration_version")).removesuffix("\n")
            except OSError:  # it does not migrate on this host
                string = ""
            await self.write(f"{path}/remove", "1")
            if string.split(",")[0] == model[0]:
                found.append(Source(f"{self.name} {kind.name}{given}", string))
        return found

    async def takes(self, kind: Type, source: Source) -> bool:
        """Whether a target that is made for the source says yes."""
        path = await self.make(kind, arguments(await self.info(kind), source))
        if path is None:
            return False
        try:
            await self.write(f"{path}/migration_version", source.string)
        except OSError:
            return False
        finally:
            await self.write(f"{path}/remove", "1")
        return True


async def machines() -> list[Machine]:
    return [Machine(await load(name), name) for name in shipped()]


async def test_the_prediction_is_the_answer() -> None:
    hosts = await machines()
    sources = [source for one in hosts for kind in one.types() for source in await one.sources(kind)]
    said = {True: 0, False: 0}
    for one in hosts:
        for kind in one.types():
            info = await one.info(kind)
            for source in sources:
                expected = predict(info, source)
                assert await one.takes(kind, source) == expected, (source, one.name, kind.name)
                said[expected] += 1
    assert min(said.values()) >= len(sources) > 4, said


async def test_every_driver_with_a_model_is_among_them() -> None:
    seen = {kind.parent.driver.name for one in await machines() for kind in one.types()}
    assert seen == {found.driver.name for found in all_installed() if found.driver.model is not None}


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


async def test_no_false_yes_of_a_string_of_its_own() -> None:
    """i915 writes and checks GVT-g's string. Its list is read from migration/: what the info allows and the write
    refuses would be a false yes. (The reverse happens where units of other types add up to the same resources.)"""
    names = [name for name in shipped() if name.startswith("gvtg")]
    hosts = {name: await load(name) for name in names}
    answers = set()
    for source, target in itertools.product(names, repeat=2):
        for kind, other in itertools.product(_types(hosts[source]), _types(hosts[target])):
            texts, string = await _listed(InProcess(hosts[source].tree), kind)
            there = InProcess(hosts[target].tree)
            (about,) = json.loads(await there.read(f"{other.path}/migration_info.json"))["models"].values()
            params = about["params"]
            predicted = all(name in params and allowed(params[name], text) for name, text in texts.items())
            accepted = await _accepts(there, other, string)
            assert accepted or not predicted, (source, kind.name, target, other.name)
            answers.add((predicted, accepted))
    assert {(True, True), (False, False)} <= answers


def _types(host: Host) -> list[Type]:
    return [kind for parent in host.mdev.parents.values() for kind in parent.types.values()]


async def _listed(client: InProcess, kind: Type) -> tuple[dict[str, str], str]:
    """The parameter list and the string of an mdev of this type, made and removed."""
    device = f"bus/mdev/devices/{UUID.format(1)}"
    await client.write(f"{kind.path}/create", UUID.format(1))
    names = client.list(f"{device}/migration")
    texts = {name: (await client.read(f"{device}/migration/{name}")).strip() for name in names}
    string = await client.read(f"{device}/migration_version")
    await client.write(f"{device}/remove", "1")
    return texts, string


async def _accepts(client: InProcess, kind: Type, string: str) -> bool:
    try:
        await client.write(f"{kind.path}/migration_version", string)
    except OSError:
        return False
    return True
