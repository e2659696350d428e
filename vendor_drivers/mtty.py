"""mtty, the kernel's sample (samples/vfio-mdev/mtty.c): serial ports that nobody plugs anything into."""

from mdevfs.vendor import DeviceModel, Int, Mdev, MdevType, VendorDriver, show


class Mtty(VendorDriver):
    """24 ports, shared by mdevs of one or two ports."""

    api = 1
    name = "mtty"
    pool = 24
    mdev_driver_since = "5.14"
    types = [
        MdevType("1", name="Single port serial", weight=1, params={"ports": 1}),
        MdevType("2", name="Dual port serial", weight=2, params={"ports": 2}),
    ]
    model = DeviceModel(
        "kernel.org/mtty",
        params=[Int("ports", init=1, allowed=range(1, 3), doc="serial ports of the PCI function")],
    )

    @show("vendor/sample_mdev_dev")
    def sample_mdev_dev(self, mdev: Mdev) -> str:
        """As the kernel's sample greets."""
        return f"This is MDEV {mdev.uuid}\n"
