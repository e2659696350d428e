"""The state of my_nic, qat, i915 and nvidia: what its size follows, what is sent of it, and that a twin is the same."""

from __future__ import annotations

import pytest

from mdevfs.mdev.mdev import Mdev
from mdevfs.state.refusal import BadState
from tests.unit.devices import device, exercise, fingerprint, load, save

NIC, I915, T4 = (f'[[device]]\ndriver = "{name}"\n' for name in ("my_nic", "i915", "nvidia"))


def qat(*services: str) -> str:
    return (
        f'[[device]]\ndriver = "qat"\nsriov = {{ total = 4, num = 1 }}\nsettings = {{ services = {list(services)} }}\n'
    )


DEVICES = [
    (NIC, "my_nic-nic", "version=2"),
    (NIC, "my_nic-nic", "rx-filter-size=0"),
    (qat("sym"), "qat-vf", ""),
    (I915, "i915-GVTg_V5_8", "aggregator=2"),
    (T4, "nvidia-222", ""),
]


@pytest.mark.parametrize(("host", "type_id", "arguments"), DEVICES)
async def test_a_loaded_device_goes_on_as_its_twin(host: str, type_id: str, arguments: str) -> None:
    source, target = exercise(await device(host, type_id, arguments), 1), await device(host, type_id, arguments)
    load(target, save(source), 1000)
    assert (save(target), fingerprint(target)) == (save(source), fingerprint(source))
    assert fingerprint(exercise(target, 9)) == fingerprint(exercise(source, 9))


async def refused(target: Mdev, source: Mdev) -> str:
    with pytest.raises(BadState) as caught:
        load(target, save(source))
    return caught.value.code


@pytest.mark.parametrize("size", [0, 1, 64, 256])
async def test_my_nics_filter_is_as_long_as_its_parameter_says(size: int) -> None:
    mdev = await device(NIC, "my_nic-nic", f"rx-filter-size={size}")
    assert len(mdev.state.rx_filter) == size
    assert sum(map(len, mdev.device_state.save().body)) == 4 + 8 * 12 + 8 * size
    assert await refused(await device(NIC, "my_nic-nic", "rx-filter-size=63"), exercise(mdev, 1)) in (
        "state-footer-missing",
        "state-cut-short",
    )


async def test_a_changed_parameter_makes_the_filter_anew() -> None:
    mdev = await device(NIC, "my_nic-nic", "rx-filter-size=4")
    assert len(exercise(mdev, 1).state.rx_filter) == 4
    mdev.set_param("rx-filter-size", 9)
    assert mdev.state.rx_filter == [0] * 9


async def test_qat_sends_what_its_services_have_done_and_more_services_load_it() -> None:
    one, other = await device(qat("sym"), "qat-vf"), await device(qat("asym", "sym"), "qat-vf")
    sent = [sub["vmsd_name"] for sub in exercise(one, 1).device_state.save().described["subsections"]]
    assert sent == ["qat-vf/sym"]
    load(other, save(one))
    assert (other.state.sym_requests, other.state.asym_requests) == (one.state.sym_requests, 0)


@pytest.mark.parametrize(
    ("type_id", "arguments", "fences", "low", "high"),
    [("i915-GVTg_V5_8", "", 4, 64, 384), ("i915-GVTg_V5_4", "", 4, 128, 512),
     ("i915-GVTg_V5_8", "aggregator=3", 12, 192, 1152)],
)  # fmt: skip
async def test_what_a_vgpu_holds_follows_its_resources(
    type_id: str, arguments: str, fences: int, low: int, high: int
) -> None:
    mdev = await device(I915, type_id, arguments)
    held = mdev.state
    assert (len(held.fences), len(held.low_gm), len(held.high_gm)) == (fences, low, high)
    other = await device(I915, "i915-GVTg_V5_2")
    assert await refused(other, exercise(mdev, 1)) in ("state-footer-missing", "state-cut-short")
