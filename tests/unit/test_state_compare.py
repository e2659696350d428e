"""The static verdict of two dumps: QEMU's 24 cases, real dumps, what a checker of names cannot see, and chance."""

from __future__ import annotations

import json
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest

from mdevfs.state.compare import Comparison, compare
from mdevfs.state.dump import Dump, parse, read
from mdevfs.state.finding import Direction
from tests.qemu import VMSTATE
from tests.unit.dumps import (
    Misread,
    Refused,
    World,
    any_described,
    described,
    dump,
    edited,
    nic,
    plain,
    struct,
)

CASES: dict[str, dict[str, Any]] = {
    one["name"]: one for one in json.loads((VMSTATE / "checker-cases.json").read_text())
}

VERSIONS = {"state-version-too-old", "state-version-too-new"}

# What is true on the wire (tests/vmstate/README.md, section 1, last column): forward, backward, and the codes why not.
TRUE = {
    "identical": ("loads", "loads", set()),
    "section-removed": ("refused if sent", "loads", {"state-device-unknown"}),
    "section-renamed": ("refused if sent", "refused if sent", {"state-device-unknown"}),
    "field-appended-no-bump": ("breaks", "breaks", {"state-field-added"}),
    "field-appended-bump": ("loads", "refused", {"state-version-too-new"}),
    "field-inserted-no-bump": ("breaks", "breaks", {"state-field-added"}),
    "field-inserted-bump": ("loads", "refused", {"state-version-too-new"}),
    "last-field-removed": ("breaks", "breaks", {"state-field-removed"}),
    "field-renamed": ("loads", "loads", set()),
    "field-size": ("breaks", "breaks", {"state-field-size"}),
    "struct-size": ("loads", "loads", set()),
    "struct-to-plain": ("breaks", "breaks", {"state-field-size"}),  # 10 bytes sent, 24 expected
    "fields-wrapped-in-struct": ("loads", "loads", set()),
    "to-unused": ("loads", "loads", set()),
    "to-unused-short": ("breaks", "breaks", {"state-field-size"}),
    "minimum-up": ("refused", "refused", VERSIONS),
    "minimum-up-section-only": ("refused", "refused", VERSIONS),
    "subsection-removed": ("refused if sent", "loads", {"state-subsection-unknown"}),
    "subsections-emptied": ("refused if sent", "loads", {"state-subsection-unknown"}),
    "subsection-renamed": ("refused if sent", "refused if sent", {"state-subsection-unknown"}),
    "subsection-order": ("loads", "loads", set()),
    "subsection-version-down": (
        "refused if sent",
        "refused if sent",
        {"state-version-too-new", "state-version-too-old"},
    ),
    "description-renamed": ("refused", "refused", {"state-device-unknown"}),
    "extra-keys": ("loads", "loads", set()),
}

TOLD = {  # although it does no harm
    "section-renamed": {"state-dump-contradicts"},
    "field-renamed": {"state-field-renamed"},
    "fields-wrapped-in-struct": {"state-field-renamed"},
    "to-unused": {"state-field-unused"},
    "minimum-up-section-only": {"state-dump-contradicts"},
    "extra-keys": {"state-dump-keys"},
}

# Where QEMU's checker says another thing than is true, forward and backward: it compares names, and not bytes.
CHECKER_WRONG = {
    "field-appended-no-bump": (True, False),  # sees nothing: it looks for the source's fields only
    "field-inserted-bump": (True, False),  # an error: the newer field is skipped on the wire
    "last-field-removed": (False, True),
    "field-renamed": (True, True),
    "struct-to-plain": (False, True),
    "minimum-up-section-only": (True, False),
    "extra-keys": (False, True),
}


def both(old: Dump, new: Dump) -> tuple[str, str]:
    """The verdicts, forward and backward."""
    result = compare(old, new)
    return str(result.outcome("forward")), str(result.outcome("backward"))


def codes(result: Comparison, *, harmless: bool = False) -> set[str]:
    return {one.code for one in result.findings if (one.effect == "loads") == harmless}


def harmless(old: Dump, new: Dump) -> set[str]:
    """The codes of what is told although it does no harm; that all else is well is checked."""
    result = compare(old, new)
    assert codes(result) == set()
    return codes(result, harmless=True)


