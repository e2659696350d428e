"""`mdevfs driver`: the installed vendor drivers and what each declares."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field

from mdevfs.cli.driver import describe, settings_schema
from mdevfs.cli.main import run
from mdevfs.vendor import DeviceModel, Int, MdevType, Page, Settings, VendorDriver
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
    types = [MdevType("a", description="8 queues", params={"size": 32})]
    model = DeviceModel(
        "vendor-a.com/nic",
        params=[Int("size", init=64, off=0, allowed=range(257), doc="entries")],
        versions={"1": {}, "2": {"size": 32}},
    )
    pages = [Page("nic-tired", "tired", "It sleeps.", "at night", "target", "Wait.", "none")]

    class Settings(Settings):
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
    (parameter,) = found["model"]["parameters"]
    assert parameter == {
        "name": "size",
        "type": "int",
        "init": "64",
        "off": "0",
        "allowed": "0 to 256",
        "doc": "entries",
    }
    assert found["model"]["versions"] == {"1": {}, "2": {"size": "32"}}
    assert found["settings"]["properties"]["speed"]["default"] == 10
    assert found["codes"] == {"nic-tired": "tired"}


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
        "    size  int, 0 to 256  init 64  off 0  entries\n"
        "\n"
        "Versions:\n"
        "    1: initial values\n"
        "    2: size=32\n"
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


def test_an_unknown_driver_says_what_is_near(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["driver", "info", "mty"]) == 2
    assert capsys.readouterr().err == 'mdevfs: there is no vendor driver "mty", did you mean "mtty"?\n'


def test_settings_without_a_schema_are_any_table() -> None:
    class Strange(VendorDriver):
        class Settings(BaseModel):
            model_config = ConfigDict(arbitrary_types_allowed=True)
            view: memoryview

    assert settings_schema(Strange) == {"type": "object"}
