"""QEMU's own compat properties (QMP query-machines of 11.1) are the machine types' of its network functions."""

from __future__ import annotations

import json
from pathlib import Path

from vendor_drivers._q35 import MACHINE_TYPES
from vendor_drivers.e1000 import E1000
from vendor_drivers.e1000e import E1000e

RECORDED = Path(__file__).parents[1] / "vmstate/compat-props-qemu11.1-q35.json"
WITHOUT_ARI = "x-pcie-ari-nextfn-1"  # hw/pci/pcie.c, pcie_ari_init: igb and nvme have that capability, these have not
WORDS = {"true": "on", "false": "off"}


def test_the_machine_types_set_what_qemu_says_they_set() -> None:
    """All properties of these functions or of any PCI function, and each of them is a migration parameter."""
    held: dict[str, str] = {}
    recorded = json.loads(RECORDED.read_text())
    for one in recorded:
        for device, name, value in one["set_here_and_in_older"]:
            if device in (E1000.name, E1000e.name, "pci-device") and name != WITHOUT_ARI:
                held[f"{device}.{name}"] = WORDS.get(value, value)
        assert MACHINE_TYPES[one["machine"]] == held, one["machine"]
    assert list(MACHINE_TYPES)[: len(recorded)] == [one["machine"] for one in recorded]
    assert held.keys() <= {param.compat for driver in (E1000, E1000e) for param in driver.model.params}
    assert len(held) == 5
