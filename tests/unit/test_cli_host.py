"""`mdevfs host`: the shipped hosts, a host's mistakes, the schema for editors."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from mdevfs.cli.host import file_schema
from mdevfs.cli.main import run
from mdevfs.host.read import shipped
from mdevfs.vendor.loader import installed

NAMES = {"gvtg", "gvtg-newer", "gvtg-other-sku", "kernel-samples", "mtty"}


def json_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert run(arguments) == 0
    return json.loads(capsys.readouterr().out)


# -- list


def test_list_names_every_shipped_host_with_a_description(capsys: pytest.CaptureFixture[str]) -> None:
    hosts = {host["name"]: host for host in json_of(capsys, "host", "list", "--json")["hosts"]}
    assert set(hosts) >= NAMES
    assert all(host["description"] and host["drivers"] for host in hosts.values())
    assert hosts["kernel-samples"]["drivers"] == ["mtty", "mdpy", "mbochs"]
    assert Path(hosts["mtty"]["path"]) == shipped()["mtty"]


def test_list_for_people_has_one_line_per_host(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["host", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(shipped())
    assert any(line.split()[:2] == ["mtty", "mtty"] and "24 serial ports" in line for line in lines)


# -- check


@pytest.mark.parametrize("name", sorted(shipped()))
def test_shipped_hosts_are_good(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["host", "check", name]) == 0
    assert capsys.readouterr().out.startswith(f"ok: {shipped()[name]}: ")


def test_check_counts_what_it_built(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "host.toml"
    file.write_text('[[device]]\ndriver = "mtty"\n[[device.mdev]]\ncount = 3\ntype = "mtty-2"\n')
    assert run(["host", "check", str(file)]) == 0
    assert capsys.readouterr().out == f"ok: {file}: 1 device, 3 mdevs\n"


def test_check_tells_all_mistakes_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "host.toml"
    file.write_text('[host]\nkernal = "6.1"\n[[device]]\ndriver = 3\n')
    assert run(["host", "check", str(file)]) == 2
    caught = capsys.readouterr()
    assert caught.out == ""
    assert caught.err.splitlines() == [
        f'mdevfs: {file}: host.kernal: unknown key, did you mean "kernel"?',
        f'mdevfs: {file}: device[0].driver: Input should be a valid string (is "3")',
    ]


def test_check_tells_all_mistakes_that_drivers_know(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "host.toml"
    file.write_text('[[device]]\ndriver = "mty"\n[[device]]\ndriver = "mtty"\nsettings = { ports = 3 }\n')
    assert run(["host", "check", str(file)]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f'mdevfs: {file}: device[0].driver: vendor driver "mty" is unknown, did you mean "mtty"?',
        f"mdevfs: {file}: device[1].settings.ports: unknown key",
    ]


def test_check_tells_mistakes_that_only_the_built_host_knows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "host.toml"
    file.write_text(
        '[[device]]\ndriver = "mtty"\n[[device.mdev]]\ncount = 13\ntype = "mtty-2"\n'
        '[[device.mdev]]\ncount = 1\ntype = "mtty-3"\n'
    )
    assert run(["host", "check", str(file)]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert "device[0].mdev[0]" in first
    assert "no-instances" in first
    assert 'device[0].mdev[1].type: mtty has no type "mtty-3", did you mean' in second


def test_check_of_an_unknown_name_says_what_is_near(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["host", "check", "gvtg-never"]) == 2
    assert 'did you mean "gvtg-newer"?' in capsys.readouterr().err


# -- schema


def test_schema_covers_the_file_and_the_drivers_settings() -> None:
    document = file_schema()
    definitions = document["$defs"]
    assert set(document["properties"]) == {"host", "device"}
    assert {f"settings-{name}" for name in installed()} <= set(definitions)
    assert definitions["settings-i915"]["properties"]["device_id"]["default"] == 0x591D
    tests = [rule["if"]["properties"]["driver"]["const"] for rule in definitions["DeviceSection"]["allOf"]]
    assert sorted(tests) == sorted(installed())


def test_every_reference_of_the_schema_leads_somewhere(capsys: pytest.CaptureFixture[str]) -> None:
    document = json_of(capsys, "host", "schema")
    found = list(references(document))
    assert "#/$defs/HostSection" in found
    for reference in found:
        target: Any = document
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]


def references(node: Any) -> list[str]:
    if isinstance(node, list):
        return [one for child in node for one in references(child)]
    if not isinstance(node, dict):
        return []
    here = [node["$ref"]] if "$ref" in node else []
    return here + [one for child in node.values() for one in references(child)]


def test_a_broken_driver_leaves_the_others_in_the_schema(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected_logs: list[logging.LogRecord]
) -> None:
    info = tmp_path / "broken-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[mdevfs.vendor_drivers]\nbroken = broken_vendor_driver:Broken\n")
    (tmp_path / "broken_vendor_driver.py").write_text("raise RuntimeError('no luck')\n")
    monkeypatch.syspath_prepend(tmp_path)
    definitions = file_schema()["$defs"]
    assert "settings-mtty" in definitions
    assert "settings-broken" not in definitions
    (record,) = expected_logs
    assert "broken_vendor_driver" in record.getMessage()
    assert "no luck" in record.getMessage()
