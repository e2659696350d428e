"""QEMU's e1000e between the releases around 8.0.0, which is broken (QEMU's own example of backward compatibility)."""

from __future__ import annotations

import itertools
import json

import pytest

from mdevfs.errors import InputError
from mdevfs.host.host import load
from tests.support import InProcess, check_tree, host_of
from tests.unit.handshakes import End, answer, end, reasons

MASK = "pci-device.x-pcie-err-unc-mask"
Config = tuple[str, str]  # release, machine type; "": none
Q72, Q80 = "pc-q35-7.2", "pc-q35-8.0"
UNKNOWN, DIFFERS, MISSING, BROKEN = "parameter-unknown", "value-differs", "parameter-missing", "broken-release"
ALIKE = [  # all within one of these migrate to each other, both ways
    # What 7.2 has, on 7.2's machine type or because there is no more in 7.2.
    [("7.2", ""), ("7.2", Q72), ("8.0.1", Q72), ("11.1", Q72)],
    # 8.0's own state.
    [("8.0.0", ""), ("8.0.0", Q80), ("8.0.1", ""), ("8.0.1", Q80), ("11.1", Q80)],
    [("8.0.0", Q72)],  # the broken one: 7.2's machine type with 8.0's mask
    [("11.1", "")],
]
ENDS = [config for alike in ALIKE for config in alike]


def expected(source: Config, target: Config) -> list[str]:
    """By group: what the groups differ in, as each target sees it."""
    theirs, ours = (next(index for index, alike in enumerate(ALIKE) if one in alike) for one in (source, target))
    on = [  # what is on in each group
        set(),
        {"timadj", "mask"},
        {"mask"},
        {"timadj", "mask", "ext-tag"},
    ]
    since = {"timadj": (8,), "mask": (8,), "ext-tag": (9, 2)}
    release = tuple(map(int, target[0].split(".")))
    found = []
    for name in ("timadj", "mask", "ext-tag"):
        if name in on[theirs] and release < since[name]:
            found.append(UNKNOWN)
        elif name in on[theirs] ^ on[ours]:
            always = name == "mask" and target[0] == "8.0.0"  # no property: it is on, whatever the machine type
            found.append(MISSING if always else DIFFERS)
    if "mask" in on[theirs] ^ on[ours] and target[1] == Q72:
        found.append(BROKEN)
    return found


def text(config: Config, compat: str = "") -> str:
    release, machine = config
    chosen = f'machine = "{machine}"\n' if machine else ""
    return f'[host]\n{chosen}{compat}\n[[device]]\ndriver = "e1000e"\nsettings = {{ release = "{release}" }}\n'


async def nic(config: Config, compat: str = "") -> End:
    return await end(text(config, compat), "e1000e-nic")


TABLE: list[tuple[Config, Config, list[str]]] = [
    # Without a machine type a release has all that it knows. Nothing of it may be missing: both directions fail.
    (("7.2", ""), ("8.0.1", ""), [DIFFERS, DIFFERS]),
    (("8.0.1", ""), ("7.2", ""), [UNKNOWN, UNKNOWN]),
    (("7.2", ""), ("11.1", ""), [DIFFERS, DIFFERS, DIFFERS]),
    (("11.1", ""), ("7.2", ""), [UNKNOWN, UNKNOWN, UNKNOWN]),
    (("8.0.1", ""), ("11.1", ""), [DIFFERS]),
    (("11.1", ""), ("8.0.1", ""), [UNKNOWN]),
    (("7.2", ""), ("8.0.0", ""), [DIFFERS, MISSING]),
    # With it both work.
    (("7.2", Q72), ("8.0.1", Q72), []),
    (("8.0.1", Q72), ("7.2", Q72), []),
    (("7.2", Q72), ("11.1", Q72), []),
    (("11.1", Q72), ("7.2", Q72), []),
    (("8.0.1", Q80), ("11.1", Q80), []),
    (("11.1", Q80), ("8.0.1", Q80), []),
    (("8.0.0", Q80), ("8.0.1", Q80), []),
    # The four that QEMU's documentation lists as failing.
    (("7.2", Q72), ("8.0.0", Q72), [MISSING, BROKEN]),
    (("8.0.0", Q72), ("7.2", Q72), [UNKNOWN, BROKEN]),
    (("8.0.0", Q72), ("8.0.1", Q72), [DIFFERS, BROKEN]),
    (("8.0.1", Q72), ("8.0.0", Q72), [MISSING, BROKEN]),
    (("8.0.0", Q72), ("8.0.0", Q72), []),
]