def dumps_of(case: dict[str, Any]) -> tuple[Dump, Dump]:
    old, new = (parse(json.dumps(case[side]).encode(), side) for side in ("src", "dst"))
    return old, new


# -- QEMU's cases


def test_every_case_is_held() -> None:
    assert CASES.keys() == TRUE.keys()
    assert len(TRUE) == 24


@pytest.mark.parametrize("name", TRUE)
def test_the_true_verdict_of_a_case(name: str) -> None:
    forward, backward, why = TRUE[name]
    result = compare(*dumps_of(CASES[name]))
    assert (str(result.outcome("forward")), str(result.outcome("backward"))) == (forward, backward)
    assert codes(result) == why
    assert codes(result, harmless=True) == TOLD.get(name, set())
    for one in result.findings:
        assert bool(one.mend) == (one.effect != "loads")
        assert one.device in ("demo-nic", "demo-uart", "demo-uart2")


@pytest.mark.parametrize("name", TRUE)
def test_where_the_checker_is_wrong(name: str) -> None:
    said = [CASES[name][direction]["errors"] == 0 for direction in ("forward", "reverse")]
    truth = [verdict == "loads" for verdict in both(*dumps_of(CASES[name]))]
    wrong = tuple(one != other for one, other in zip(said, truth, strict=True))
    assert wrong == CHECKER_WRONG.get(name, (False, False))


def test_a_case_tells_device_field_and_both_versions() -> None:
    result = compare(*dumps_of(CASES["field-size"]), ["forward"])
    (one,) = result.findings
    assert (one.device, one.field, one.source, one.target) == ("demo-nic", "ctrl", "ctrl (4 bytes)", "ctrl (8 bytes)")
    assert result.versions["demo-nic"] == (2, 2)
    (one,) = compare(*dumps_of(CASES["field-appended-bump"]), ["backward"]).findings
    assert (one.source, one.target) == ("version 3", "versions 1 to 2")


# -- real dumps


def real(release: str) -> Dump:
    return read(VMSTATE / f"dump-qemu{release}-pc-q35-7.2.json")


@pytest.mark.parametrize("release", ["7.2", "10.0", "11.1"])
def test_a_real_dump_fits_itself(release: str) -> None:
    result = compare(real(release), real(release))
    assert codes(result) == set()
    assert codes(result, harmless=True) <= {"state-not-saved"}  # nvme of 7.2 and 10.0


@pytest.mark.parametrize(
    "device", ["e1000", "hpet", "ps2-kbd", "i8042", "isa-serial", "virtio-net-device", "fw_cfg_io"]
)
def test_real_devices_of_7_2_and_11_1_load_both_ways(device: str) -> None:
    result = compare(real("7.2"), real("11.1"), devices=[device])
    assert codes(result) == set()


def test_e1000e_of_7_2_and_11_1_loads_unless_the_new_field_is_sent() -> None:
    """Measured: streams load in both directions, with machine types that have migrate-timadj off. QEMU's checker sees
    errors in both, in what became unused."""
    result = compare(real("7.2"), real("11.1"), devices=["e1000e"])
    bad = [one for one in result.findings if one.effect != "loads"]
    assert [(one.direction, one.code, one.field, one.severity) for one in bad] == [
        ("forward", "state-field-condition", "core.timadj", "can break"),
        ("backward", "state-field-condition", "core.timadj", "can break"),
    ]
    assert codes(result, harmless=True) == {"state-length-unknown", "state-field-unused"}


def test_what_changed_between_real_releases() -> None:
    result = compare(real("10.0"), real("11.1"))
    bad = {(one.device, one.direction, one.code, one.severity) for one in result.findings if one.effect != "loads"}
    assert bad == {
        ("nvme", "forward", "state-not-saved", "breaks"),
        ("nvme", "backward", "state-not-saved", "breaks"),
        ("pvscsi", "forward", "state-field-condition", "can break"),
        ("pvscsi", "backward", "state-field-condition", "can break"),
    }


# -- bytes, not names

