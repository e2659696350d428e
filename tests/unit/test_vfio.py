"""Numbers, IOMMU groups and VFIO's devices: who gets which number, and groups that several devices share."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mdevfs.bus.core import Core, Numbers
from mdevfs.bus.device import Device, virtual_device
from mdevfs.bus.iommu import Groups
from mdevfs.bus.kernel import Kernel
from mdevfs.bus.vfio import VfioCore
from tests.support import InProcess, check_tree


@given(st.lists(st.integers(0, 12) | st.none(), max_size=40), st.integers(0, 3))
def test_the_lowest_free_number(steps: list[int | None], first: int) -> None:
    """None takes; a number is given back if it is taken, else reserved."""
    numbers, taken = Numbers(first), set[int]()
    for step in steps:
        if step is None:
            number = numbers.take()
            assert number == min(set(range(first, first + len(taken) + 1)) - taken)
            taken.add(number)
        elif step in taken:
            numbers.give(step)
            taken.remove(step)
        elif step >= first:
            numbers.reserve(step)
            taken.add(step)


class Machine:
    """Devices of a class, and VFIO."""

    def __init__(self, kernel: str = "6.1") -> None:
        self.core = Core(Kernel.parse(kernel))
        self.groups = Groups(self.core)
        self.vfio = VfioCore(self.core, self.groups)
        self.sys = InProcess(self.core.tree)

    def device(self, name: str) -> Device:
        device = virtual_device(self.core, "acme", name)
        device.register()
        return device


def test_described_groups_are_left_out_and_come_back() -> None:
    machine = Machine()
    described = [machine.groups.new(number=number) for number in (1, 700_000_000)]
    devices = [machine.device(f"d{number}") for number in range(4)]
    for group, device in zip(described, devices, strict=False):
        machine.groups.join(group, device)
    for device in devices[2:]:
        machine.groups.join(machine.groups.new(), device)
    assert machine.sys.list("kernel/iommu_groups") == ["0", "1", "2", "700000000"]
    check_tree(machine.core.tree)
    for device in devices:
        machine.groups.leave(device)
    assert machine.sys.list("kernel/iommu_groups") == []
    assert [machine.groups.new().number for _ in range(4)] == [0, 1, 2, 3]


async def test_a_shared_group_has_one_device_until_the_last_one_leaves() -> None:
    machine = Machine()
    one, two = machine.device("one"), machine.device("two")
    group = machine.groups.new(number=5)
    for device in (one, two):
        machine.groups.join(group, device)
        machine.vfio.attach(device)
    sys = machine.sys
    held = await sys.open("devices/virtual/vfio/5/dev")
    held.node.lookups += 1
    assert await held.read(0, 100) == b"246:0\n"
    assert sys.list("class/vfio-dev") == ["vfio0", "vfio1"]
    assert sys.list("kernel/iommu_groups/5/devices") == ["one", "two"]
    check_tree(machine.core.tree)
    machine.vfio.detach(one)
    assert sys.list("class/vfio") == ["5"]
    assert sys.list("class/vfio-dev") == ["vfio1"]
    assert not held.node.dead
    check_tree(machine.core.tree)
    machine.vfio.detach(two)
    assert held.node.dead
    assert not sys.exists("devices/virtual/vfio")
    machine.core.tree.forget(held.node.inode, 1)
    check_tree(machine.core.tree)
    machine.vfio.attach(two)
    assert await sys.read("class/vfio/5/dev") == "246:0\n"
    assert sys.list("class/vfio-dev") == ["vfio0"]
    check_tree(machine.core.tree)


async def test_a_device_without_a_group_is_left_alone() -> None:
    machine = Machine()
    device = machine.device("one")
    machine.vfio.attach(device)
    assert device.vfio is None
    machine.vfio.detach(device)
    check_tree(machine.core.tree)


async def test_before_6_1_there_is_no_vfio_dev() -> None:
    machine = Machine("6.0")
    device = machine.device("one")
    machine.vfio.attach(device, emulated=True)
    assert machine.sys.list("class/vfio") == ["0"]
    assert not machine.sys.exists("class/vfio-dev")
    assert not machine.sys.exists("class/acme/one/vfio-dev")
    check_tree(machine.core.tree)
    machine.vfio.detach(device, emulated=True)
    assert not machine.sys.exists("kernel/iommu_groups/0")
    check_tree(machine.core.tree)
