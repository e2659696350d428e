"""A host driven at random, by good and bad input, against a small model of what must hold."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from attrs import define, field, frozen
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mdevfs.errors import MdevfsError
from mdevfs.events import Event
from mdevfs.host.host import Host
from mdevfs.sysfs.files import POLL_NEWS, File
from mdevfs.sysfs.node import Node
from tests.support import InProcess, check_tree, host_of

UUIDS = [f"facade00-0000-4000-8000-{number:012x}" for number in range(6)]
POOL, COUNT = 24, 4
T = TypeVar("T")


def at_once(call: Coroutine[None, None, T]) -> T:
    """The result of a call that waits for nothing: no driver here is declared blocking."""
    try:
        call.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise AssertionError(f"{call} waits")


@frozen
class Kind:
    """A type as the kernel's samples have it."""

    parent: str
    name: str
    weight: int = 0

    @property
    def path(self) -> str:
        return f"devices/virtual/{self.parent}/{self.parent}/mdev_supported_types/{self.name}"


MTTY1, MTTY2 = Kind("mtty", "mtty-1", 1), Kind("mtty", "mtty-2", 2)
KINDS = [MTTY1, MTTY2, *(Kind("mdpy", f"mdpy-{name}") for name in ("vga", "xga", "hd"))]


@define
class Made:
    """An mdev that should be there."""

    kind: Kind
    number: int | None  # of its group and its vfioN; None once it is unbound


@define(eq=False)
class Held:
    """An open file, and how many look-ups hold its node and those above it."""

    file: File
    path: str
    mdev: str | None
    nodes: list[Node]
    gone: bool = False


@define
class Expected:
    """What the model says."""

    mdevs: dict[str, Made] = field(factory=dict)

    def available(self, kind: Kind) -> int:
        if kind.parent == "mdpy":
            return COUNT - sum(made.kind.parent == "mdpy" for made in self.mdevs.values())
        used = sum(made.kind.weight for made in self.mdevs.values() if made.number is not None)
        return (POOL - used) // kind.weight

    def lowest(self) -> int:
        taken = {made.number for made in self.mdevs.values()}
        return min(set(range(len(taken) + 1)) - taken)

    def create(self, kind: Kind, uuid: str) -> int:
        """0 or the errno."""
        if uuid in self.mdevs:
            return errno.EEXIST
        if self.available(kind) < 1:
            return errno.EUSERS if kind.parent == "mdpy" else errno.ENOSPC
        self.mdevs[uuid] = Made(kind, self.lowest())
        return 0


CREATED = [("add", "mdev"), ("add", "vfio"), ("add", "vfio-dev"), ("bind", "mdev")]
UNBOUND = [("remove", "vfio-dev"), ("remove", "vfio"), ("unbind", "mdev")]
EVENTS = {0: CREATED, errno.ENOSPC: [("add", "mdev"), ("remove", "mdev")]}


