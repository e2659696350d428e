"""mbochs, the kernel's sample of a display with video memory (samples/vfio-mdev/mbochs.c)."""

from mdevfs.vendor import Mdev, MdevType, VendorDriver, show


def _display(suffix: str, megabytes: int) -> MdevType:
    return MdevType(suffix, description=f"virtual display, {megabytes} MB video memory", weight=megabytes)


class Mbochs(VendorDriver):
    """256 MB of video memory (the module's `mbytes` parameter), shared by all types."""

    api = 1
    name = "mbochs"
    pool = 256
    mdev_driver_since = "5.14"
    types = [_display("small", 4), _display("medium", 16), _display("large", 64)]

    @show("vendor/memory")
    def memory(self, mdev: Mdev) -> str:
        """Of this display."""
        return f"{mdev.type.spec.weight} MB\n"
