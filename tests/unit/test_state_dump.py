"""Reading dumps of -dump-vmstate: real ones, and whatever somebody may call a dump."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdevfs.errors import InputError
from mdevfs.state.dump import MAX_BYTES, MAX_TOLD, parse, read
from tests.qemu import VMSTATE

GOOD: dict[str, Any] = {
    "vmschkmachine": {"Name": "mdevfs-1.0"},
    "nic": {
        "Name": "nic",
        "version_id": 2,
        "minimum_version_id": 1,
        "Description": {
            "name": "nic",
            "version_id": 2,
            "minimum_version_id": 1,
            "Fields": [{"field": "mta", "version_id": 0, "field_exists": False, "size": 4, "num": 128}],
            "Subsections": [{"name": "nic/rss", "version_id": 1, "minimum_version_id": 1, "Fields": []}],
        },
    },
}


def mistakes(text: bytes | object) -> list[str]:
    """What is wrong with it, without the origin."""
    with pytest.raises(InputError) as caught:
        parse(text if isinstance(text, bytes) else json.dumps(text).encode(), "x.json")
    assert all(one.startswith("x.json: ") for one in caught.value.mistakes)
    return [one.removeprefix("x.json: ") for one in caught.value.mistakes]


def changed(**keys: object) -> dict[str, Any]:
    """The good dump with other keys in the description."""
    copy: dict[str, Any] = json.loads(json.dumps(GOOD))
    copy["nic"]["Description"].update(keys)
    return copy


@pytest.mark.parametrize(("release", "tells"), [("7.2", False), ("10.0", True), ("11.1", True)])
def test_real_dumps_are_read_whole(release: str, tells: bool) -> None:
    path = VMSTATE / f"dump-qemu{release}-pc-q35-7.2.json"
    dump = read(path)
    document = json.loads(path.read_text())
    assert (dump.machine, dump.tells_lengths, dump.own) == ("pc-q35-7.2", tells, False)
    assert {"vmschkmachine", *dump.devices} == document.keys()
    assert all(not one.contradictions and not one.ignored for one in dump.devices.values())
    e1000 = dump.devices["e1000"].saved
    assert e1000 is not None and e1000.fields is not None
    assert [one.name for one in e1000.fields] == [one["field"] for one in document["e1000"]["Description"]["Fields"]]
    assert [one.name for one in e1000.subsections] == ["e1000/mit_state", "e1000/full_mac_state", "e1000/tx_tso_state"]


def test_a_device_that_cannot_migrate_has_no_description_of_its_state() -> None:
    nvme = read(VMSTATE / "dump-qemu7.2-pc-q35-7.2.json").devices["nvme"]
    assert nvme.described is not None
    assert nvme.saved is None


def test_what_is_read() -> None:
    dump = parse(json.dumps(GOOD).encode(), "x.json")
    described = dump.devices["nic"].saved
    assert described is not None and described.fields is not None
    (mta,) = described.fields
    assert (mta.name, mta.version, mta.conditional, mta.size, mta.num, mta.struct) == ("mta", 0, False, 4, 128, None)
    assert (dump.own, dump.tells_lengths) == (True, True)


def test_keys_that_mean_nothing_and_contradictions_are_kept_to_be_told() -> None:
    dump = changed(Comment=1, version_id=3)
    dump["nic"]["Description"]["Fields"][0]["Type"] = "uint32"
    device = parse(json.dumps(dump).encode(), "x.json").devices["nic"]
    assert device.ignored == ("Comment of description nic", "Type of field mta")
    assert device.contradictions == ("the entry says version 2 from 1 on, its description version 3 from 1 on",)


def test_every_mistake_at_once_with_its_place() -> None:
    field = {"field": "a\x1b", "version_id": True, "field_exists": 0, "size": -1, "num": 1.5}
    dump = changed(Fields=[{"field": "x"}, field, []], Subsections={}, version_id=2**31)
    dump["vmschkmachine"] = {}
    dump["n\x07"] = 3
    found = mistakes(dump)
    places = [one.partition(": ")[0] for one in found]
    assert places == [
        "vmschkmachine.Name",
        *(f"nic.Description.{key}" for key in ("version_id",)),
        *(f"nic.Description.Fields[0].{key}" for key in ("version_id", "field_exists", "size")),
        *(f"nic.Description.Fields[1].{key}" for key in ("field", "version_id", "field_exists", "size", "num")),
        "nic.Description.Fields[2]",
        "nic.Description.Subsections",
        "n\\x07",
        "n\\x07",
    ]
    assert "nic.Description.Fields[0].size: is required" in found
    assert 'nic.Description.Fields[1].field: a name is printable ASCII (is "a\\u001b")' in found
    assert "nic.Description.Fields[2]: should be an object (is a list)" in found


def test_of_very_many_mistakes_some_are_told() -> None:
    found = mistakes(changed(Fields=[[]] * 500))
    assert (len(found), found[-1]) == (MAX_TOLD + 1, "and 450 more")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "not JSON: "),
        (b"\xff", "not UTF-8: "),
        (b"[]", "not a JSON object"),
        (b"{}", "no vmschkmachine: "),
        (b'{"vmschkmachine": {"Name": "x"}, "a": ' + b"[" * 150 + b"]" * 150 + b"}", "nested deeper than "),
        (b"[" * 100_000, "nested deeper than "),
        (b'{"a": ' * 100_000, "nested deeper than "),
        (b'{"a": ' + b"9" * 5000 + b"}", "a number has more digits than "),
        (b" " * (MAX_BYTES + 1), "larger than "),
        (b"[" + b",".join([b"{}"] * 100_001) + b"]", "more than 100000 objects"),
        (b'{"vmschkmachine": {"Name": "x", "Name": "y"}}', "vmschkmachine.Name: is given twice"),
        (b'{"vmschkmachine": {"Name": "x"}, "a\\ud800": {"\\udfff": 1}}', "a\\x"),
    ],
)
def test_what_is_no_dump_is_refused_in_one_line(text: bytes, said: str) -> None:
    first, *_ = mistakes(text)
    assert first.startswith(said)
    assert first.isprintable() and first.isascii()


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(InputError, match=r"/nowhere/x\.json: No such file"):
        read(Path("/nowhere/x.json"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)
PLACES = [
    ("nic",),
    ("nic", "Name"),
    ("nic", "version_id"),
    ("nic", "Description"),
    ("nic", "Description", "Fields"),
    ("nic", "Description", "Fields", 0),
    ("nic", "Description", "Fields", 0, "size"),
    ("nic", "Description", "Fields", 0, "Description"),
    ("nic", "Description", "Subsections"),
    ("nic", "Description", "Subsections", 0, "name"),
    ("vmschkmachine",),
]


@given(JSON, st.sampled_from(PLACES))
def test_anything_in_any_place_is_read_or_refused(value: object, place: tuple[str | int, ...]) -> None:
    dump = json.loads(json.dumps(GOOD))
    inner = dump
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    told: list[str] = []
    try:
        parse(json.dumps(dump).encode(), "x.json")
    except InputError as error:
        told = error.mistakes
    assert all(one.isascii() and one.isprintable() for one in told)
