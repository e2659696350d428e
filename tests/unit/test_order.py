"""The order of a directory's names is the kernel's: recorded on 6.1, and the bounds of its hash."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdevfs.host.host import load
from mdevfs.sysfs.order import name_hash
from tests.golden.recorder import RECORDINGS, orders

UUIDS = [f"a{number}b2c3d4-000{number}-4abc-8def-0123456789ab" for number in (1, 2, 3)]
FIRST_TYPES = {"mtty": "mtty-1", "mdpy": "mdpy-hd"}


@pytest.mark.parametrize("file", ["ops.json", "ops_mdpy.json"])
def test_the_hash_sorts_names_as_recorded(file: str) -> None:
    recorded = orders(RECORDINGS / file)
    assert len(recorded) == 4
    for path, names in recorded.items():
        assert sorted(names, key=name_hash) == names, path


@pytest.mark.parametrize(("file", "driver"), [("ops.json", "mtty"), ("ops_mdpy.json", "mdpy")])
async def test_a_tree_lists_names_as_recorded(file: str, driver: str) -> None:
    host = await load("kernel-samples")
    parent = host.mdev.parents[driver]
    kind = parent.types[FIRST_TYPES[driver]]
    for uuid in UUIDS:
        await host.mdev.create(kind, uuid)
    places = {"{t1}": kind.path, "{parent}": parent.path, "{parent}/{U1}": f"{parent.path}/{UUIDS[0]}"}
    places["{bus}/devices"] = "bus/mdev/devices"
    tree = host.tree
    listed = {path: [name for _, name, _, _ in tree.list(tree.walk(place))] for path, place in places.items()}
    assert listed == orders(RECORDINGS / file)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=255))
def test_bounds(name: str) -> None:
    """0 and 1 belong to `.` and `..`, INT_MAX to the end (fs/kernfs/dir.c)."""
    assert 2 <= name_hash(name) <= 0x7FFFFFFE
