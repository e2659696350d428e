"""A vendor driver whose state has a field of every kind."""

from __future__ import annotations

from mdevfs.mdev.mdev import Mdev
from mdevfs.vendor import Bool, DeviceModel, MdevType, VendorDriver
from tests.unit import demo_stream


class DemoNic(VendorDriver):
    """The device of `demo_stream`."""

    api, name, types = 1, "demo", [MdevType("nic")]
    guest_address = "0000:00:03.0"
    model = DeviceModel("example.com/demo", params=[Bool("rss", True, False), Bool("vlan", False, False)])
    state = demo_stream.DEMO

    def exercise(self, mdev: Mdev, seed: int) -> None:
        """As the streams of the tests are."""
        vars(mdev.state).update(vars(demo_stream.view(seed).state))
