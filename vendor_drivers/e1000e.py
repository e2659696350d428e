"""e1000e, QEMU's 82574L (hw/net/e1000e.c), whose changes show in config space and in the middle of its state."""

import re

from mdevfs.vendor import Bool, Broken, DeviceModel, Mdev, Str, VMState, device_program
from vendor_drivers._e1000e_device import E1000eNic
from vendor_drivers._e1000e_guest import drive, seen
from vendor_drivers._e1000e_state import IDENTITY, description, power_on
from vendor_drivers._q35 import QemuNic

ADDRESS = "52:54:00:12:34:56"


class MacAddress(Str):
    """Six bytes in hexadecimal, joined by colons, in lower case."""

    def holds(self, value: object) -> bool:
        return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}", value) is not None

    def parse(self, text: str) -> str:
        if not self.holds(text):
            raise ValueError(f"{text!r} is no MAC address such as {ADDRESS}")
        return text


class E1000e(QemuNic):
    """QEMU's e1000e, a PCIe network function: the parameters are its compat properties, the settings its release."""

    api = 1
    name = "e1000e"
    identity = IDENTITY
    nic = E1000eNic
    # None is `state_only`: migrate-timadj is a field in the middle of the section, the others change PCI config space
    # that source and target compare (measured: "Missing section footer", "Bad config data"), init-vet the guest sees.
    model = DeviceModel(
        "qemu.org/pci/8086/10d3",
        params=[
            Bool("init-vet", True, False, doc="the VLAN ether type is set after reset", compat="e1000e.init-vet"),
            Bool(
                *("migrate-timadj", True, False),
                doc="the time adjustment, an int64 more",
                compat="e1000e.migrate-timadj",
            ),
            Bool(
                *("x-pcie-extcap-init", True, False),
                doc="extended config space is set up as since 2.9",
                compat="pci-device.x-pcie-extcap-init",
            ),
            Bool(
                *("x-pcie-err-unc-mask", True, False),
                doc="the mask of uncorrectable errors is there",
                compat="pci-device.x-pcie-err-unc-mask",
            ),
            Bool(
                *("x-pcie-ext-tag", True, False),
                doc="extended tags are offered",
                compat="pci-device.x-pcie-ext-tag",
            ),
            MacAddress("mac", ADDRESS, ADDRESS, doc="of the guest's NIC; the serial number in config space too"),
        ],
    )
    state = description(with_timadj=True)
    guest_address = "0000:00:03.0"
    cautions = {
        "init-vet": "the state loads in QEMU too, for it brings the register along; after a reset the guest would find "
        "another VLAN ether type",
        "x-pcie-extcap-init": "the state loads in QEMU too: it makes a header read-only where this function has a "
        "capability anyway; QEMU's own rule is that both sides have it alike",
        "x-pcie-err-unc-mask": "state without the mask loads in QEMU where it is there, for a guest could have cleared "
        "it; but this guest has never seen one",
    }
    # docs/devel/migration/compatibility.rst of QEMU, "How to mitigate when we have a backward compatibility error"
    broken = [
        Broken(
            *("8.0.0", "x-pcie-err-unc-mask", "pci-device.x-pcie-err-unc-mask", "on", "8.0.1"),
            why="on pc-q35-7.2 and older it has the mask of uncorrectable errors, which 7.2 has not and 8.0.1 hides",
            elsewhere=True,
        )
    ]

    def device_state(self, settings: QemuNic.Settings) -> VMState:
        """The release's: 8.0 has the time adjustment more, and two fields less that say what others do."""
        return description(with_timadj="migrate-timadj" in self.device_model(settings).parameters)

    def reset(self, mdev: Mdev) -> object:
        """As after power-on."""
        state = super().reset(mdev)
        power_on(state, mdev.values)
        self.keep_cable(mdev, state)
        return state

    def exercise(self, mdev: Mdev, seed: int) -> None:
        """A guest's driver at work."""
        drive(E1000eNic(mdev.state, mdev.values), seed)

    def fingerprint(self, mdev: Mdev) -> dict[str, object]:
        """What a guest's driver reads, now and when every timer has fired, and the packets that then go out."""
        return seen(E1000eNic(mdev.state.copy(), mdev.values))


if __name__ == "__main__":
    device_program(E1000e)
