"""e1000, QEMU's 82540EM (hw/net/e1000.c): each change of its state is a subsection, which machine types switch."""

from mdevfs.vendor import Bar, Bool, DeviceModel, PciIdentity, device_program
from vendor_drivers._q35 import QemuNic


class E1000(QemuNic):
    """QEMU's e1000, a PCI network function: the parameters are its compat properties, the settings its release."""

    api = 1
    name = "e1000"
    identity = PciIdentity(
        *(0x8086, 0x100E, 0x020000, 3, 0x1AF4, 0x1100),
        bars=(Bar(128 << 10), Bar(64, io=True)),
        irq=11,
        pcie=False,
        reset_methods=("bus",),
    )
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


if __name__ == "__main__":
    device_program(E1000)
