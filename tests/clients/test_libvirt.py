"""libvirt's node device driver, unmodified: PCI and mtty parents, and mdevs that it makes or that others make."""

from __future__ import annotations

import uuid
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator

import pytest
from attrs import frozen

from tests.clients.conftest import BeginMachine
from tests.clients.machine import PARENTS, UDEVD, VIRSH, Machine, libvirtd, needs

pytestmark = [needs("libvirtd", "virsh", "mdevctl", "udevadm", UDEVD)]


@frozen
class Place:
    """A machine with libvirtd, one of its parents, and a type that it offers."""

    machine: Machine
    parent: str
    node: str
    kind: str

    def virsh(self, *words: str, input: str = "") -> str:
        """What a command prints that must succeed."""
        return self.machine.ok(*VIRSH, *words, input=input)

    def until(self, words: str) -> None:
        """Returns once a command of virsh's succeeds; a pipe's last part decides."""
        self.machine.until(f"{' '.join(VIRSH)} {words}")

    def xml(self, mdev: str, attribute: str = "") -> str:
        inner = f"<type id='{self.kind}'/><uuid>{mdev}</uuid>{attribute}"
        return f"<device><parent>{self.node}</parent><capability type='mdev'>{inner}</capability></device>"

    def name(self, mdev: str) -> str:
        """What libvirt calls an mdev of the parent."""
        return f"mdev_{mdev}_{self.parent}".translate(str.maketrans("-:.", "___"))

    def nodes(self, *options: str) -> set[str]:
        """The names that nodedev-list gives."""
        return set(self.virsh("nodedev-list", *options).split())

    def dump(self, node: str) -> ElementTree.Element:
        return ElementTree.fromstring(self.virsh("nodedev-dumpxml", node))

    @property
    def types(self) -> str:
        return f"{PARENTS}/{self.parent}/mdev_supported_types"


PLACES = {  # with systemd's udevd, and with the stand-in
    ("nvidia-t4", "--udevd=real"): ("0000:3b:00.0", "pci_0000_3b_00_0", "nvidia-222"),
    ("mtty", "--udevd=mini"): ("mtty", "mtty_mtty", "mtty-1"),
}
on_t4 = pytest.mark.parametrize("begun", [("nvidia-t4", "--udevd=real")], ids=["nvidia-t4"], indirect=True)


@pytest.fixture(scope="module", params=list(PLACES), ids=[host for host, _ in PLACES])
def begun(request: pytest.FixtureRequest, begin_machine: BeginMachine) -> Place:
    machine = begin_machine(*request.param)
    libvirtd(machine)
    return Place(machine, *PLACES[request.param])


@pytest.fixture
def place(begun: Place) -> Iterator[Place]:
    """The machine as after the start."""
    yield begun
    begun.machine.reset()
    begun.until("nodedev-list --cap mdev --all | (! grep mdev)")


@pytest.fixture
def events(place: Place) -> Iterator[None]:
    """What libvirt announces goes to the logs `lifecycle` and `update`, from now on."""
    machine = place.machine
    for event in ("lifecycle", "update"):
        machine.start(event, "stdbuf", "-oL", *VIRSH, "nodedev-event", "--event", event, "--loop")
    # virsh does not say when it listens: something must happen until it tells of it.
    machine.until(
        f"echo change >{PARENTS}/{place.parent}/uevent; sleep 0.05; grep -q {place.node} {machine.files}/update.log"
    )
    for _ in range(10):
        marker = machine.create(place.parent, place.kind)
        place.until(f"nodedev-list --cap mdev | grep -q {place.name(marker)}")
        told = machine.soon(f"grep -q {place.name(marker)} {machine.files}/lifecycle.log")
        machine.remove(marker)
        place.until(f"nodedev-list --cap mdev | (! grep {place.name(marker)})")
        if told:
            break
    machine.heard("lifecycle", f"{place.name(marker)}: Deleted")
    yield
    for event in ("lifecycle", "update"):
        machine.stop(event)


def test_parents_and_their_types(place: Place) -> None:
    assert place.node in place.nodes("--cap", "mdev_types")
    device = place.dump(place.node)
    assert device.findtext("path") == place.machine.ok("readlink", "-f", f"{PARENTS}/{place.parent}").strip()
    found = {one.get("id", ""): one for one in device.iter("type")}
    assert sorted(found) == sorted(place.machine.ok("ls", place.types).split())
    for name, one in found.items():
        shown = [place.machine.read(f"{place.types}/{name}/{file}").strip() for file in ("name", "device_api")]
        assert [one.findtext("name"), one.findtext("deviceAPI")] == shown
        room = place.machine.read(f"{place.types}/{name}/available_instances").strip()
        assert one.findtext("availableInstances") == room
    assert place.node in place.virsh("nodedev-list", "--tree")


@on_t4
def test_a_pci_parent_is_described_as_the_function_it_is(place: Place) -> None:
    device = place.dump(place.node)
    function = device.find("capability[@type='pci']")
    assert function is not None
    assert [function.findtext(name) for name in ("domain", "bus", "slot", "function")] == ["0", "59", "0", "0"]
    ids = [
        (function.find(name), f"{PARENTS}/{place.parent}/{file}")
        for name, file in (("vendor", "vendor"), ("product", "device"))
    ]
    assert [one.get("id") for one, _ in ids if one is not None] == [place.machine.read(path).strip() for _, path in ids]
    group, numa = function.find("iommuGroup"), function.find("numa")
    assert group is not None and numa is not None
    link = place.machine.ok("readlink", f"{PARENTS}/{place.parent}/iommu_group").strip()
    assert (group.get("number"), numa.get("node")) == (link.rpartition("/")[2], "0")
    assert device.findtext("driver/name") == "nvidia"


