"""A mount shows and answers what the kernel showed and answered, but for what deviations.toml lists."""

from __future__ import annotations

import fnmatch
from pathlib import Path

import pytest

import vendor_drivers
from mdevfs.bus.kernel import Kernel
from tests.golden import test_fuse_limits
from tests.golden.recorder import RECORDINGS, Answer, Difference, compare, orders, read_deviations, record
from tests.mount.conftest import Mount

HOST = "kernel-samples"
SHIPPED = Path(vendor_drivers.__file__).parent / f"hosts/{HOST}.toml"


@pytest.mark.parametrize(("golden", "create"), [("tree_before.json", 0), ("tree_after.json", 2)])
def test_tree(mount: Mount, tmp_path: Path, golden: str, create: int) -> None:
    """Names, types, modes, owners, sizes, link targets, contents and link counts."""
    recorded = record("tree", mount(HOST).root, tmp_path / golden, "--create", str(create))
    omitted = read_deviations().tree.omitted
    used = set()
    wrong = []
    for one in compare(golden, recorded):
        patterns = {pattern for pattern in omitted if one.kind == "MISSING" and fnmatch.fnmatchcase(one.name, pattern)}
        used |= patterns
        wrong += [] if patterns else [one.text]
    assert not wrong, "the mount differs from the kernel:\n" + "\n".join(wrong)
    assert used == set(omitted), "the mount has what deviations.toml lists as left out"


@pytest.mark.parametrize(
    ("parent", "golden", "kernel"),
    [
        ("mtty", "ops.json", "6.1"),
        ("mdpy", "ops_mdpy.json", "6.1"),
        ("mbochs", "ops_mbochs.json", "6.1"),
        ("mtty", "ops_6.12.json", "6.12"),
    ],
)
def test_operations(mount: Mount, tmp_path: Path, parent: str, golden: str, kernel: str) -> None:
    """186 cases, step by step, each answer with its errno or its value, and what a case leaves behind."""
    host = tmp_path / "host.toml"
    host.write_text(SHIPPED.read_text().replace("[host]", f'[host]\nkernel = "{kernel}"', 1))
    recorded = record("ops", mount(host).root, tmp_path / golden, "--parent", parent)
    said = compare(golden, recorded)
    skipped = {one.name for one in said if one.kind == "SKIPPED"}
    wrong = unlisted([one for one in said if one.kind != "SKIPPED"], allowed(parent, Kernel.parse(kernel)))
    assert not wrong, "the mount and deviations.toml disagree:\n" + "\n".join(wrong)
    assert skipped == set(read_deviations().ops.skipped)
    assert orders(recorded) == orders(RECORDINGS / golden)


def allowed(parent: str, kernel: Kernel) -> dict[tuple[str, int], tuple[Answer, Answer]]:
    """What differs at each listed step: in the kernel's answer and in FUSE's."""

    def fill(answer: Answer) -> Answer:
        return {key: one.replace("{parent}", parent) if isinstance(one, str) else one for key, one in answer.items()}

    cases = read_deviations().deviation
    steps = [(case.case, one) for case in cases for one in case.steps if kernel.since(one.since)]
    return {(case, one.step): (fill(one.kernel), one.fuse) for case, one in steps}


def unlisted(said: list[Difference], listed: dict[tuple[str, int], tuple[Answer, Answer]]) -> list[str]:
    """Differences that are not listed or not as listed, and listed ones that are none."""
    wrong = []
    left = dict(listed)
    for one in said:
        expected = left.pop((one.name, one.step), None)
        if one.kind != "DIFF" or expected != (one.kernel, one.ours):
            wrong.append(one.text if expected is None else f"{one.text}\n   listed {expected}")
    wrong += [f"listed, but no different from the kernel: {case} step {step}" for case, step in left]
    return wrong


def test_every_deviation_is_proved() -> None:
    deviations = read_deviations().deviation
    cases = [one.case for one in deviations]
    assert len(cases) == len(set(cases))
    for one in deviations:
        assert callable(getattr(test_fuse_limits, one.proof, None)), f"{one.case}: no test {one.proof}"


def test_a_deviation_must_be_as_listed() -> None:
    """The comparison itself: it knows a difference from the listed one, and misses none that has gone."""
    listed: dict[tuple[str, int], tuple[Answer, Answer]] = {("a.case", 3): ({"errno": "ENODEV"}, {"ok": 0})}
    as_listed = Difference("DIFF", "a.case", 3, "as listed", {"errno": "ENODEV"}, {"ok": 0})
    otherwise = Difference("DIFF", "a.case", 3, "otherwise", {"errno": "ENODEV"}, {"ok": 1})
    elsewhere = Difference("DIFF", "a.case", 4, "elsewhere", {"errno": "ENODEV"}, {"ok": 0})
    broken = Difference("BROKEN", "a.case", -1, "broken")
    assert unlisted([as_listed], listed) == []
    assert unlisted([], listed) == ["listed, but no different from the kernel: a.case step 3"]
    assert unlisted([otherwise], listed)[0].startswith("otherwise\n   listed")
    assert unlisted([as_listed, elsewhere, broken], listed) == ["elsewhere", "broken"]
