"""`mdevfs driver`: the installed vendor drivers and what each declares."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field

import vendor_drivers.mtty
from mdevfs.cli.driver import describe, settings_schema
from mdevfs.cli.main import run
from mdevfs.vendor import Bool, Broken, DeviceModel, Int, MdevType, Page, Tier, VendorDriver, chain
from mdevfs.vendor import Settings as AnySettings
from mdevfs.vendor.loader import Found, installed


def json_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    assert run(arguments) == 0
    return json.loads(capsys.readouterr().out)


class Nic(VendorDriver):
    """A NIC.

    Not in the first line.
    """

    api = 1
    name = "nic"
    types = [MdevType("a", description="8 queues", params={"size": 32}, arguments={"units": {"2": {"size": 64}}})]
    model = DeviceModel(
        "vendor-a.com/nic",
        params=[
            Int("size", init=64, off=0, allowed=range(257), doc="entries"),
            Bool("rss", init=True, off=False, doc="spreads", state_only=True, fixed=True, compat="nic.rss"),
        ],
        versions={"1": {}, "2": {"size": 32}},
        arguments={"speed": {"slow": {"rss": False}, "any": {}}},
    )
    machine_types = chain(("pc-8.1", {"nic.rss": "off"}), ("pc-8.0", {"other.old": "on"}), ("pc-7.2", {}))
    tiers = {"microvm": Tier("unmigratable", "its queues are in the firmware")}
    broken = [Broken("8.2.0", "rss", "nic.rss", "off", "8.2.1", "its list of 8.1 forgot nic.rss")]
    pages = [Page("nic-tired", "tired", "It sleeps.", "at night", "target", "Wait.", "none")]

    class Settings(AnySettings):
        queues: int = Field(ge=1, le=8, description="of one NIC")
        speed: int = 10


def test_list_names_every_installed_driver(capsys: pytest.CaptureFixture[str]) -> None:
    drivers = {one["name"]: one for one in json_of(capsys, "driver", "list", "--json")["drivers"]}
    assert set(drivers) == set(installed())
    assert drivers["mtty"]["bus"] == "virtual"
    assert drivers["i915"]["bus"] == "pci"
    assert drivers["mtty"]["origin"] == "vendor_drivers.mtty:Mtty (mdevfs)"
    assert drivers["mtty"]["description"] == "24 ports, shared by mdevs of one or two ports."


def test_list_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["driver", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(installed())


def test_a_description_holds_all_that_a_driver_declares() -> None:
    found = describe(Found(Nic, "here"))
    assert (found["name"], found["origin"], found["description"]) == ("nic", "here", "A NIC.")
    (kind,) = found["types"]
    assert (kind["type"], kind["description"], kind["parameters"]) == ("nic-a", "8 queues", {"size": 32})
    assert kind["arguments"] == {"units": {"2": {"size": 64}}}
    size, rss = found["model"]["parameters"]
    assert size == {
        "name": "size",
        "type": "int",
        "init": "64",
        "off": "0",
        "allowed": "0 to 256",
        "doc": "entries",
        "state_only": False,
        "fixed": False,
        "compat": None,
    }
    assert (rss["state_only"], rss["fixed"], rss["compat"]) == (True, True, "nic.rss")
    assert found["model"]["versions"] == {"1": {}, "2": {"size": "32"}}
    assert found["model"]["arguments"] == {"speed": {"slow": {"rss": "off"}, "any": {}}}
    assert found["settings"]["properties"]["speed"]["default"] == 10
    assert found["codes"] == {"nic-tired": "tired"}


def test_a_description_holds_what_is_promised_for_each_machine_type() -> None:
    found = describe(Found(Nic, "here"))
    assert found["machine_types"] == [
        {"name": "pc-8.1", "promise": "versioned", "blocker": "", "compat": {"nic.rss": "off"}},
        {"name": "pc-8.0", "promise": "versioned", "blocker": "", "compat": {"nic.rss": "off", "other.old": "on"}},
        {"name": "pc-7.2", "promise": "versioned", "blocker": "", "compat": {"nic.rss": "off", "other.old": "on"}},
        {"name": "microvm", "promise": "unmigratable", "blocker": "its queues are in the firmware", "compat": {}},
    ]
    assert found["tier"] == "versioned"
    assert found["broken"] == [
        {
            "release": "8.2.0",
            "parameter": "rss",
            "compat": "nic.rss",
            "value": "off",
            "fixed": "8.2.1",
            "why": "its list of 8.1 forgot nic.rss",
            "elsewhere": False,
        }
    ]


def test_a_driver_that_promises_nothing_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    found = json_of(capsys, "driver", "info", "mdpy", "--json")
    assert (found["machine_types"], found["tier"], found["broken"]) == ([], None, [])


def test_info_for_people(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mdevfs.vendor.loader.load_installed", lambda name: Found(Nic, "here"))
    assert run(["driver", "info", "nic"]) == 0
    assert capsys.readouterr().out == (
        "nic: A NIC.\n"
        "bus virtual, from here\n"
        "\n"
        "Types:\n"
        "    nic-a  vfio-pci  8 queues\n"
        "\n"
        "Settings in host.toml:\n"
        "    queues  integer, 1 to 8  required    of one NIC\n"
        "    speed   integer          default 10\n"
        "\n"
        "Device model vendor-a.com/nic, its migration parameters:\n"
        "    size  int, 0 to 256   init 64  off 0    entries\n"
        "    rss   bool, any bool  init on  off off  spreads (state only, fixed at creation, compat property nic.rss)\n"
        "\n"
        "Versions:\n"
        "    1: all off\n"
        "    2: size=32\n"
        "\n"
        "Argument speed:\n"
        "    slow: rss=off\n"
        "    any: nothing\n"
        "\n"
        "Machine types, what is promised, and the compat properties that they set of its parameters:\n"
        "    pc-8.1 to pc-7.2  versioned     nic.rss=off\n"
        "    microvm           unmigratable  blocked: its queues are in the firmware\n"
        "    of all, the strictest: versioned\n"
        "      versioned     forward migration is promised, and backward where compat properties cover every change\n"
        "      unmigratable  it does not migrate\n"
        "\n"
        "Broken releases:\n"
        "    8.2.0: its list of 8.1 forgot nic.rss (rss)\n"
        "      way out: set nic.rss = off by hand ([host] compat), or run 8.2.1\n"
        "\n"
        "Codes of its own (mdevfs explain CODE):\n"
        "    nic-tired  tired\n"
    )


@pytest.mark.parametrize("name", sorted(installed()))
def test_every_installed_driver_can_be_described(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert json_of(capsys, "driver", "info", name, "--json")["name"] == name
    assert run(["driver", "info", name]) == 0
    assert capsys.readouterr().out.startswith(f"{name}: ")


def test_types_that_follow_from_settings_are_not_guessed(capsys: pytest.CaptureFixture[str]) -> None:
    found = json_of(capsys, "driver", "info", "i915", "--json")
    assert found["types"] is None
    assert found["codes"]["i915-hardware"] == "another GPU"
    assert run(["driver", "info", "i915"]) == 0
    shown = capsys.readouterr().out
    assert "depend on the settings" in shown
    assert "one of 64, 128, 256, 512, 1024, 2048" in shown


def test_info_names_the_attributes(capsys: pytest.CaptureFixture[str]) -> None:
    described = json_of(capsys, "driver", "info", "vfio_ap", "--json")["attributes"]
    found = {(one["of"], one["path"]): (one["access"], one["since"]) for one in described}
    assert found["mdev", "matrix"] == ("ro", "0.0")
    assert found["mdev", "assign_domain"] == ("wo", "0.0")
    assert found["mdev", "ap_config"] == ("rw", "6.10")
    assert run(["driver", "info", "e1000"]) == 0
    (line,) = [one.split("  ") for one in capsys.readouterr().out.splitlines() if one.startswith("    qemu/link ")]
    assert [one for one in line if one][:3] == ["qemu/link", "of an mdev", "rw"]
    assert "QEMU's `set_link`" in line[-1]


def test_an_unknown_driver_says_what_is_near(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["driver", "info", "mty"]) == 2
    assert capsys.readouterr().err == 'mdevfs: there is no vendor driver "mty", did you mean "mtty"?\n'


def test_settings_without_a_schema_are_any_table() -> None:
    class Strange(VendorDriver):
        class Settings(BaseModel):
            model_config = ConfigDict(arbitrary_types_allowed=True)
            view: memoryview

    assert settings_schema(Strange) == {"type": "object"}


def test_test_tries_every_pair_and_tells(capsys: pytest.CaptureFixture[str]) -> None:
    report = json_of(capsys, "driver", "test", "my_nic", "--json")
    count = len(report["configurations"])
    assert report["holds"]
    assert len(report["pairs"]) == count**2 == sum(report["counts"]["all"].values())
    assert run(["driver", "test", "my_nic"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{count} distinct configurations")
    assert any(line.endswith("my_nic nic rx-filter-size=32") for line in lines)


STALE = """
from tests.unit.liars import {base}


class Nic({base}):
    api = 1
    name = "nic"
"""


def test_test_against_an_older_release(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for base in ("Honest", "StaleVersion"):
        (tmp_path / f"{base}.py").write_text(STALE.format(base=base))
    new, old = str(tmp_path / "StaleVersion.py"), str(tmp_path / "Honest.py")
    assert run(["driver", "test", new]) == 0
    capsys.readouterr()
    assert run(["driver", "test", new, "--against", old]) == 1
    said = capsys.readouterr().out
    assert "false yes: nic@Honest nic -> nic nic" in said
    assert "the section's footer is missing" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nvidai"], 'there is no vendor driver "nvidai", did you mean "nvidia"?'),
        (["./none.py"], "driver file none.py does not exist"),
        (["my_nic", "--against", vendor_drivers.mtty.__file__], "holds no release of my_nic"),
    ],
)
def test_test_refuses_what_it_cannot_test(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["driver", "test", *arguments]) == 2
    assert said in capsys.readouterr().err
