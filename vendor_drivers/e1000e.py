"""e1000e, QEMU's 82574L (hw/net/e1000e.c), whose changes show in config space and in the middle of its state."""

from mdevfs.vendor import Bar, Bool, Broken, DeviceModel, PciIdentity, device_program
from vendor_drivers._q35 import QemuNic


class E1000e(QemuNic):
    """QEMU's e1000e, a PCIe network function: the parameters are its compat properties, the settings its release."""

    api = 1
    name = "e1000e"
    identity = PciIdentity(
        *(0x8086, 0x10D3, 0x020000, 0, 0x8086, 0x0000),
        bars=(Bar(128 << 10), Bar(128 << 10), Bar(32, io=True), Bar(16 << 10)),
        irq=16,
        link_speed=1,
        link_width=1,
    )
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
        ],
    )
    # docs/devel/migration/compatibility.rst of QEMU, "How to mitigate when we have a backward compatibility error"
    broken = [
        Broken(
            *("8.0.0", "x-pcie-err-unc-mask", "pci-device.x-pcie-err-unc-mask", "on", "8.0.1"),
            why="on pc-q35-7.2 and older it has the mask of uncorrectable errors, which 7.2 has not and 8.0.1 hides",
            elsewhere=True,
        )
    ]


if __name__ == "__main__":
    device_program(E1000e)
