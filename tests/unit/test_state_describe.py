"""Descriptions as dumps and as documents: what QEMU's checker reads, and what our own encoder really does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import pytest

from mdevfs.cli.main import run
from mdevfs.errors import InputError
from mdevfs.state import stream
from mdevfs.state.body import save
from mdevfs.state.compare import compare
from mdevfs.state.describe import dump
from mdevfs.state.description import Struct, VMState
from mdevfs.state.document import document
from mdevfs.state.drive import randomize
from mdevfs.state.dump import Dump, parse
from mdevfs.state.fields import U8, U16, U32, U64, Bytes, Field, SizedBytes, Timer, Unused, When
from mdevfs.state.finding import Direction
from mdevfs.state.refusal import BadState
from mdevfs.state.view import View
from mdevfs.vendor.guard import GuardedDriver
from mdevfs.vendor.loader import all_installed
from tests.qemu import VMSTATE, judge, needs_scripts
from tests.unit.dumps import Json, any_described, condition, edited

RING = VMState("ring", fields=[U64("base"), U16("len")], doc="A ring of descriptors.")


def _link_is_up(view: View) -> bool:
    """The link is up."""
    return bool(view.state.link)


NIC = VMState(
    "nic",
    3,
    1,
    fields=[
        U32("ctrl", doc="control | status"),
        U16("mta", num=4),
        U8("queues", num="queues"),
        Struct("rx", of=RING),
        Struct("tx", of=RING, num=2),
        Unused(4, when=When("in even years", lambda view: False)),
        Timer("itr", when="itr", doc="when interrupts may come again"),
        U8("link", since=2),
        U32("speed", since=3, when=_link_is_up),
        U32("length"),
        SizedBytes("rom", length="length", most=4096),
    ],
    subsections=[VMState("nic/rss", fields=[Bytes("key", 40)], needed="rss")],
    blocked={2: "the link comes up as down"},
    doc="A NIC.",
)


def field(name: str, size: int, version: int = 0, exists: bool = False, num: int | None = None) -> Json:
    return {
        "field": name,
        "version_id": version,
        "field_exists": exists,
        **({} if num is None else {"num": num}),
        "size": size,
    }


def test_the_json_of_a_description() -> None:
    ring = {
        "name": "ring",
        "version_id": 1,
        "minimum_version_id": 1,
        "Fields": [field("base", 8), field("len", 2)],
    }
    found = dump({"nic": (NIC, 3)})
    assert found.pop("vmschkmachine")["Name"].startswith("mdevfs-")
    assert found == {
        "nic": {
            "Name": "nic",
            "version_id": 3,
            "minimum_version_id": 1,
            "Description": {
                "name": "nic",
                "version_id": 3,
                "minimum_version_id": 1,
                "Fields": [
                    field("ctrl", 4),
                    field("mta", 2, num=4),
                    field("queues", 1, num=0),
                    {**field("rx", 10), "Description": ring},
                    {**field("tx", 10, num=2), "Description": ring},
                    field("unused", 4, exists=True),
                    field("itr", 8, exists=True),
                    field("link", 1, 2),
                    field("speed", 4, 3, exists=True),
                    field("length", 4),
                    field("rom", 1, num=0),
                ],
                "Subsections": [
                    {
                        "name": "nic/rss",
                        "version_id": 1,
                        "minimum_version_id": 1,
                        "Fields": [field("key", 40)],
                    }
                ],
            },
        }
    }


def read(described: VMState, version: int | None = None) -> Dump:
    version = described.version if version is None else version
    return parse(json.dumps(dump({"nic": (described, version)})).encode(), "nic")


def test_an_older_version_has_no_fields_that_came_later() -> None:
    old = read(NIC, 1).devices["nic"].saved
    assert old is not None and old.fields is not None
    assert old.version == 1
    assert {"link", "speed"}.isdisjoint(one.name for one in old.fields)
    result = compare(read(NIC, 1), read(NIC), ["forward"])
    assert result.outcome("forward").effect == "loads"


def test_a_version_that_is_not_loaded_is_refused() -> None:
    with pytest.raises(InputError, match="nic: version 0 is not loaded; the description takes 1 to 3"):
        dump({"nic": (NIC, 0)})


@needs_scripts
def test_qemus_checker_reads_it(tmp_path: Path) -> None:
    paths = [tmp_path / f"nic-{version}.json" for version in (2, 3)]
    for path, version in zip(paths, (2, 3), strict=True):
        path.write_text(json.dumps(dump({"nic": (NIC, version)})))
    judge("accept_description.py", paths[1], paths[1], "--forward", "ok", "--reverse", "ok")
    judge("accept_description.py", *paths, "--reverse", "bad")


def shipped() -> list[str]:
    """The shipped drivers whose devices migrate."""
    return [found.driver.name for found in all_installed() if GuardedDriver(found.driver()).migrates]


@needs_scripts
def test_qemus_checker_reads_every_shipped_driver(tmp_path: Path) -> None:
    path = tmp_path / "all.json"
    assert run(["state", "describe", *shipped(), "-o", str(path)]) == 0
    assert len(json.loads(path.read_text())) == len(shipped()) + 1
    judge("accept_description.py", path, path, "--forward", "ok", "--reverse", "ok")
    assert run(["state", "check", str(path), str(path)]) == 0


RELEASES = [VMSTATE / f"dump-qemu{release}-pc-q35-7.2.json" for release in ("7.2", "10.0", "11.1")]


@pytest.fixture
def e1000(tmp_path: Path) -> Path:
    """Our e1000 as a dump."""
    path = tmp_path / "e1000.json"
    assert run(["state", "describe", "e1000", "-o", str(path)]) == 0
    return path


@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.stem)
def test_our_e1000_is_qemus(e1000: Path, release: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in ([str(release), "e1000"], ["e1000", str(release)]):
        assert run(["state", "check", *arguments, "--device", "e1000", "--json"]) == 0
        (device,) = json.loads(capsys.readouterr().out)["devices"]
        assert {one["code"] for one in device["findings"]} <= {"state-length-unknown"}


@needs_scripts
@pytest.mark.parametrize("release", RELEASES, ids=lambda path: path.stem)
def test_qemus_checker_takes_our_e1000_for_qemus(e1000: Path, release: Path) -> None:
    for pair in ((release, e1000), (e1000, release)):
        judge("accept_description.py", *pair, "--only", "e1000", "--forward", "ok", "--reverse", "ok")


# -- never a false yes, against our own encoder

KINDS = {1: U8, 2: U16, 4: U32, 8: U64}


def vmstate(one: Json, conditions: Mapping[str, bool], needed: Mapping[str, bool], path: str = "") -> VMState:
    """A description of tests.unit.dumps as a driver would declare it."""
    fields = [_declared(field, conditions, needed, path) for field in one["Fields"] if _possible(field, one)]
    subsections = []
    for sub in one.get("Subsections", []):
        made = vmstate(sub, conditions, needed, f"{path}{sub['name']}/")
        subsections.append(_needed(made, needed[sub["name"]]))
    return VMState(
        one["name"], one["version_id"], one["minimum_version_id"], first=0, fields=fields, subsections=subsections
    )


def _possible(field: Json, within: Json) -> bool:
    """A driver cannot declare a field of a version that there is not."""
    return bool(field["version_id"] <= within["version_id"])


def _needed(made: VMState, needed: bool) -> VMState:
    return VMState(
        made.name,
        made.version,
        made.minimum,
        first=0,
        fields=made.fields,
        subsections=made.subsections,
        needed=lambda view: needed,
    )


def _declared(one: Json, conditions: Mapping[str, bool], needed: Mapping[str, bool], path: str) -> Field:
    where = path + one["field"]
    holds = conditions[condition(where)] if one["field_exists"] else True
    more: dict[str, Any] = {"since": one["version_id"], "when": (lambda view: holds) if one["field_exists"] else None}
    if one["field"] == "unused":
        return Unused(one["size"] * one.get("num", 1), **more)
    more |= {"num": one.get("num"), "path": where.replace("/", "_").replace(".", "_")}
    if "Description" in one:
        return Struct(one["field"], of=vmstate(one["Description"], conditions, needed, f"{where}."), **more)
    return KINDS[one["size"]](one["field"], **more)


def loads(source: VMState, target: VMState, random: Random) -> bool:
    """Whether the stream of a device in a random state loads."""
    view = View(source.fresh(), {}, source.version)
    randomize(source, view, random.randrange(1000))
    chunks, described = save(source, view)
    data = b"".join(stream.write("", [stream.Section("nic", source.version, chunks, described)]))
    place = stream.Place("nic", target, lambda version: View(target.fresh(), {}, version))
    loader = stream.Loader([place])
    try:
        loader.feed(data)
        loader.finish()
    except BadState:
        return False
    return True


class Chance(dict[str, bool]):
    """True half of the time, and for one key always the same."""

    def __init__(self, random: Random) -> None:
        super().__init__()
        self.random = random

    def __missing__(self, key: str) -> bool:
        self[key] = self.random.random() < 0.5
        return self[key]


def test_what_the_static_verdict_says_loads_does_load() -> None:
    seen: set[tuple[str, bool]] = set()
    for seed in range(600):
        random = Random(seed)
        old = any_described(random)
        new = edited(random, old)
        conditions, needed = Chance(random), Chance(random)
        ours, theirs = (vmstate(one, conditions, needed) for one in (old, new))
        if not (loads(ours, ours, random) and loads(theirs, theirs, random)):
            continue
        result = compare(read(ours), read(theirs))
        sides: list[tuple[VMState, VMState, Direction]] = [(ours, theirs, "forward"), (theirs, ours, "backward")]
        for source, target, direction in sides:
            verdict, happened = result.outcome(direction), loads(source, target, random)
            seen.add((str(verdict), happened))
            if verdict.effect == "loads":
                assert happened, f"seed {seed}, {direction}: a false yes"
            elif verdict.effect == "refused" and not verdict.if_sent:
                assert not happened, f"seed {seed}, {direction}"
    assert {("loads", True), ("breaks", False), ("refused", False), ("breaks if sent", True)} <= seen


# -- documents


def test_a_document_tells_everything() -> None:
    text = document("nic", NIC, 3)
    rows = [[cell.strip() for cell in line.split(" | ")] for line in text.splitlines() if line.startswith("| ")]
    assert ["| 0", "`ctrl`", "uint32", "4", "", "always", "control \\| status |"] in rows
    assert ["| 4", "`mta`", "uint16[4]", "8", "", "always", "|"] in rows
    assert ["| 12", "`queues`", "uint8[`queues`]", "1 each", "", "always", "|"] in rows
    assert ["|", "`tx`", "struct `ring`[2]", "20", "", "always", "|"] in rows
    assert ["|", "`itr`", "timer", "8", "", "while `itr` is not off", "when interrupts may come again |"] in rows
    assert ["|", "`unused`", "unused_buffer", "4", "", "in even years", "|"] in rows
    assert ["|", "`speed`", "uint32", "4", "3", "when: The link is up", "|"] in rows
    assert ["|", "`rom`", "buffer", "as `length` says, at most 4096", "", "always", "|"] in rows
    assert "Version 2 is blocked unless an administrator allows it: the link comes up as down." in text
    assert "## Struct `ring`\n\nA ring of descriptors." in text
    assert "## Subsection `nic/rss`\n\nPart of `nic`, version 1. Sent while `rss` is not off." in text
    assert text.count("## Struct") == 1


def test_a_document_of_an_older_version() -> None:
    text = document("nic", NIC, 1)
    assert "`link`" not in text
    assert "blocked" not in text


@pytest.mark.parametrize("name", shipped())
def test_the_document_of_a_shipped_driver_has_words_for_every_condition(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["state", "describe", name, "--doc"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"# Device state of {name}\n")
    assert "the driver says so" not in text


# -- the commands


def test_describe_prints_a_dump(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["state", "describe", "mtty", "my_nic"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == ["vmschkmachine", "mtty_data", "my_nic"]


DRIVER = """
from mdevfs.vendor import U8, U32, DeviceModel, MdevType, Settings, VendorDriver, VMState

