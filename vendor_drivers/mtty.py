"""mtty, the kernel's sample (samples/vfio-mdev/mtty.c): serial ports that nobody plugs anything into."""

from mdevfs.vendor import DeviceModel, Int, Mdev, MdevType, Str, VendorDriver, show

MAGIC = "0x7e9d09898c3e2c4e"


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
    # The header of its migration data: the kernel refuses any other with EFAULT, in one check for all.
    # What has one value alone need not be said: it is off, and the string is short.
    model = DeviceModel(
        "kernel.org/mtty",
        params=[
            Str("magic", MAGIC, off=MAGIC, allowed=[MAGIC], doc="of the migration data"),
            Int("major", 1, off=1, allowed=[1], doc="version of the migration data, incompatible changes"),
            Int("minor", 0, off=0, allowed=[0], doc="version of the migration data, compatible changes"),
            Int("flags", 0, off=0, allowed=[0], doc="of the migration data, none is known"),
            Int("ports", init=1, allowed=range(1, 3), doc="serial ports of the PCI function"),
        ],
    )

    @show("vendor/sample_mdev_dev")
    def sample_mdev_dev(self, mdev: Mdev) -> str:
        """As the kernel's sample greets."""
        return f"This is MDEV {mdev.uuid}\n"
