"""`mdevfs state check`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mdevfs.cli.main import run
from tests.qemu import VMSTATE

CASES = {one["name"]: one for one in json.loads((VMSTATE / "checker-cases.json").read_text())}
OLD, NEW = (str(VMSTATE / f"dump-qemu{release}-pc-q35-7.2.json") for release in ("7.2", "11.1"))


def files(folder: Path, case: str) -> list[str]:
    """The two dumps of a case, as files."""
    paths = [folder / "old.json", folder / "new.json"]
    for path, side in zip(paths, ("src", "dst"), strict=True):
        path.write_text(json.dumps(CASES[case][side]))
    return [str(path) for path in paths]


@pytest.mark.parametrize(
    ("case", "options", "code"),
    [
        ("field-renamed", [], 0),
        ("field-appended-bump", [], 1),
        ("field-appended-bump", ["--forward"], 0),
        ("field-appended-bump", ["--backward"], 1),
        ("field-appended-bump", ["--forward", "--backward"], 1),
        ("field-appended-bump", ["--allow-if-sent"], 1),
        ("subsection-removed", [], 1),
        ("subsection-removed", ["--allow-if-sent"], 0),
        ("section-removed", ["--device", "demo-nic"], 0),
    ],
)
def test_the_exit_code(tmp_path: Path, case: str, options: list[str], code: int) -> None:
    assert run(["state", "check", *files(tmp_path, case), *options]) == code


def test_a_block_for_each_device_with_something_to_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["state", "check", *files(tmp_path, "field-appended-bump")]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "demo-nic, version 2 -> 3: forward loads, backward refused",
        "  backward: refused, state-version-too-new: the target's newest version is 2 "
        "(old: versions 1 to 2; new: version 3)",
        "    mend: save with version 2 (mdevfs/save_state_version), which the target loads",
        "forward, OLD saves and NEW loads: loads (2 devices)",
        "backward, NEW saves and OLD loads: refused (1 of 2 devices)",
        "more: mdevfs explain state-version-too-new",
    ]


def test_what_is_the_same_both_ways_is_told_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["state", "check", *files(tmp_path, "field-renamed")]) == 0
    assert capsys.readouterr().out.splitlines()[1] == (
        "  forward and backward: harmless, state-field-renamed: names are not sent (old: ctrl; new: control)"
    )


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["state", "check", *files(tmp_path, "subsection-removed"), "--json"]) == 1
    shown = json.loads(capsys.readouterr().out)
    assert shown["forward"] == {"verdict": "refused", "when": "if-sent"}
    assert shown["backward"] == {"verdict": "loads", "when": None}
    nic, uart = shown["devices"]
    assert (nic["device"], nic["old_version"], nic["new_version"], uart["findings"]) == ("demo-nic", 2, 2, [])
    (one,) = nic["findings"]
    expected = ("forward", "can break", "state-subsection-unknown", "demo-nic/itr")
    assert (one["direction"], one["severity"], one["code"], one["field"]) == expected


def test_real_dumps(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["state", "check", OLD, NEW, "--device", "e1000", "--device", "hpet"]) == 0
    assert run(["state", "check", OLD, NEW, "--device", "e1000e", "--allow-if-sent"]) == 0
    assert run(["state", "check", OLD, NEW, "--device", "nvme", "--allow-if-sent"]) == 1


def test_every_mistake_of_both_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text('{"vmschkmachine": {}, "a\\u001b[31m": {"Name": 1}}')
    assert run(["state", "check", "/nowhere.json", str(bad)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "mdevfs: /nowhere.json: No such file or directory"
    assert lines[1] == f"mdevfs: {bad}: vmschkmachine.Name: is required"
    assert all(line.isascii() and line.isprintable() for line in lines)


def test_a_device_that_no_dump_has(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["state", "check", OLD, NEW, "--device", "e100", "--device", "x"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == 'mdevfs: no dump has a device "e100", did you mean "e1000"?'
    assert lines[1].startswith('mdevfs: no dump has a device "x"')
