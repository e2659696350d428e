"""QEMU's e1000: subsections that machine types switch, so state from before them is taken, and the reverse is not."""

from __future__ import annotations

import pytest

from mdevfs.errors import InputError
from mdevfs.host.host import load
from tests.support import InProcess, check_tree, host_of
from tests.unit.handshakes import End, answer, end

MODEL = "qemu.org/pci/8086/100e"
SUBSECTIONS = ["extra_mac_registers=on", "migrate_tso_props=on", "mitigation=on"]
Config = tuple[str, str]  # release, machine type; "": none
UNKNOWN, DIFFERS = ["parameter-unknown"], ["value-differs"]

TABLE: list[tuple[Config, Config, list[str]]] = [
    # Without a machine type each release has all that it knows: forward only.
    (("1.6", ""), ("2.4", ""), []),
    (("2.4", ""), ("1.6", ""), UNKNOWN),
    (("1.6", ""), ("2.12", ""), []),
    (("2.12", ""), ("1.6", ""), [*UNKNOWN, *UNKNOWN, *UNKNOWN]),
    (("2.11", ""), ("6.0", ""), []),
    (("6.0", ""), ("2.11", ""), UNKNOWN),
    (("2.12", ""), ("6.0.1", ""), []),
    (("6.0.1", ""), ("2.12", ""), []),
    (("8.0.0", ""), ("11.1", ""), []),
    (("11.1", ""), ("8.0.0", ""), []),
    # init-vet is nothing of the state's representation: the guest sees it, so it must be equal.
    (("6.0", ""), ("7.2", ""), DIFFERS),
    (("7.2", ""), ("6.0", ""), UNKNOWN),
    # With the machine type on both sides: both ways.
    (("2.4", "pc-q35-2.4"), ("8.0.1", "pc-q35-2.4"), []),
    (("8.0.1", "pc-q35-2.4"), ("2.4", "pc-q35-2.4"), []),
    (("2.11", "pc-q35-2.11"), ("7.2", "pc-q35-2.11"), []),
    (("7.2", "pc-q35-2.11"), ("2.11", "pc-q35-2.11"), []),
    (("6.0", "pc-q35-6.0"), ("11.1", "pc-q35-6.0"), []),
    (("11.1", "pc-q35-6.0"), ("6.0", "pc-q35-6.0"), []),
    (("1.6", "pc-i440fx-1.6"), ("7.2", "pc-i440fx-1.6"), []),
    (("7.2", "pc-i440fx-1.6"), ("1.6", "pc-i440fx-1.6"), []),
    # With it on one side alone.
    (("7.2", "pc-q35-2.11"), ("7.2", ""), DIFFERS),
    (("7.2", ""), ("7.2", "pc-q35-2.11"), [*DIFFERS, *DIFFERS]),
]


def text(config: Config, compat: str = "") -> str:
    release, machine = config
    chosen = f'machine = "{machine}"\n' if machine else ""
    return f'[host]\n{chosen}{compat}\n[[device]]\ndriver = "e1000"\nsettings = {{ release = "{release}" }}\n'


async def nic(config: Config) -> End:
    return await end(text(config), "e1000-nic")


@pytest.mark.parametrize(("source", "target", "codes"), TABLE)
async def test_the_handshake(source: Config, target: Config, codes: list[str]) -> None:
    assert await answer(await nic(target), (await nic(source)).string) == codes


@pytest.mark.parametrize(
    ("config", "items"),
    [
        (("1.6", ""), []),
        (("2.4", ""), ["mitigation=on"]),
        (("7.2", "pc-q35-2.4"), ["mitigation=on"]),
        (("7.2", "pc-q35-2.11"), ["extra_mac_registers=on", "mitigation=on"]),
        (("7.2", "pc-q35-2.12"), SUBSECTIONS),
        (("7.2", "pc-q35-7.2"), [SUBSECTIONS[0], "init-vet=on", *SUBSECTIONS[1:]]),
        (("7.2", "pc-i440fx-1.6"), []),
    ],
)
async def test_the_string_names_the_subsections_that_are_sent(config: Config, items: list[str]) -> None:
    assert (await nic(config)).string == ",".join([MODEL, *items])


async def test_a_property_by_hand_wins() -> None:
    compat = 'compat = { "e1000.migrate_tso_props" = "on", "e1000.init-vet" = "on" }'
    one = await end(text(("7.2", "pc-q35-2.11"), compat), "e1000-nic")
    assert one.string == (await nic(("7.2", ""))).string


@pytest.mark.parametrize(
    ("config", "compat", "mistakes"),
    [
        (("7.2", "pc-q35-8.0"), "", ["QEMU 7.2 has no machine type pc-q35-8.0"]),
        (("11.1", "pc-q35-2.4"), "", ["QEMU 11.1 has no machine type pc-q35-2.4"]),
        (("2.4", ""), 'compat = { "e1000.init-vet" = "off" }', ["e1000 of QEMU 2.4 has no property e1000.init-vet"]),
        (
            ("2.4", "pc-q35-2.5"),
            'compat = { "e1000.init-vet" = "off" }',
            ["QEMU 2.4 has no machine type pc-q35-2.5", "e1000 of QEMU 2.4 has no property e1000.init-vet"],
        ),
        (("1.5", ""), "", ["QEMU's releases from 1.6 to 11.1 are known here"]),
        (("11.2", ""), "", ["QEMU's releases from 1.6 to 11.1 are known here"]),
        (("new", ""), "", ["String should match pattern"]),
    ],
)
async def test_what_a_release_does_not_have_is_a_mistake(config: Config, compat: str, mistakes: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        await host_of(text(config, compat))
    assert len(caught.value.mistakes) == len(mistakes)
    assert all(part in line for part, line in zip(mistakes, caught.value.mistakes, strict=True))


async def test_the_shipped_host_is_a_pci_function_with_a_type() -> None:
    host = await load("e1000")
    client = InProcess(host.tree)
    function = "bus/pci/devices/0000:00:03.0"
    ids = [await client.read(f"{function}/{name}") for name in ("vendor", "device", "class")]
    assert ids == ["0x8086\n", "0x100e\n", "0x020000\n"]
    assert client.list(f"{function}/mdev_supported_types") == ["e1000-nic"]
    check_tree(host.tree)


async def test_where_no_release_is_said_it_is_one_that_has_the_machine_type() -> None:
    """QEMU 11.1, the newest, has no pc-q35-2.4 any more."""
    strings = {}
    for machine, release in (("pc-q35-2.4", None), ("pc-q35-2.4", "7.2"), ("pc-q35-7.2", None), ("pc-q35-7.2", "7.2")):
        settings = f'settings = {{ release = "{release}" }}' if release else ""
        text = f'host.machine = "{machine}"\n[[device]]\ndriver = "e1000"\naddress = "0000:00:03.0"\n{settings}\n'
        strings[machine, release] = (await end(text, "e1000-nic")).string
    for machine in ("pc-q35-2.4", "pc-q35-7.2"):
        assert strings[machine, None] == strings[machine, "7.2"]
