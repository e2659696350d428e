"""mdpy, the kernel's sample display (samples/vfio-mdev/mdpy.c): the mdev core counts its mdevs."""

from mdevfs.vendor import Mdev, MdevType, VendorDriver, show


def _display(suffix: str, resolution: str) -> MdevType:
    return MdevType(suffix, description=f"virtual display, {resolution} framebuffer", data=resolution)


class Mdpy(VendorDriver):
    """Four displays, whatever their type (the module's `count` parameter)."""

    api = 1
    name = "mdpy"
    max_instances = 4
    mdev_driver_since = "5.14"
    types = [_display("vga", "640x480"), _display("xga", "1024x768"), _display("hd", "1920x1080")]

    @show("vendor/resolution")
    def resolution(self, mdev: Mdev) -> str:
        """Width and height in pixels."""
        return f"{mdev.type.spec.data}\n"