class Acme(VendorDriver):
    api = 1
    name = "acme"
    types = [MdevType("one", device_api="vfio-pci", instances=1)]
    model = DeviceModel("acme.com/nic", params=[], versions={})
    state = VMState("acme", 2, 1, fields=[U32("ctrl"), U8("vet", since=2)])

    class Settings(Settings):
        release: int = 2

    def device_state(self, settings):
        return self.state if settings.release > 1 else VMState("acme", 1, fields=[U32("ctrl")])
"""


def test_versions_of_a_driver(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "acme.py"
    path.write_text(DRIVER)
    output = tmp_path / "both.json"
    assert run(["state", "describe", f"{path}@1", str(path), "-o", str(output)]) == 0
    assert list(json.loads(output.read_text())) == ["vmschkmachine", f"{path}@1", str(path)]
    assert run(["state", "check", f"{path}@1", str(path), "--forward"]) == 0
    assert run(["state", "check", f"{path}@1", str(path)]) == 1
    assert "save with version 1" in capsys.readouterr().out
    newer = tmp_path / "acme-3.py"
    newer.write_text(DRIVER.replace('U8("vet", since=2)', 'U8("new"), U8("vet", since=2)'))
    assert run(["state", "check", str(path), str(newer)]) == 1
    assert "state-field-added: new" in capsys.readouterr().out


def test_settings_of_a_driver(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "acme.py"
    path.write_text(DRIVER)
    assert run(["state", "describe", str(path), "--setting", "release=1"]) == 0
    assert json.loads(capsys.readouterr().out)["acme"]["version_id"] == 1
    assert run(["state", "describe", str(path), "--setting", "release=x", "--setting", "nothing"]) == 2
    assert [line.partition(": ")[2][:30] for line in capsys.readouterr().err.splitlines()] == [
        'driver acme: settings: "nothin',
        "driver acme: settings.release:",
    ]


def test_describe_as_a_document(tmp_path: Path) -> None:
    output = tmp_path / "mtty.md"
    assert run(["state", "describe", "mtty", "--doc", "-o", str(output)]) == 0
    assert output.read_text().startswith("# Device state of mtty\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["describe", "mtt"], 'there is no vendor driver "mtt", did you mean "mtty"?'),
        (["describe", "mtty@7"], "mtty_data: version 7 is not loaded; the description takes 1 to 1"),
        (["describe", "mdpy"], "driver mdpy does not migrate: its devices have no state to describe"),
        (["check", "mtty", "./none.json"], "./none.json: No such file or directory"),
    ],
)
def test_mistakes(capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    assert run(["state", *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"mdevfs: {said}")