A, B, C = plain("a", 4), plain("b", 4), plain("c", 2)
RING = described("ring", [plain("base", 8), plain("len", 2)])


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ([plain("a", 4, 3)], [plain("a", 4, 4)], "state-field-size"),
        ([A], [plain("a", 4, 2)], "state-field-size"),
        ([A, B], [B, A], "state-field-moved"),
        ([A, B], [B, plain("unused", 4)], "state-field-removed"),
        ([struct("r", RING), struct("s", RING)], [struct("s", RING), struct("r", RING)], "state-field-moved"),
        ([A, plain("unused", 4)], [plain("a", 8)], "state-field-size"),
        ([plain("x", 2), plain("y", 8)], [plain("v", 8), plain("w", 2)], "state-field-boundaries"),
        ([struct("r", RING, 2)], [plain("x", 2), plain("y", 16), plain("z", 2)], "state-field-boundaries"),
        ([struct("r", RING, 3000)], [plain("x", 15000), plain("y", 15000)], "state-field-boundaries"),
        ([struct("r", RING, 3)], [struct("r", RING, 2)], "state-field-size"),
        (
            [struct("r", described("r", [A, B, plain("y", 4)]), 2)],
            [struct("r", described("r", [A, plain("x", 4)]), 3)],
            "state-field-size",
        ),
        (
            [struct("r", described("r", [A, B]), 2)],
            [struct("r", described("r", [B, A])), A, B],
            "state-field-boundaries",
        ),
        ([A, A, B], [A, plain("z", 4), A], "state-field-boundaries"),
        ([plain("virtio", 0)], [], "state-field-removed"),
        ([plain("a", 4, 0)], [A], "state-field-size"),
        ([plain("a", 4, 0)], [plain("a", 2, 0)], "state-field-size"),
        ([struct("r", RING, 0)], [struct("r", RING)], "state-field-size"),
        ([plain("virtio", 0)], [A], "state-field-size"),
        ([struct("r", described("r", [A]))], [struct("r", described("r", []))], "state-field-removed"),
    ],
)
def test_what_breaks_both_ways(old: list[Any], new: list[Any], code: str) -> None:
    end = plain("end", 1, 2)
    result = compare(nic(*old, end), nic(*new, end))
    assert both(nic(*old, end), nic(*new, end)) == ("breaks", "breaks")
    assert code in codes(result)


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ([A], [plain("z", 4)], "state-field-renamed"),
        ([struct("r", RING)], [plain("r", 10)], "state-field-regrouped"),
        ([struct("r", RING, 2)], [plain("x", 10), plain("y", 10)], "state-field-regrouped"),
        ([struct("r", RING, 2)], [plain("w", 8), plain("x", 2), plain("y", 8), plain("z", 2)], "state-field-renamed"),
        ([struct("r", RING, 2)], [struct("s", RING, 2)], "state-field-renamed"),
        ([plain("a", 1, 4)], [A], "state-field-regrouped"),
        ([A, B], [plain("unused", 8)], "state-field-unused"),
        ([plain("unused", 6)], [A, C], "state-field-unused"),
        ([struct("r", RING), A], [struct("r", described("ring", [plain("base", 8)])), C, A], "state-field-renamed"),
        ([struct("r", RING)], [struct("r", described("other", RING["Fields"]))], None),
        ([plain("virtio", 0)], [plain("virtio", 0)], None),
        ([plain("a", 4, 0), struct("r", RING, 0)], [plain("a", 4, 0), struct("r", RING, 0)], None),
    ],
)
def test_what_is_harmless_both_ways(old: list[Any], new: list[Any], code: str | None) -> None:
    end = plain("end", 1, 2)
    assert harmless(nic(*old, end), nic(*new, end)) == ({code} if code else set())


def test_conditions() -> None:
    maybe = plain("a", 4, maybe=True)
    renamed = plain("z", 4, maybe=True)
    within = struct("s", described("s", [A]), maybe=True)
    deeper = struct("s", described("s", [maybe]))
    for old, new in [([A], [maybe]), ([], [maybe]), ([maybe], [renamed]), ([within], [deeper]), ([maybe, B], [B, C])]:
        result = compare(nic(*old, C), nic(*new, C))
        found = {(str(result.outcome(one)), *codes(result)) for one in result.directions}
        assert ("breaks if sent", "state-field-condition") in found or old == [maybe, B]
    assert harmless(nic(maybe, within), nic(maybe, within)) == set()


def test_beside_a_condition_what_changed_in_an_array_is_found() -> None:
    """Found by chance: the comparison ended with an IndexError."""
    old = nic(struct("s", described("s", [A]), 2), plain("m", 4, maybe=True), C)
    assert both(old, nic(struct("t", described("s", [plain("x", 8)]), 2), C)) == ("breaks", "breaks")