@pytest.mark.usefixtures("events")
def test_create_and_destroy(place: Place) -> None:
    one = str(uuid.uuid4())
    assert f"{place.name(one)} created" in place.virsh("nodedev-create", "/dev/stdin", input=place.xml(one))
    assert place.machine.mdevs() == [one]
    assert place.nodes("--cap", "mdev") == {place.name(one)}
    device = place.dump(place.name(one))
    capability = device.find("capability[@type='mdev']")
    assert capability is not None
    assert device.findtext("parent") == place.node
    assert capability.findtext("uuid") == one
    kind, group = capability.find("type"), capability.find("iommuGroup")
    assert kind is not None and group is not None
    link = place.machine.ok("readlink", f"/sys/bus/mdev/devices/{one}/iommu_group").strip()
    assert (kind.get("id"), group.get("number")) == (place.kind, link.rpartition("/")[2])
    assert "Destroyed" in place.virsh("nodedev-destroy", place.name(one))
    assert place.machine.mdevs() == []
    place.machine.heard("lifecycle", f"{place.name(one)}: Created")
    place.machine.heard("lifecycle", f"{place.name(one)}: Deleted")


def test_define_start_autostart_and_undefine(place: Place) -> None:
    one = str(uuid.uuid4())
    name = place.name(one)
    assert "defined" in place.virsh("nodedev-define", "/dev/stdin", input=place.xml(one))
    assert place.nodes("--cap", "mdev") == set()
    assert place.nodes("--cap", "mdev", "--inactive") == {name}
    assert "started" in place.virsh("nodedev-start", name)
    assert place.machine.mdevs() == [one]
    assert "marked as autostarted" in place.virsh("nodedev-autostart", name)
    place.until(f"nodedev-info {name} | grep -q 'Active: *yes'")  # udevd tells it
    info = dict(line.split(":") for line in place.virsh("nodedev-info", name).splitlines() if line)
    assert [info[key].strip() for key in ("Persistent", "Autostart")] == ["yes", "yes"]
    assert place.machine.ok("mdevctl", "list", "-d").strip() == f"{one} {place.parent} {place.kind} auto (active)"
    place.virsh("nodedev-destroy", name)
    assert place.machine.mdevs() == []
    assert "Undefined" in place.virsh("nodedev-undefine", name)
    place.until("nodedev-list --cap mdev --all | (! grep mdev)")


def test_what_others_define_is_found(place: Place) -> None:
    one = str(uuid.uuid4())
    place.machine.ok("mdevctl", "define", "-u", one, "-p", place.parent, "-t", place.kind)
    place.until(f"nodedev-list --cap mdev --inactive | grep -q {place.name(one)}")


@pytest.mark.usefixtures("events")
def test_what_others_make_is_announced(place: Place) -> None:
    one = place.machine.ok("mdevctl", "start", "-p", place.parent, "-t", place.kind).strip()
    place.machine.heard("lifecycle", f"{place.name(one)}: Created")
    place.machine.remove(one)
    place.machine.heard("lifecycle", f"{place.name(one)}: Deleted")


@on_t4
@pytest.mark.usefixtures("events")
def test_types_that_go_and_come_back_with_the_driver(place: Place) -> None:
    driver = place.machine.ok("readlink", "-f", f"{PARENTS}/{place.parent}/driver").strip()
    place.machine.sh(f"echo {place.parent} >{driver}/unbind")
    place.machine.heard("update", f"{place.node}$")
    place.until(f"nodedev-list --cap mdev_types | grep -qv {place.node}")
    assert place.node not in place.nodes("--cap", "mdev_types")
    place.machine.sh(f"echo {place.parent} >{driver}/bind")
    place.until(f"nodedev-dumpxml {place.node} | grep -q mdev_types")


def test_what_cannot_be_made(place: Place) -> None:
    one = str(uuid.uuid4())
    bad = place.xml(one).replace(place.kind, "no-such-type")
    done = place.machine.run(*VIRSH, "nodedev-create", "/dev/stdin", input=bad)
    assert done.code == 1
    assert "no-such-type" in done.out
    assert place.machine.mdevs() == []
    place.machine.create(place.parent, place.kind)
    taken = place.machine.mdevs()[0]
    done = place.machine.run(*VIRSH, "nodedev-create", "/dev/stdin", input=place.xml(taken))
    assert done.code == 1
    assert "already exists" in done.out or "in use" in done.out, done.out
    assert place.machine.mdevs() == [taken]


@on_t4
def test_attributes_are_set_when_it_starts(place: Place) -> None:
    one = str(uuid.uuid4())
    attribute = "<attr name='nvidia/vgpu_params' value='frame_rate_limiter=0 '/>"
    place.virsh("nodedev-define", "/dev/stdin", input=place.xml(one, attribute))
    place.virsh("nodedev-start", place.name(one))
    assert place.machine.read(f"/sys/bus/mdev/devices/{one}/nvidia/vgpu_params") == "frame_rate_limiter=0\n"
