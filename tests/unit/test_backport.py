"""Features A, B and C; upstream adds D, then E; a downstream backports E alone (qemu-devel, November 2009)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import pytest

from mdevfs.migration.model import DeviceModel
from mdevfs.migration.parameters import Bool

TREES = {"old": "abc", "with-d": "abcd", "with-e": "abcde", "downstream": "abce"}


def model(tree: str) -> DeviceModel:
    return DeviceModel("vendor-a.com/foo", [Bool(name, init=False, off=False) for name in TREES[tree]])


def states(features: str) -> Iterator[set[str]]:
    """Every set of features that a device can have in use."""
    for count in range(len(features) + 1):
        yield from map(set, combinations(features, count))


@pytest.mark.parametrize("target", TREES)
@pytest.mark.parametrize("source", TREES)
def test_a_device_migrates_where_what_it_uses_is_understood(source: str, target: str) -> None:
    for used in states(TREES[source]):
        string = model(source).write({name: name in used for name in TREES[source]})
        prepared = {name: name in used for name in TREES[target]}
        verdict = model(target).check(prepared, string)
        strange = used - set(TREES[target])
        assert verdict.compatible is not bool(strange)
        assert {(reason.code, reason.parameter) for reason in verdict.reasons} == {
            ("parameter-unknown", name) for name in strange
        }
