"""mtty, the kernel's sample (samples/vfio-mdev/mtty.c): serial ports that nobody plugs anything into."""

from random import Random

from mdevfs.vendor import DeviceModel, Int, Mdev, MdevType, Str, VendorDriver, show
from vendor_drivers._mtty_state import FLAGS, MAGIC, MAJOR, MINOR, PAGES, STATE, drive, seen


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
            Str("magic", hex(MAGIC), off=hex(MAGIC), allowed=[hex(MAGIC)], doc="of the migration data"),
            Int("major", MAJOR, MAJOR, [MAJOR], doc="version of the migration data, incompatible changes"),
            Int("minor", MINOR, MINOR, [MINOR], doc="version of the migration data, compatible changes"),
            Int("flags", FLAGS, FLAGS, [FLAGS], doc="of the migration data, none is known"),
            Int("ports", init=1, allowed=range(1, 3), doc="serial ports of the PCI function"),
        ],
    )
    state = STATE
    pages = PAGES

    @show("vendor/sample_mdev_dev")
    def sample_mdev_dev(self, mdev: Mdev) -> str:
        """As the kernel's sample greets."""
        return f"This is MDEV {mdev.uuid}\n"

    def exercise(self, mdev: Mdev, seed: int) -> None:
        """A guest uses each port."""
        random = Random(seed)
        for port in mdev.state.ports:
            drive(port, random)

    def fingerprint(self, mdev: Mdev) -> dict[str, object]:
        """Each port's registers as the guest reads them."""
        ports = mdev.state.copy().ports
        return {f"port {at} {name}": value for at, port in enumerate(ports) for name, value in seen(port).items()}