@pytest.mark.parametrize(("source", "target", "codes"), TABLE)
async def test_the_handshake(source: Config, target: Config, codes: list[str]) -> None:
    assert await answer(await nic(target), (await nic(source)).string) == codes


async def test_all_pairs_of_releases_and_machine_types() -> None:
    ends = {config: await nic(config) for config in ENDS}
    for source, target in itertools.product(ENDS, ENDS):
        found = await answer(ends[target], ends[source].string)
        assert sorted(found) == sorted(expected(source, target)), (source, target)


@pytest.mark.parametrize("release", ["8.0.1", "11.1"])
async def test_the_way_out_of_the_broken_release(release: str) -> None:
    """The mask switched on by hand where the property exists; the guest keeps it until it is powered off."""
    broken, helped = await nic(("8.0.0", Q72)), await nic((release, Q72), f'compat = {{ "{MASK}" = "on" }}')
    assert await answer(helped, broken.string) == await answer(broken, helped.string) == []
    fixed = await nic(("11.1", Q72))
    assert await reasons(fixed, broken.string) == await reasons(fixed, helped.string)
    assert await reasons(fixed, broken.string) == [(code, "x-pcie-err-unc-mask") for code in (DIFFERS, BROKEN)]
    verdict = json.loads(await fixed.client.read(f"{fixed.path}/mdevfs/last_verdict"))
    assert (
        verdict["reasons"][-1]["mend"] == f"set the compat property {MASK} = on by hand on the other host, or run 8.0.1"
    )


async def test_the_broken_release_has_no_such_property() -> None:
    with pytest.raises(InputError, match=f"e1000e of QEMU 8.0.0 has no property {MASK}"):
        await host_of(text(("8.0.0", Q72), f'compat = {{ "{MASK}" = "off" }}'))


async def test_a_field_that_is_forgotten_is_refused_before_the_stream_breaks() -> None:
    """Measured: migrate-timadj=on with pc-q35-7.2 gives "Missing section footer" at 7.2 and 11.1."""
    wrong = await nic(("11.1", Q72), 'compat = { "e1000e.migrate-timadj" = "on" }')
    assert await reasons(await nic(("7.2", Q72)), wrong.string) == [(UNKNOWN, "migrate-timadj")]
    assert await reasons(await nic(("11.1", Q72)), wrong.string) == [(DIFFERS, "migrate-timadj")]


async def test_older_releases_show_fewer_parameters() -> None:
    shown = {}
    for release in ("7.2", "8.0.0", "11.1"):
        one = await nic((release, ""))
        shown[release] = set(one.client.list(f"{one.path}/migration"))
        info = json.loads(await one.client.read(f"{one.path}/mdev_type/migration_info.json"))
        (about,) = info["models"].values()
        assert set(about["params"]) == shown[release]
    assert shown["8.0.0"] - shown["7.2"] == {"migrate-timadj", "x-pcie-err-unc-mask"}
    assert shown["11.1"] - shown["8.0.0"] == {"x-pcie-ext-tag"}


@pytest.mark.parametrize(
    ("release", "newest", "oldest", "number"),
    [("7.2", "pc-q35-7.2", "pc-i440fx-1.6", 25), ("8.0.1", "pc-q35-8.0", "pc-i440fx-1.6", 26),
     ("11.1", "pc-q35-11.1", "pc-q35-5.2", 18), ("2.4", "pc-q35-2.4", "pc-i440fx-1.6", 2)],
)  # fmt: skip
async def test_a_release_promises_for_the_machine_types_that_it_has(
    release: str, newest: str, oldest: str, number: int
) -> None:
    one = await nic((release, ""))
    info = json.loads(await one.client.read(f"{one.path}/mdev_type/migration_info.json"))
    (about,) = info["models"].values()
    assert (next(iter(about["tiers"])), next(reversed(about["tiers"])), len(about["tiers"])) == (newest, oldest, number)
    for machine in (newest, oldest):
        await nic((release, machine))
    assert about["tier"] == "versioned"


@pytest.mark.parametrize("name", ["e1000e", "e1000e-broken"])
async def test_a_shipped_host_is_a_pci_function_with_a_type(name: str) -> None:
    host = await load(name)
    client = InProcess(host.tree)
    function = "bus/pci/devices/0000:00:03.0"
    ids = [await client.read(f"{function}/{name}") for name in ("vendor", "device", "class")]
    assert ids == ["0x8086\n", "0x10d3\n", "0x020000\n"]
    assert client.list(f"{function}/mdev_supported_types") == ["e1000e-nic"]
    check_tree(host.tree)
