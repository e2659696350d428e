"""The models of a mounted host, read by paths alone, are those of the host that was built from the same file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mdevfs.host.read import shipped
from tests.mount.conftest import Mount
from tests.mount.server import mdevfs

HOST = """
[host]
name = "several"
machine = "pc-8.1"
drivers = ["./nic.py"]

[[device]]
driver = "nic"

[[device]]
driver = "mtty"

[[device]]
driver = "mdpy"

[[device]]
driver = "i915"
"""

DRIVER = """
from mdevfs.vendor import Bool, DeviceModel, MdevType, Tier, VendorDriver, chain


class Nic(VendorDriver):
    api = 1
    name = "nic"
    types = [MdevType("b"), MdevType("a")]
    model = DeviceModel(
        "vendor-a.com/nic",
        params=[Bool("rss", init=True, off=False, doc="spreads", compat="nic.rss")],
        versions={"1": {}, "2": {"rss": True}},
    )
    machine_types = chain(("pc-8.1", {"nic.rss": "off"}))
    tiers = {"microvm": Tier("unmigratable", "no room")}
"""


def models(host: object) -> Any:
    done = mdevfs("host", "models", str(host), "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found.pop("host") == str(host)
    return found


@pytest.mark.parametrize("host", sorted(shipped()))
def test_a_shipped_host_tells_the_same_both_ways(host: str, mount: Mount) -> None:
    assert models(mount(host).root) == models(host)


def test_a_host_of_several_drivers_tells_the_same_both_ways(mount: Mount, place: Path) -> None:
    (place / "nic.py").write_text(DRIVER)
    (place / "several.toml").write_text(HOST)
    found = models(mount(place / "several.toml").root)
    assert found == models(place / "several.toml")
    assert list(found["parents"]) == ["0000:00:02.0", "mdpy", "mtty", "nic"]
    assert found["parents"]["mdpy"] == {}
    nic = found["parents"]["nic"]
    assert list(nic) == ["nic-a", "nic-b"]
    about = nic["nic-a"]["models"]["vendor-a.com/nic"]
    assert (about["latest"], about["tier"]) == ("2", "versioned")
    assert about["tiers"] == {"pc-8.1": "versioned", "microvm": "unmigratable"}


def test_models_of_an_ended_host_cannot_be_read(mount: Mount) -> None:
    server = mount("mtty")
    server.end()
    done = mdevfs("host", "models", str(server.root))
    assert (done.returncode, done.stdout) == (2, "")
    assert "shows no host" in done.stderr
