"""Features that trees gain in different orders (QEMU's list, November 2009, "multiple sections per device").

A device has the features A, B and C. A downstream branches off; upstream adds D, then E; the downstream takes E alone.
With one number for all features no tree could tell the others' states apart. With a parameter for each, which touches
the representation of the state only, every tree loads exactly the states whose features it knows.
"""

from __future__ import annotations

import errno
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from mdevfs.migration.model import DeviceModel
from mdevfs.migration.parameters import Bool
from tests.support import InProcess, host_of

TREES = {
    "upstream-1": "ABC",
    "upstream-2": "ABCD",
    "upstream-3": "ABCDE",
    "downstream-1": "ABC",
    "downstream-2": "ABCE",
}
PAIRS = list(itertools.product(TREES, repeat=2))


def foo(tree: str) -> DeviceModel:
    """Device Foo of a tree: each feature that it knows is on, and a device that does not use it has it off."""
    return DeviceModel("qemu.org/foo", [Bool(name, init=True, off=False, state_only=True) for name in TREES[tree]])


def in_use(tree: str) -> Iterator[frozenset[str]]:
    """Every set of features that a device of the tree can use."""
    known = TREES[tree]
    for number in range(len(known) + 1):
        yield from map(frozenset, itertools.combinations(known, number))


def string_of(tree: str, used: frozenset[str]) -> str:
    return foo(tree).write({name: name in used for name in TREES[tree]})


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_a_state_loads_exactly_where_it_is_understood(source: str, target: str) -> None:
    model, known = foo(target), set(TREES[target])
    for used in in_use(source):
        verdict = model.check(model.initial(), string_of(source, used))
        assert verdict.compatible == (used <= known)
        unknown = [("parameter-unknown", name) for name in sorted(used - known)]
        assert [(reason.code, reason.parameter) for reason in verdict.reasons] == unknown


def test_trees_that_use_nothing_new_speak_alike() -> None:
    """The string tells what is in use, not which tree it comes from."""
    assert {string_of(tree, frozenset("AC")) for tree in TREES} == {"qemu.org/foo,A=on,C=on"}


def test_no_version_numbers_could_say_this() -> None:
    """Whatever number each tree has: "what is not newer loads" is wrong for some pair of them."""
    for numbers in itertools.product(range(len(TREES)), repeat=len(TREES)):
        version = dict(zip(TREES, numbers, strict=True))
        wrong = [
            (source, target)
            for source, target in PAIRS
            if (version[source] <= version[target]) != (set(TREES[source]) <= set(TREES[target]))
        ]
        assert wrong


# -- the same on hosts, through their files

DRIVER = """
from mdevfs.vendor import Bool, DeviceModel, MdevType, VendorDriver

class Foo(VendorDriver):
    api, name, types = 1, "foo", [MdevType("a")]
    model = DeviceModel("qemu.org/foo", [Bool(name, init=True, off=False, state_only=True) for name in {known!r}])
"""
UUID = "facade00-0000-4000-8000-000000000001"
MDEV = f"bus/mdev/devices/{UUID}"


async def machine(folder: Path, tree: str) -> InProcess:
    (folder / "foo.py").write_text(DRIVER.format(known=TREES[tree]))
    sys = InProcess((await host_of('[host]\ndrivers = ["foo.py"]\n[[device]]\ndriver = "foo"\n', folder)).tree)
    await sys.write("class/mdev_bus/foo/mdev_supported_types/foo-a/create", UUID)
    return sys


@pytest.mark.parametrize(("source", "target"), PAIRS)
async def test_on_two_hosts(tmp_path: Path, source: str, target: str) -> None:
    """A guest begins and ends to use features while it runs; the answer follows."""
    one, other = await machine(tmp_path, source), await machine(tmp_path, target)
    await one.write(f"{MDEV}/mdevfs/in_use", "1")
    for used in in_use(source):
        for name in TREES[source]:
            await one.write(f"{MDEV}/migration/{name}", "on" if name in used else "off")
        string = await one.read(f"{MDEV}/migration_version")
        unknown = sorted(used - set(TREES[target]))
        if not unknown:
            assert await other.write(f"{MDEV}/migration_version", string) == len(string)
            continue
        with pytest.raises(OSError) as caught:
            await other.write(f"{MDEV}/migration_version", string)
        assert caught.value.errno == errno.EINVAL
        verdict = json.loads(await other.read(f"{MDEV}/mdevfs/last_verdict"))
        assert [reason["parameter"] for reason in verdict["reasons"]] == unknown