def test_versions_of_fields_count_only_in_sections_and_structs_of_their_description() -> None:
    """A struct's version is not sent: each side takes its own."""
    old = nic(struct("s", described("s", [A, plain("b", 4, since=2)], version=1)), version=5)
    assert both(old, nic(struct("s", described("s", [A])), version=5)) == ("loads", "loads")
    new = nic(struct("s", described("s", [A, plain("b", 4, since=2)], version=2)), version=5)
    assert both(old, new) == ("breaks", "breaks")


def test_a_condition_overrules_the_version_in_qemu_and_not_here() -> None:
    """QEMU: vmstate_field_exists asks the function alone."""
    fields = [A, plain("b", 4, 2), plain("c", 4, since=3, maybe=True)]
    for machine, forward in (("pc", "breaks if sent"), ("mdevfs-1", "loads")):
        old = dump(described("nic", fields[:2], version=2), machine=machine)
        new = dump(described("nic", fields, version=3, minimum=1), machine=machine)
        assert both(old, new) == (forward, "refused")


def test_a_newer_version_may_still_save_an_older_one() -> None:
    new = nic(A, plain("b", 4, since=2), version=2)
    (one,) = compare(nic(A), new, ["backward"]).findings
    assert one.mend is not None and "save with version 1" in one.mend
    (one,) = compare(nic(A), nic(A, B, version=2), ["backward"]).findings
    assert one.mend is not None and "subsection" in one.mend
    (one,) = compare(nic(A), nic(A, plain("b", 4, since=2), version=2, minimum=2), ["backward"]).findings
    assert one.mend is not None and "subsection" in one.mend


# -- subsections


def test_subsections_of_a_struct() -> None:
    def ring(name: str, *subsections: dict[str, Any]) -> Dump:
        return nic(struct("r", described(name, [A], subsections)), C)

    sub = described("ring/x", [B])
    assert both(ring("ring", sub), ring("ring", sub)) == ("loads", "loads")
    assert both(ring("ring"), ring("ring", sub)) == ("loads", "refused if sent")
    assert both(ring("ring", sub), ring("ring", described("ring/x", [C]))) == ("breaks if sent", "breaks if sent")
    # What does not begin with the description's name is not taken for a subsection.
    assert both(ring("ring", sub), ring("wheel", described("wheel/x", [B]))) == ("breaks if sent", "breaks if sent")
    assert both(ring("ring", sub), nic(A, C)) == ("breaks if sent", "loads")


def test_subsections_of_subsections() -> None:
    def chain(*fields: dict[str, Any], version: int = 1) -> Dump:
        inner = described("nic/x/y", fields, version=version, minimum=1)
        return nic(A, subsections=[described("nic/x", [B], [inner])])

    result = compare(chain(C), chain(A))
    assert {one.field for one in result.findings} == {"nic/x/y/c", "nic/x/y/a"}
    assert both(chain(C), chain(A)) == ("breaks if sent", "breaks if sent")
    assert both(chain(C), chain(C, plain("d", 1, since=2), version=2)) == ("loads", "refused if sent")


def test_an_array_of_structs_with_subsections_is_no_run_of_bytes() -> None:
    array = struct("r", described("ring", [A], [described("ring/x", [B])]), 2)
    assert both(nic(array, C), nic(plain("r", 8), C)) == ("breaks", "breaks")


def test_a_struct_with_subsections_that_moved() -> None:
    ring = struct("r", described("ring", [], [described("ring/x", [B])]))
    assert both(nic(ring, A), nic(A, ring)) == ("breaks if sent", "breaks if sent")


# -- dumps that tell no lengths


def qemu(*fields: dict[str, Any]) -> Dump:
    return dump(described("nic", fields), machine="pc")


def test_where_a_dump_tells_no_lengths_arrays_are_taken_to_fit() -> None:
    end = plain("end", 1, 2)
    old = qemu(A, plain("end", 1))
    assert harmless(old, qemu(plain("a", 4, 7), end)) == {"state-length-unknown"}
    assert harmless(old, qemu(plain("unused", 12), end)) == {"state-length-unknown", "state-field-unused"}
    assert both(old, qemu(plain("unused", 13), end)) == ("breaks", "breaks")
    assert both(old, qemu(plain("a", 8), end)) == ("breaks", "breaks")
    assert both(old, old) == ("loads", "loads")


