"""`mdevfs driver test`: an honest driver passes, and every planted liar is caught."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from mdevfs.agreement.configurations import Release
from mdevfs.agreement.matrix import Report, examine
from mdevfs.vendor.api import VendorDriver, migrates
from mdevfs.vendor.loader import installed, load_installed
from tests.unit.liars import LIARS, BumpedVersion, Honest, StaleVersion


async def report_of(*drivers: type[VendorDriver]) -> Report:
    return await examine([Release(one, f"{one.name}@{one.__name__}") for one in drivers])


def complaints(report: Report) -> Sequence[str]:
    return [*(pair.why for pair in report.wrong), *report.faults, *report.untouched]


async def test_an_honest_driver_passes() -> None:
    report = await report_of(Honest)
    assert complaints(report) == []
    assert report.holds
    assert [report.row(index) for index in range(2)] == ["ys", "sy"]


@pytest.mark.parametrize("liar", LIARS, ids=lambda liar: liar.__name__)
async def test_a_liar_is_caught(liar: type[Honest]) -> None:
    report = await report_of(liar)
    assert not report.holds
    assert any(LIARS[liar] in complaint for complaint in complaints(report)), complaints(report)


async def test_a_stale_version_shows_against_the_older_release() -> None:
    assert (await report_of(StaleVersion)).holds
    report = await report_of(Honest, StaleVersion)
    assert any("footer is missing" in complaint for complaint in complaints(report))


async def test_a_new_version_passes_and_goes_forward_only() -> None:
    report = await report_of(Honest, BumpedVersion)
    assert complaints(report) == []
    assert report.counts("forward")["yes"] > 0
    versions = [one.string or "" for one in report.classes]
    backward = {(versions[pair.source], pair.outcome) for pair in report.pairs.values() if pair.source > pair.target}
    assert ("vendor-a.com/nic,state-version=2", "no") in backward
    assert ("vendor-a.com/nic", "yes") in backward


@pytest.mark.parametrize(
    "name", [name for name in sorted(installed()) if (one := load_installed(name)) and migrates(one.driver)]
)
async def test_shipped_drivers_keep_their_word(name: str) -> None:
    found = load_installed(name)
    assert found is not None
    report = await examine([Release(found.driver, name)])
    assert complaints(report) == []
    assert report.counts()["yes"] >= len(report.classes) > 0
