"""e1000, QEMU's 82540EM (hw/net/e1000.c): each change of its state is a subsection, which machine types switch."""

from random import Random
from typing import Any

from mdevfs.vendor import Bool, DeviceModel, Mdev, device_program
from vendor_drivers._e1000_device import Nic
from vendor_drivers._e1000_guest import drive, seen
from vendor_drivers._e1000_state import IDENTITY, STATE, power_on
from vendor_drivers._q35 import QemuNic

OFF = "the state loads in QEMU too, but the guest would lose what it uses: "


class E1000(QemuNic):
    """QEMU's e1000, a PCI network function: the parameters are its compat properties, the settings its release."""

    api = 1
    name = "e1000"
    identity = IDENTITY
    nic = Nic
    # A subsection that does not come leaves its registers as they were after reset (measured: it loads), so state from
    # before it existed is taken. `init-vet` is no state, but the guest sees it: it must be equal.
    model = DeviceModel(
        "qemu.org/pci/8086/100e",
        params=[
            Bool("mitigation", True, False, doc="e1000/mit_state", state_only=True, compat="e1000.mitigation"),
            Bool(
                *("extra_mac_registers", True, False),
                doc="e1000/full_mac_state",
                state_only=True,
                compat="e1000.extra_mac_registers",
            ),
            Bool(
                *("migrate_tso_props", True, False),
                doc="e1000/tx_tso_state",
                state_only=True,
                compat="e1000.migrate_tso_props",
            ),
            Bool("init-vet", True, False, doc="the VLAN ether type is set after reset", compat="e1000.init-vet"),
        ],
    )
    state = STATE
    subsections = {
        "e1000/mit_state": "mitigation",
        "e1000/full_mac_state": "extra_mac_registers",
        "e1000/tx_tso_state": "migrate_tso_props",
    }
    guest_address = "0000:00:03.0"
    cautions = {
        "mitigation": f"{OFF}the delays of its interrupts",
        "extra_mac_registers": f"{OFF}most of the statistics, wake-up and filter registers",
        "migrate_tso_props": "the state loads in QEMU too, and a target that has it off loses one of the two sets of "
        "offload properties when it migrates on",
        "init-vet": "the state loads in QEMU too, for it brings the register along; after a reset the guest would find "
        "another VLAN ether type",
    }

    def reset(self, mdev: Mdev) -> object:
        """As after power-on; the MAC address is QEMU's 52:54:00, and the end of the UUID."""
        state: Any = super().reset(mdev)
        power_on(state, bytes.fromhex("525400" + mdev.uuid[-6:]), mdev.values)
        self.keep_cable(mdev, state)
        return state

    def exercise(self, mdev: Mdev, seed: int) -> None:
        """A guest's driver at work."""
        drive(Nic(mdev.state, mdev.values), Random(seed))

    def fingerprint(self, mdev: Mdev) -> dict[str, object]:
        """What a guest's driver reads, and what goes out of the device when it ends the packet that is under way."""
        return seen(Nic(mdev.state.copy(), mdev.values))


if __name__ == "__main__":
    device_program(E1000)
