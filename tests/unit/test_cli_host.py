"""`mdevfs host`: the shipped hosts, a host's mistakes, the schema for editors."""

from __future__ import annotations

import json
import logging
import os
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
    assert all(host["description"].endswith(".") for host in hosts.values())
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
    assert set(document["properties"]) == {"host", "device", "fault"}
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


# -- models


MODELS = '{"models": {"vendor-a.com/nic": {"params": {"size": {}}, "versions": {"1": {}}, "tier": "versioned"}}}'


def tree(root: Path, info: str) -> Path:
    """A tree with one parent, whose type nic-a has this migration_info.json and nic-b has none."""
    types = root / "devices/virtual/nic/nic/mdev_supported_types"
    for name in ("nic-a", "nic-b"):
        (types / name).mkdir(parents=True)
    (types / "nic-a/migration_info.json").write_text(info)
    (root / "class/mdev_bus").mkdir(parents=True)
    (root / "class/mdev_bus/nic").symlink_to("../../devices/virtual/nic/nic")
    return root


def test_models_of_a_host_that_is_not_mounted(capsys: pytest.CaptureFixture[str]) -> None:
    found = json_of(capsys, "host", "models", "mtty", "--json")
    assert (found["host"], list(found["parents"]), list(found["parents"]["mtty"])) == (
        "mtty",
        ["mtty"],
        ["mtty-1", "mtty-2"],
    )
    info = found["parents"]["mtty"]["mtty-1"]
    assert info["models"]["kernel.org/mtty"]["params"]["ports"]["init_value"] == "1"


def test_models_for_people_are_one_line_per_type(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["host", "models", "my_nic"]) == 0
    assert capsys.readouterr().out == (
        "my_nic  my_nic-nic  vendor-a.com/my-nic  params rx-filter-size; versions 1, 2, 3\n"
    )


def test_a_host_without_models_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert json_of(capsys, "host", "models", "kernel-samples", "--json")["parents"] == {
        "mbochs": {},
        "mdpy": {},
        "mtty": {},
    }
    assert run(["host", "models", "kernel-samples"]) == 0
    assert capsys.readouterr().out == "no type of this host shows a device model\n"


def test_models_of_a_tree_are_what_its_files_say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tree(tmp_path, MODELS)
    found = json_of(capsys, "host", "models", str(root), "--json")
    assert found == {"host": str(root), "parents": {"nic": {"nic-a": json.loads(MODELS)}}}
    assert run(["host", "models", str(root)]) == 0
    assert capsys.readouterr().out == "nic  nic-a  vendor-a.com/nic  params size; versions 1; versioned\n"


def test_a_shipped_name_is_that_host_whatever_lies_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tree(tmp_path / "mtty", MODELS)
    assert list(json_of(capsys, "host", "models", "mtty", "--json")["parents"]) == ["mtty"]
    assert list(json_of(capsys, "host", "models", "./mtty", "--json")["parents"]) == ["nic"]


@pytest.mark.parametrize("info", ["", "[" * 100_000, "3", '{"models": 3}', '{"models": {}}' + " " * (1 << 20)])
def test_what_is_no_migration_info_is_a_mistake(info: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["host", "models", str(tree(tmp_path, info))]) == 2
    assert "migration_info.json is no JSON object" in capsys.readouterr().err


def test_a_fifo_is_not_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = next(tree(tmp_path, MODELS).rglob("migration_info.json"))
    file.unlink()
    os.mkfifo(file)
    assert run(["host", "models", str(tmp_path)]) == 2
    assert "is no plain file" in capsys.readouterr().err


def test_names_of_a_tree_are_printed_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tree(tmp_path, '{"models": {"a\\u001b[31m": {"params": {"\\n": {}}, "versions": 3, "tier": []}, "b": 1}}')
    assert run(["host", "models", str(root)]) == 0
    assert capsys.readouterr().out == "nic  nic-a  a\\x1b[31m  params \\x0a\nnic  nic-a  b\n"


def test_a_directory_of_no_host_is_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["host", "models", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"mdevfs: {tmp_path} shows no host: it has no class/mdev_bus\n"
