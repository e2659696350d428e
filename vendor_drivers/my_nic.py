"""my_nic, the tutorial: the NIC of the VFIO migration proposals (November 2020)."""

from mdevfs.vendor import U16, U32, U64, DeviceModel, Int, MdevType, Struct, VendorDriver, VMState, device_program

RING = VMState("my_nic-ring", fields=[U64("base"), U16("head"), U16("tail")])


class MyNic(VendorDriver):
    """The NIC of the VFIO migration proposals: its receive filter's size is a migration parameter."""

    api = 1
    name = "my_nic"
    types = [MdevType("nic", device_api="vfio-pci", instances=8, description="8 queues")]
    model = DeviceModel(
        "vendor-a.com/my-nic",
        params=[Int("rx-filter-size", init=64, off=0, allowed=range(257), doc="entries of the receive address filter")],
        versions={"1": {}, "2": {"rx-filter-size": 32}, "3": {"rx-filter-size": 64}},
    )
    state = VMState(
        "my_nic",
        fields=[
            U32("control", doc="what the guest has switched on"),
            Struct("queues", of=RING, num=8),
            U64("rx_filter", num="rx-filter-size", doc="receive addresses"),
        ],
    )


if __name__ == "__main__":
    device_program(MyNic)