def test_our_own_dumps_always_tell_lengths() -> None:
    assert both(nic(A), nic(plain("a", 4, 2))) == ("breaks", "breaks")


# -- never a false yes, against a stream byte by byte

SEEDS = 400


def worlds(random: Random, strict: bool) -> list[World]:
    """Conditions and needs: all, none, and some."""
    return [World(Chance(random, often), Chance(random, often), strict) for often in (0, 1, 0.5, 0.5)]


class Chance(dict[str, bool]):
    """True so often, and for one key always the same."""

    def __init__(self, random: Random, often: float) -> None:
        super().__init__()
        self.random, self.often = random, often

    def __missing__(self, key: str) -> bool:
        self[key] = self.random.random() < self.often
        return self[key]


def results(source: dict[str, Any], target: dict[str, Any], made: Sequence[World]) -> set[str]:
    """What becomes of it in each world where both sides load their own state."""
    found = set()
    for one in made:
        try:
            for side in (source, target):
                World(one.holds, one.needed, one.strict).moves(side, side)
        except (Refused, Misread):
            continue
        try:
            one.moves(source, target)
            found.add("loads")
        except Refused:
            found.add("refused")
        except Misread:
            found.add("breaks")
    return found


@pytest.mark.parametrize("part", range(4))
def test_a_verdict_agrees_with_the_bytes(part: int) -> None:
    """By chance: a description and a changed one. Where the verdict is that it loads, it does, whatever the conditions;
    where nothing depends on conditions and the verdict is no, it does not load."""
    seen: set[tuple[str, bool]] = set()
    for seed in range(part * SEEDS, (part + 1) * SEEDS):
        random = Random(seed)
        old = any_described(random)
        new = edited(random, old)
        for one in (old, new):
            one["Fields"].append(plain("end", 1, 2))
        own = random.random() < 0.5
        machine = "mdevfs-1" if own else "pc"
        result = compare(dump(old, machine=machine), dump(new, machine=machine))
        simple = not any(text in json.dumps([old, new]) for text in ("true", '"unused"', '"num": 3', "Subsections"))
        sides: list[tuple[Direction, Any, Any]] = [("forward", old, new), ("backward", new, old)]
        for direction, source, target in sides:
            verdict = result.outcome(direction)
            happened = results(source, target, worlds(random, own))
            seen |= {(str(verdict), one == "loads") for one in happened}
            if verdict.effect == "loads":
                assert happened <= {"loads"}, f"seed {seed}, {direction}: a false yes"
            elif verdict.effect == "refused" and not verdict.if_sent:
                assert happened <= {"refused"}, f"seed {seed}, {direction}"
            elif simple:
                assert "loads" not in happened, f"seed {seed}, {direction}: a false no"
    assert {("loads", True), ("breaks", False), ("refused", False), ("breaks if sent", True)} <= seen


# -- whatever somebody calls a dump


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ([plain(f"a{i}", 4) for i in range(5000)], [plain(f"b{i}", 4) for i in range(5001)]),
        ([plain(f"a{i}", 4) for i in range(5000)], [plain(f"a{i}", 4) for i in reversed(range(5000))]),
        (
            [struct(f"a{i}", described(f"s{i}.", [A], [described(f"s{i}.x", [])])) for i in range(3000)],
            [struct(f"b{i}", described(f"s{i}.", [A], [described(f"s{i}.x", [])])) for i in range(3000)],
        ),
    ],
    ids=["renamed", "reversed", "subsections"],
)
def test_large_dumps_take_no_deep_stack_and_no_square_time(old: list[Any], new: list[Any]) -> None:
    result = compare(nic(*old), nic(*new))
    assert result.findings


def test_deep_structs_that_are_large_on_the_wire_are_not_written_out() -> None:
    deep, other = described("d", [plain("x", 1)]), described("d", [plain("x", 2)])
    for _ in range(28):
        deep, other = (described("d", [struct("s", one, 2**20)]) for one in (deep, other))
    assert both(dump(deep), dump(deep)) == ("loads", "loads")
    assert both(dump(deep), dump(other)) == ("breaks", "breaks")