class Machine(RuleBasedStateMachine):
    """The kernel's samples on one host."""

    host: Host
    sys: InProcess

    @initialize(crowd=st.sampled_from([0, 0, 0, 22]))
    def start(self, crowd: int) -> None:
        """Some hosts begin nearly full."""
        self.host = at_once(host_of())
        self.sys = InProcess(self.host.tree)
        self.model = Expected()
        self.held: list[Held] = []
        self.remembered: dict[str, int] = {}
        self.heard: list[Event] = []
        self.host.core.events.listeners.append(self.heard.append)
        for number in range(crowd):
            uuid = f"c0ffee00-0000-4000-8000-{number:012x}"
            assert (self.model.create(MTTY1, uuid), self.write(f"{MTTY1.path}/create", uuid)) == (0, 36)
        self.told()
        self.check()

    # -- helpers

    def run(self, call: Callable[[], Coroutine[None, None, T]]) -> T | int:
        """What a call gives, or minus its errno."""
        try:
            return at_once(call())
        except OSError as error:
            return -(error.errno or 0)
        except MdevfsError as error:
            return -error.errno

    def write(self, path: str, data: str) -> int:
        answer = self.run(lambda: self.sys.write(path, data))
        assert isinstance(answer, int)
        return answer

    def told(self) -> list[tuple[str, str]]:
        events, self.heard[:] = [(event.action, event.subsystem) for event in self.heard], []
        return events

    def one(self, data: st.DataObject) -> tuple[str, Made]:
        """Any mdev that is there."""
        return data.draw(st.sampled_from(sorted(self.model.mdevs.items(), key=lambda item: item[0])))

    def went(self, uuid: str) -> None:
        """An mdev is gone: so is what was known of it."""
        for held in self.held:
            held.gone = held.gone or held.mdev == uuid
        self.remembered = {path: mode for path, mode in self.remembered.items() if uuid not in path}

    def lost(self, uuid: str) -> None:
        """An mdev is unbound: its driver's and VFIO's entries are gone."""
        for held in self.held:
            held.gone = held.gone or (held.mdev == uuid and "/vendor/" in held.path)

    # -- create and remove

    @rule(kind=st.sampled_from(KINDS), uuid=st.sampled_from(UUIDS), tail=st.sampled_from(["", "\n", "x"]))
    def create(self, kind: Kind, uuid: str, tail: str) -> None:
        code = self.model.create(kind, uuid)
        assert self.write(f"{kind.path}/create", uuid.upper() + tail) == (-code if code else 36 + len(tail))
        assert self.told() == EVENTS.get(code, [])
        self.check()

    @rule(kind=st.sampled_from(KINDS), junk=st.sampled_from(["", "\n", UUIDS[0][:-1], UUIDS[0] + "\n\n", "x" * 5000]))
    def create_junk(self, kind: Kind, junk: str) -> None:
        assert self.write(f"{kind.path}/create", junk) == (-errno.EINVAL if junk else 0)
        assert self.told() == []

    @rule(data=st.data(), written=st.sampled_from(["1", "1\n", "0x1", "2"]), by_bus=st.booleans())
    @precondition(lambda self: self.model.mdevs)
    def remove(self, data: st.DataObject, written: str, by_bus: bool) -> None:
        uuid, made = self.one(data)
        del self.model.mdevs[uuid]
        path = "bus/mdev/devices" if by_bus else f"class/mdev_bus/{made.kind.parent}"
        assert self.write(f"{path}/{uuid}/remove", written) == len(written)
        assert self.told() == (UNBOUND if made.number is not None else []) + [("remove", "mdev")]
        self.went(uuid)
        self.check()

    @rule(uuid=st.sampled_from(UUIDS), written=st.sampled_from(["0", "", "x", "-1", "1\n\n"]))
    def remove_junk(self, uuid: str, written: str) -> None:
        code = errno.ENOENT if uuid not in self.model.mdevs else 0 if written in ("0", "") else errno.EINVAL
        assert self.write(f"bus/mdev/devices/{uuid}/remove", written) == (-code if code else len(written))
        assert self.told() == []

    # -- bind and unbind

    @rule(data=st.data(), name=st.sampled_from([None, None, "mtty", "mdpy"]))
    @precondition(lambda self: self.model.mdevs)
    def unbind(self, data: st.DataObject, name: str | None) -> None:
        uuid, made = self.one(data)
        name = name or made.kind.parent
        bound = made.kind.parent == name and made.number is not None
        assert self.write(f"bus/mdev/drivers/{name}/unbind", uuid) == (36 if bound else -errno.ENODEV)
        assert self.told() == (UNBOUND if bound else [])
        if bound:
            made.number = None
            self.lost(uuid)
            self.check()

    @rule(uuid=st.sampled_from(UUIDS), name=st.sampled_from(["mtty", "mdpy"]))
    def bind(self, uuid: str, name: str) -> None:
        assert self.write(f"bus/mdev/drivers/{name}/bind", uuid) == -errno.ENODEV
        assert self.write("bus/mdev/drivers_probe", uuid) == (36 if uuid in self.model.mdevs else -errno.ENODEV)
        assert self.told() == []

    # -- look-ups, open files, memory

    @rule(data=st.data(), name=st.sampled_from(["uevent", "vendor/sample_mdev_dev", "power/control", "remove"]))
    @precondition(lambda self: self.model.mdevs)
    def hold(self, data: st.DataObject, name: str) -> None:
        """Opens a file of an mdev and keeps it, as the kernel would: every name on the way is looked up."""
        uuid, made = self.one(data)
        if name.startswith("vendor") and (made.kind.parent != "mtty" or made.number is None):
            name = "uevent"
        path = f"devices/virtual/{made.kind.parent}/{made.kind.parent}/{uuid}/{name}"
        nodes = self.look_up(path)
        flags = os.O_WRONLY if name == "remove" else os.O_RDONLY
        file = self.run(lambda: self.host.tree.open(nodes[-1], flags))
        assert isinstance(file, File)
        self.held.append(Held(file, path, uuid, nodes))

    @rule(kind=st.sampled_from(KINDS), list_it=st.booleans())
    def hold_a_type(self, kind: Kind, list_it: bool) -> None:
        nodes = self.look_up(f"{kind.path}/available_instances")
        file = self.run(lambda: self.host.tree.open(nodes[-1], os.O_RDONLY))
        assert isinstance(file, File)
        self.held.append(Held(file, f"{kind.path}/available_instances", None, nodes))
        if list_it:
            self.list_links(f"{kind.path}/devices")

    def look_up(self, path: str) -> list[Node]:
        tree, node, nodes = self.host.tree, self.host.tree.root, []
        for name in path.split("/"):
            node = tree.child(node, name)
            node.lookups += 1
            nodes.append(node)
        return nodes

    def list_links(self, path: str) -> None:
        """What a readdir of links leaves: each is noted, and forgotten again."""
        tree = self.host.tree
        nodes = self.look_up(path)
        known = set(nodes[-1].children or ())
        noted = [tree.note(nodes[-1], name, salt, 1) for _, name, _, salt in tree.list(nodes[-1]) if name not in known]
        check_tree(tree)
        for inode in noted:
            tree.forget(inode, 1)
        self.forget(nodes)

    def forget(self, nodes: list[Node]) -> None:
        for node in reversed(nodes):
            self.host.tree.forget(node.inode, 1)

    @rule(data=st.data(), offset=st.sampled_from([0, 0, 3]))
    @precondition(lambda self: self.held)
    def read(self, data: st.DataObject, offset: int) -> None:
        held = data.draw(st.sampled_from(self.held))
        if held.path.endswith("/remove"):
            code = errno.ENODEV if held.gone else 0
            assert self.run(lambda: held.file.write(0, b"0")) == (-code if code else 1)
            return
        answer = self.run(lambda: held.file.read(offset, 4096))
        assert held.file.node.dead == held.gone
        if held.gone:
            assert answer == -errno.ENODEV
            assert held.file.poll() == POLL_NEWS
        else:
            assert answer == self.text(held.path)[offset:].encode()

    def text(self, path: str) -> str:
        name, above = path.rsplit("/", 1)[1], path.split("/")[-2]
        if name == "available_instances":
            return f"{self.model.available(next(kind for kind in KINDS if kind.name == above))}\n"
        if name == "control":
            return "auto\n"
        uuid = path.split("/")[4]
        if name == "sample_mdev_dev":
            return f"This is MDEV {uuid}\n"
        made = self.model.mdevs[uuid]
        return f"DRIVER={made.kind.parent}\n" if made.number is not None else ""

    @rule(data=st.data())
    @precondition(lambda self: self.held)
    def let_go(self, data: st.DataObject) -> None:
        held = data.draw(st.sampled_from(self.held))
        self.held.remove(held)
        self.forget(held.nodes)
        self.check()

    @rule(data=st.data(), name=st.sampled_from(["uevent", "remove", "power"]), mode=st.sampled_from([0o600, 0o640]))
    @precondition(lambda self: self.model.mdevs)
    def chmod(self, data: st.DataObject, name: str, mode: int) -> None:
        """Kept while the name lives, though nobody holds it."""
        uuid, made = self.one(data)
        path = f"devices/virtual/{made.kind.parent}/{made.kind.parent}/{uuid}/{name}"
        node = self.host.tree.walk(path)
        memory = self.host.tree.remember(node)
        memory.mode = node.mode & ~0o777 | mode
        self.remembered[path] = mode
        self.check()

    # -- what must hold

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "model"):
            return
        sys, model = self.sys, self.model
        for kind in KINDS:
            assert at_once(sys.read(f"{kind.path}/available_instances")) == f"{model.available(kind)}\n"
            assert sys.list(f"{kind.path}/devices") == sorted(u for u, made in model.mdevs.items() if made.kind == kind)
        assert sys.list("bus/mdev/devices") == sorted(model.mdevs)
        numbers = sorted(str(made.number) for made in model.mdevs.values() if made.number is not None)
        assert sys.list("kernel/iommu_groups") == sys.list("class/vfio") == numbers
        assert sys.list("class/vfio-dev") == sorted(f"vfio{number}" for number in numbers)
        for path, mode in self.remembered.items():
            assert self.host.tree.walk(path).permissions & 0o777 == mode, path

    def check(self) -> None:
        check_tree(self.host.tree)
        self.host.tree.stale.clear()
        self.host.tree.touched.clear()

    def teardown(self) -> None:
        if not hasattr(self, "model"):
            return
        for held in self.held:
            self.forget(held.nodes)
        for uuid in list(self.model.mdevs):
            assert self.write(f"bus/mdev/devices/{uuid}/remove", "1") == 1
        self.host.tree.trim()
        assert list(self.host.tree.nodes) == [self.host.tree.root.inode]
        check_tree(self.host.tree)


TestMachine: Any = Machine.TestCase
TestMachine.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
