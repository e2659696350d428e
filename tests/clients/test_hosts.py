"""Every shipped host goes through mdevctl and libvirt once."""

from __future__ import annotations

import json
import uuid
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator

import pytest

from mdevfs.host.read import shipped
from tests.clients.conftest import BeginMachine
from tests.clients.machine import DEVICES, PARENTS, VIRSH, Machine, libvirtd, needs

# What libvirt 9 takes for a parent, by the name of its bus or class (udevGetDeviceType); of others it knows the mdevs.
KNOWN = {"pci", "css", "matrix", "mtty"}


@pytest.fixture(scope="module", params=sorted(shipped()))
def machine(request: pytest.FixtureRequest, begin_machine: BeginMachine) -> Iterator[Machine]:
    machine = begin_machine(request.param)
    yield machine
    machine.close()


def offers(machine: Machine) -> dict[str, dict[str, int]]:
    """What the tree offers: parent, type-id, available_instances."""
    script = f"cd {PARENTS}; grep -H . */mdev_supported_types/*/available_instances"
    found: dict[str, dict[str, int]] = {}
    for line in machine.sh(script).splitlines():
        path, _, count = line.rpartition(":")
        parent, _, kind, _ = path.split("/")
        found.setdefault(parent, {})[kind] = int(count)
    return found


def first_with_room(kinds: dict[str, int]) -> str:
    return next(kind for kind, room in kinds.items() if room)


@needs("mdevctl")
def test_mdevctl(machine: Machine) -> None:
    tree = offers(machine)
    document = json.loads(machine.ok("mdevctl", "types", "--dumpjson"))
    shown = [(parent, kind) for parent, kinds in document[0].items() for one in kinds for kind in one.items()]
    assert {(parent, kind): about["available_instances"] for parent, (kind, about) in shown} == {
        (parent, kind): room for parent, kinds in tree.items() for kind, room in kinds.items()
    }
    for parent in {min(tree), max(tree)}:
        kinds = tree[parent]
        kind = first_with_room(kinds)
        one = machine.ok("mdevctl", "start", "-p", parent, "-t", kind).strip()
        assert machine.ok("mdevctl", "list", "-u", one).strip() == f"{one} {parent} {kind} manual"
        assert offers(machine)[parent][kind] < kinds[kind]
        machine.ok("mdevctl", "define", "-u", one)
        machine.ok("mdevctl", "stop", "-u", one)
        machine.ok("mdevctl", "undefine", "-u", one)
    assert offers(machine) == tree
    assert machine.mdevs() == []


@needs("libvirtd", "virsh", "mdevctl")
def test_libvirt(machine: Machine) -> None:
    libvirtd(machine)
    tree = offers(machine)
    nodes = machine.ok(*VIRSH, "nodedev-list", "--cap", "mdev_types").split()
    dumps = [ElementTree.fromstring(machine.ok(*VIRSH, "nodedev-dumpxml", node)) for node in nodes]
    known = {str(dump.findtext("path")).rpartition("/")[2]: dump for dump in dumps}
    subsystems = machine.sh(f"cd {PARENTS}; for one in *; do readlink $one/subsystem; done").split()
    assert set(known) == {
        parent for parent, link in zip(sorted(tree), subsystems, strict=True) if link.rpartition("/")[2] in KNOWN
    }
    for parent, dump in known.items():
        rooms = {one.get("id"): int(one.findtext("availableInstances", "")) for one in dump.iter("type")}
        assert rooms == tree[parent]
    parent = next(iter(known or tree))
    kind, one = first_with_room(tree[parent]), str(uuid.uuid4())
    mdev = f"mdev_{one}_{parent}".translate(str.maketrans("-:.", "___"))
    if known:
        name = known[parent].findtext("name")
        capability = f"<capability type='mdev'><type id='{kind}'/><uuid>{one}</uuid></capability>"
        xml = f"<device><parent>{name}</parent>{capability}</device>"
        assert f"{mdev} created" in machine.ok(*VIRSH, "nodedev-create", "/dev/stdin", input=xml)
    else:
        machine.sh(f"echo {one} >{PARENTS}/{parent}/mdev_supported_types/{kind}/create")
        machine.until(f"{' '.join(VIRSH)} nodedev-list --cap mdev | grep -q {mdev}")
    assert machine.mdevs() == [one]
    dump = ElementTree.fromstring(machine.ok(*VIRSH, "nodedev-dumpxml", mdev))
    shown = dump.find("capability/type"), dump.find("capability/iommuGroup")
    group = machine.ok("readlink", f"{DEVICES}/{one}/iommu_group").strip().rpartition("/")[2]
    assert [one.attrib for one in shown if one is not None] == [{"id": kind}, {"number": group}]
    machine.ok(*VIRSH, "nodedev-destroy", mdev)
    assert machine.mdevs() == []
    assert offers(machine) == tree
