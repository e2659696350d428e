"""Every recorded action announces what the kernel announced: the same messages, keys and values, in the same order."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest
from attrs import define, field
from pydantic import BaseModel, TypeAdapter

from mdevfs.events import Event
from mdevfs.host.host import Host, load, prepare_host
from tests.golden.recorder import RECORDINGS
from tests.support import InProcess, check_tree

HOST = "kernel-samples"
PARENT = "devices/virtual/mtty/mtty"
TYPES = f"{PARENT}/mdev_supported_types"
U1, U2 = (f"a{number}b2c3d4-000{number}-4abc-8def-0123456789ab" for number in (1, 2))
DRIVER = "bus/mdev/drivers/mtty"
_CUT_OFF = re.compile(r"b'(.*)' \.\.\. \((\d+) bytes\)\Z")


class Message(BaseModel):
    """As it comes over netlink; SEQNUM is masked."""

    header: str
    env: list[str]

    @classmethod
    def of(cls, event: Event) -> Message:
        environment = event.environment() | {"SEQNUM": "*"}
        return cls(header=f"{event.action}@{event.devpath}", env=[f"{k}={v}" for k, v in environment.items()])


class Action(BaseModel):
    """One recorded action: its result, a value or an errno's name, and the messages it caused."""

    action: str
    data: str = ""
    ok: int | str | None = None
    errno: str | None = None
    messages: list[Message]
    nondeterministic: bool = False

    @property
    def written(self) -> bytes:
        """What was written; the recorder cut long texts, whose last character repeats."""
        if match := _CUT_OFF.match(self.data):
            return match[1].ljust(int(match[2]), match[1][-1]).encode()
        return self.data.encode().decode("unicode_escape").encode("latin-1")


def recorded() -> list[Action]:
    document = json.loads((RECORDINGS / "uevents.json").read_text())
    return TypeAdapter(list[Action]).validate_python(document["uevents"])


@define
class Replay:
    """A host that hears itself, and the recorded actions as things to do to it."""

    host: Host
    sys: InProcess
    heard: list[Event] = field(factory=list)

    async def write(self, path: str, data: str | bytes) -> int:
        return await self.sys.write(path, data)

    async def create(self, type_id: str, uuid: str) -> int:
        return await self.write(f"{TYPES}/{type_id}/create", uuid)

    async def remove(self, uuid: str, data: str = "1") -> int:
        return await self.write(f"{PARENT}/{uuid}/remove", data)

    async def read_instances(self) -> str:
        return (await self.sys.read(f"{TYPES}/mtty-1/available_instances")).strip()

    async def create_without_room(self) -> int:
        for number in range(24):
            await self.create("mtty-1", f"facade00-0000-4000-8000-{number:012x}")
        self.heard.clear()
        return await self.create("mtty-1", U1)

    async def unload(self) -> str:
        """With one device there, as the recording has it."""
        for name in self.sys.list("bus/mdev/devices"):
            await self.remove(name)
        await self.create("mtty-1", U1)
        self.heard.clear()
        await self.host.devices.remove("mtty")
        check_tree(self.host.tree)
        return "unloaded"

    def run(self, action: Action) -> Awaitable[int | str]:
        """Does it; the awaited value is what the kernel's counterpart returned."""
        actions: dict[str, Callable[[], Awaitable[int | str]]] = {
            "create U1 on t1": lambda: self.create("mtty-1", U1),
            "create U2 on t2": lambda: self.create("mtty-2", U2),
            "failed create (duplicate)": lambda: self.create("mtty-1", U1),
            "failed create (garbage)": lambda: self.create("mtty-1", "garbage"),
            "device uevent": lambda: self.write(f"{PARENT}/{U1}/uevent", action.written),
            "parent uevent": lambda: self.write(f"{PARENT}/uevent", action.written),
            "bus uevent": lambda: self.write("bus/mdev/uevent", action.written),
            "driver uevent": lambda: self.write(f"{DRIVER}/uevent", action.written),
            "read of available_instances": self.read_instances,
            "remove with 0": lambda: self.remove(U2, "0"),
            "remove U2": lambda: self.remove(U2),
            "unbind U1": lambda: self.write(f"{DRIVER}/unbind", U1),
            "uevent change, unbound device": lambda: self.write(f"{PARENT}/{U1}/uevent", action.written),
            "bind U1": lambda: self.write(f"{DRIVER}/bind", U1),
            "remove U1, unbound": lambda: self.remove(U1),
            "create without room, after 24 devices": self.create_without_room,
            "unload the module with 1 device": self.unload,
        }
        return actions[action.action]()


LOAD = "load the module"


async def test_every_action() -> None:
    host = await load(HOST)
    replay = Replay(host, InProcess(host.tree))
    host.core.events.listeners.append(replay.heard.append)
    for action in recorded():
        if action.nondeterministic or action.action == LOAD:
            continue
        replay.heard.clear()
        ok, error = None, None
        try:
            ok = await replay.run(action)
        except OSError as caught:
            error = errno.errorcode[caught.errno or 0]
        assert (ok, error) == (action.ok, action.errno), f"{action.action} {action.data}"
        assert [Message.of(event) for event in replay.heard] == action.messages, f"{action.action} {action.data}"
        assert all(second.seqnum == first.seqnum + 1 for first, second in pairwise(replay.heard))


async def test_load_the_module() -> None:
    """A host's start is, for each of its samples, what loading its module is."""
    host = prepare_host(HOST)
    heard: list[Event] = []
    host.core.events.listeners.append(heard.append)
    await host.start()
    (action,) = (one for one in recorded() if one.action == LOAD)
    assert [Message.of(event) for event in heard if "mtty" in event.devpath] == action.messages


@pytest.mark.parametrize(
    ("shown", "written"),
    [("add\\n", b"add\n"), ("add\\x00", b"add\0"), ("b'change KEY=vvv' ... (20 bytes)", b"change KEY=vvvvvvvvv")],
)
def test_what_was_written(shown: str, written: bytes) -> None:
    assert Action(action="device uevent", data=shown, messages=[]).written == written
