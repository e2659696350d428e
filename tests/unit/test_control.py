"""What can be asked of a running host, in this process: every verb, every mistake, and who is told when."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from mdevfs.control.running import Running
from mdevfs.control.server import _carry_out
from mdevfs.events import Event
from mdevfs.host.host import Host
from tests.support import InProcess, check_tree, host_of

UUID, UUID2 = "a1b2c3d4-0001-4abc-8def-0123456789ab", "a2b2c3d4-0002-4abc-8def-0123456789ab"
MTTY = "devices/virtual/mtty/mtty"
TYPE = f"{MTTY}/mdev_supported_types/mtty-1"


class Sys(InProcess):
    """A served host: what is settled, and what is told."""

    def __init__(self, host: Host, nursery: trio.Nursery) -> None:
        super().__init__(host.tree)
        self.host = host
        self.running = Running(host, self.settle, nursery)
        self.told: list[str] = []
        host.core.events.listeners.append(self._hear)

    def _hear(self, event: Event) -> None:
        assert not self.tree.stale and not self.tree.touched, f"{event} is told while the old state can be seen"
        self.told.append(f"{event.action}@{event.devpath}")

    async def settle(self) -> None:
        await trio.lowlevel.checkpoint()
        self.tree.stale, self.tree.touched = [], set()

    async def ask(self, op: object, **what: object) -> dict[str, Any]:
        """The answer as it goes over the wire."""
        answer = json.loads(json.dumps(await _carry_out({"op": op, **what}, self.running), allow_nan=False))
        assert isinstance(answer, dict)
        return answer

    async def refused(self, op: object, **what: object) -> tuple[int, list[str]]:
        """Exit code and mistakes of a request that changes nothing."""
        before = {path for path, _ in self.tree.everything()}, self.host.awaited.copy(), list(self.host.plan.devices)
        answer = await self.ask(op, **what)
        after = {path for path, _ in self.tree.everything()}, self.host.awaited, self.host.plan.devices
        assert before == after
        return answer["exit"], answer["error"]

    async def create(self, uuid: str = UUID) -> None:
        async with self.running.changing():  # as the mount's write handler does
            await self.write(f"{TYPE}/create", uuid)


@pytest.fixture
async def sys(nursery: trio.Nursery) -> AsyncIterator[Sys]:
    sys = Sys(await host_of(), nursery)
    yield sys
    check_tree(sys.tree)
    nursery.cancel_scope.cancel()


# -- mistakes


@pytest.mark.parametrize("request_", [None, [], "x", 1, {}, {"op": None}, {"op": ["status"]}])
async def test_what_is_no_request(sys: Sys, request_: object) -> None:
    answer = await _carry_out(request_, sys.running)
    assert answer == {"error": ['a request is one line of JSON, an object with an "op"'], "errno": "EINVAL", "exit": 2}


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        ({"op": "reboto"}, ['op: "reboto" is unknown, did you mean "reboot"?']),
        ({"op": "event"}, ['op: "event" is unknown, did you mean "events"?']),
        ({"op": "events", "devpath": "x"}, ["devpath: unknown key"]),
        ({"op": "remove"}, ["address: is required"]),
        (
            {"op": "remove", "adress": "mtty", "force": "perhaps"},
            [
                "address: is required",
                'force: Input should be a valid boolean, unable to interpret input (is "perhaps")',
                'adress: unknown key, did you mean "address"?',
            ],
        ),
        ({"op": "remove", "address": "mttty"}, ['there is no device "mttty", did you mean "mtty"?']),
        ({"op": "remove", "address": "x\x1b["}, ['there is no device "x\\x1b[" (known: mdpy, mtty)']),
        ({"op": "add", "address": "mtti"}, ['there is no device "mtti"']),
        ({"op": "add"}, ["give either the address of a described device, or a new device"]),
        (
            {"op": "add", "device": {"driver": "mttty"}},
            ['device.driver: vendor driver "mttty" is unknown, did you mean "mtty"?'],
        ),
        ({"op": "add", "device": {"driver": "mtty"}}, ['device.address: "mtty" is taken']),
        ({"op": "unregister", "parent": "mtt"}, ['there is no parent "mtt", did you mean "mtty"?']),
        (
            {"op": "register", "parent": "mtt"},
            ['there is no device that could be a parent "mtt", did you mean "mtty"?'],
        ),
        ({"op": "remove-type", "parent": "mtt", "type": "x"}, ['there is no parent "mtt", did you mean "mtty"?']),
        (
            {"op": "remove-type", "parent": "mtty", "type": "mtty-3"},
            ['there is no type of mtty "mtty-3", did you mean "mtty-2"?'],
        ),
        (
            {"op": "add-type", "parent": "mtty", "type": "mtty-3"},
            ['there is no type of mtty\'s "mtty-3", did you mean "mtty-2"?; a new type is `like` one of them'],
        ),
        (
            {"op": "add-type", "parent": "mtty", "type": "quad", "like": "mtty-2"},
            ['type: "quad" does not begin with mtty-, as the types of its driver do'],
        ),
        (
            {"op": "add-type", "parent": "mtty", "type": "mtty-a/b", "like": "mtty-2"},
            ["type 'a/b': a type's name is not empty and holds no '/' and no white space"],
        ),
        ({"op": "use", "uuid": UUID}, [f'there is no mdev "{UUID}"']),
        ({"op": "clear", "numbers": [3, 4]}, ["there is no fault 3: none is set", "there is no fault 4: none is set"]),
        ({"op": "fault", "path": "*/name"}, ["a fault does something: give slow, errno or text"]),
        ({"op": "fault", "path": "*/name", "errno": "EIOO"}, ['errno: "EIOO" is unknown, did you mean "EIO"?']),
        (
            {"op": "fault", "path": f"{TYPE}/nam", "errno": "EIO"},
            [f'path: {TYPE} has no "nam", did you mean "name"?; for what may come later: */nam'],
        ),
        ({"op": "reboot", "late": -1}, ['late: Input should be greater than or equal to 0 (is "-1")']),
    ],
)
async def test_every_mistake_is_named(sys: Sys, request_: dict[str, object], told: list[str]) -> None:
    op = request_.pop("op")
    assert await sys.refused(op, **request_) == (2, told)


async def test_a_mistake_of_ours_ends_nothing(
    sys: Sys, monkeypatch: pytest.MonkeyPatch, expected_logs: list[object]
) -> None:
    monkeypatch.setattr(sys.host, "reboot", lambda late: 1 / 0)
    answer = await sys.ask("reboot")
    assert (answer["exit"], answer["error"]) == (
        1,
        ["the server's own mistake, see its log: ZeroDivisionError('division by zero')"],
    )
    assert (await sys.ask("status"))["host"] == "samples"


# -- devices


async def test_a_device_goes_and_comes(sys: Sys) -> None:
    await sys.create()
    sys.told.clear()
    assert await sys.ask("remove", address="mtty") == {"did": "mtty is gone"}
    assert sys.told[:5] == [
        f"remove@/{MTTY}/{UUID}/vfio-dev/vfio0",
        "remove@/devices/virtual/vfio/0",
        f"unbind@/{MTTY}/{UUID}",
        f"remove@/{MTTY}/{UUID}",
        f"change@/{MTTY}",
    ]
    assert sys.list("class/mdev_bus") == ["mdpy"]
    assert await sys.refused("remove", address="mtty") == (1, ["mtty is not there"])
    assert await sys.ask("add", address="mtty") == {"did": "mtty is there", "address": "mtty"}
    assert await sys.refused("add", address="mtty") == (1, ["mtty is there already"])
    assert sys.list("class/mdev_bus") == ["mdpy", "mtty"]
    assert sys.list("bus/mdev/devices") == []


async def test_a_new_device(sys: Sys) -> None:
    device = {
        "driver": "nvidia",
        "address": "0000:41:00.0",
        "settings": {"board": "A16"},
        "sriov": {"total": 16, "num": 2},
    }
    assert (await sys.ask("add", device=device))["address"] == "0000:41:00.0"
    assert sys.list("class/mdev_bus") == ["0000:41:00.4", "0000:41:00.5", "mdpy", "mtty"]
    assert await sys.ask("unregister", parent="0000:41:00.5") == {"did": "0000:41:00.5 is unregistered"}
    assert await sys.ask("remove", address="0000:41:00.0") == {"did": "0000:41:00.0 is gone"}
    assert sys.list("class/mdev_bus") == ["mdpy", "mtty"]


@pytest.mark.parametrize(
    ("device", "told"),
    [
        ({"driver": "nvidia", "addres": "0000:41:00.0"}, ['device.addres: unknown key, did you mean "address"?']),
        (
            {"driver": "nvidia", "address": "41:00.0", "settings": {"board": "T5"}},
            [
                'device.address: "41:00.0" is not a PCI address such as 0000:00:02.0, as the bus of driver nvidia has'
                " them",
                'device.settings.board: "T5" is unknown, did you mean "T4"?',
            ],
        ),
        (
            {
                "driver": "mtty",
                "address": "other",
                "mdev": [{"uuid": UUID, "type": "mtty-1"}, {"count": 1, "type": "mtty-9"}],
            },
            ['device.mdev[1].type: other has no type "mtty-9", did you mean "mtty-2"?'],
        ),
    ],
)
async def test_a_new_device_comes_whole_or_not_at_all(sys: Sys, device: dict[str, object], told: list[str]) -> None:
    assert (await sys.refused("add", device=device))[1] == told
    assert sys.host.devices.present.keys() == {"mtty", "mdpy"}


async def test_a_removal_waits_for_a_user_unless_it_is_forced(sys: Sys) -> None:
    for force in (False, True):
        await sys.create()
        assert await sys.ask("use", uuid=UUID.upper()) == {"did": f"{UUID} is in use"}
        assert (await sys.ask("status"))["in_use"] == [UUID]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda force=force: sys.ask("unregister", parent="mtty", force=force))  # type: ignore[misc]
            await wait_all_tasks_blocked()
            assert sys.exists(MTTY + "/mdev_supported_types") != force
            if not force:
                assert await sys.ask("release", uuid=UUID) == {"did": f"{UUID} is not in use"}
        assert sys.told[-1] == f"change@/{MTTY}"
        assert await sys.ask("register", parent="mtty") == {"did": "mtty is registered"}
        assert await sys.refused("register", parent="mtty") == (1, ["mtty is registered"])


async def test_who_stops_waiting_does_not_stop_the_change(sys: Sys) -> None:
    """As the server runs it: the asker's end cancels nothing. Here the removal is overtaken by a reboot."""
    await sys.create()
    await sys.ask("use", uuid=UUID)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: sys.ask("remove", address="mtty"))
        await wait_all_tasks_blocked()
        assert await sys.refused("remove", address="mtty") == (1, ["mtty is on its way out already"])
        await sys.ask("reboot")
    assert sys.list("class/mdev_bus") == ["mdpy", "mtty"]


# -- types


async def test_types_go_and_come(sys: Sys) -> None:
    await sys.create()
    assert await sys.refused("remove-type", parent="mtty", type="mtty-1") == (
        1,
        [f"mtty-1 of mtty has the mdev {UUID}"],
    )
    sys.told.clear()
    assert await sys.ask("remove-type", parent="mtty", type="mtty-1", mdevs=True) == {
        "did": "mtty no longer offers mtty-1"
    }
    assert sys.told[-2:] == [f"remove@/{MTTY}/{UUID}", f"change@/{MTTY}"]
    assert await sys.ask("add-type", parent="mtty", type="mtty-1") == {"did": "mtty offers mtty-1"}
    assert await sys.refused("add-type", parent="mtty", type="mtty-1") == (1, ["mtty has the type mtty-1"])
    await sys.create()


async def test_a_new_type_like_another(sys: Sys) -> None:
    given = {"like": "mtty-2", "name": "Quad", "description": "four"}
    await sys.ask("add-type", parent="mtty", type="mtty-quad", **given)
    kind = f"{MTTY}/mdev_supported_types/mtty-quad"
    assert [await sys.read(f"{kind}/{name}") for name in ("name", "description", "available_instances")] == [
        "Quad\n",
        "four\n",
        "12\n",
    ]


# -- faults


async def test_faults_are_set_listed_and_cleared(sys: Sys) -> None:
    answer = await sys.ask("fault", path="class/mdev_bus/mtty/mdev_supported_types/mtty-1/name", errno="EIO", count=1)
    assert answer["did"] == f"fault 1: read or write of {TYPE}/name: EIO"
    assert answer["matches"] is True
    assert (await sys.ask("fault", path="*/nam", text="x"))["matches"] is False
    await sys.ask("fault", path="*/available_instances", slow="inf")
    with pytest.raises(OSError, match="set on purpose"):
        await sys.read(f"{TYPE}/name")
    assert await sys.read(f"{TYPE}/name") == "Single port serial\n"
    faults = (await sys.ask("faults"))["faults"]
    assert [(one["number"], one["seen"], one["struck"]) for one in faults] == [(1, 1, 1), (2, 0, 0), (3, 0, 0)]
    assert [(one["slow"], one["errno"], one["text"]) for one in faults] == [
        (0, "EIO", None),
        (0, None, "x"),
        ("inf", None, None),
    ]
    assert (await sys.ask("status"))["faults"] == faults
    assert await sys.refused("clear", numbers=[4]) == (2, ["there is no fault 4: there are 1, 2, 3"])
    assert await sys.ask("clear", numbers=[2, 2]) == {"did": "1 cleared", "cleared": [2]}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sys.read, f"{TYPE}/available_instances")
        await wait_all_tasks_blocked()
        assert await sys.ask("clear") == {"did": "2 cleared", "cleared": [1, 3]}
    assert await sys.ask("faults") == {"faults": []}


# -- reboot, late devices


async def test_a_reboot_with_late_devices(sys: Sys, autojump_clock: MockClock) -> None:
    await sys.create()
    await sys.ask("use", uuid=UUID)
    answer = await sys.ask("reboot", late=2.5)
    assert [(one["present"], one["due"]) for one in answer["devices"]] == [(False, 2.5), (False, 2.5)]
    assert "mdev_bus" not in sys.list("class") or sys.list("class/mdev_bus") == []
    sys.told.clear()
    await trio.sleep(2.4)
    assert sys.told == []
    assert await sys.ask("add", address="mdpy") == {"did": "mdpy is there", "address": "mdpy"}
    await trio.sleep(0.2)
    assert sys.list("class/mdev_bus") == ["mdpy", "mtty"]
    assert sys.told.count(f"add@/{MTTY}") == 1
    assert sys.list("bus/mdev/devices") == []


async def test_a_second_reboot_forgets_who_was_due(sys: Sys, autojump_clock: MockClock) -> None:
    await sys.ask("reboot", late=5)
    await sys.ask("reboot", late="inf")
    await trio.sleep(10)
    assert [one["present"] for one in (await sys.ask("status"))["devices"]] == [False, False]
    await sys.ask("reboot")
    assert [one["present"] for one in (await sys.ask("status"))["devices"]] == [True, True]


async def test_a_late_device_that_fails_is_told(
    nursery: trio.Nursery, autojump_clock: MockClock, expected_logs: list[Any]
) -> None:
    text = "[[device]]\ndriver = 'mtty'\nlate = 1\n[[device.mdev]]\nuuid = '{}'\ntype = 'mtty-3'\n"
    sys = Sys(await host_of(text.format(UUID)), nursery)
    sys.running.expect()
    await trio.sleep(1.1)
    assert [record.getMessage() for record in expected_logs] == [
        'late: device[0].mdev[0].type: mtty has no type "mtty-3", did you mean "mtty-2"?'
    ]
    assert sys.list("class/mdev_bus") == ["mtty"]
    nursery.cancel_scope.cancel()


async def test_status_says_what_there_is(sys: Sys) -> None:
    await sys.create()
    await sys.ask("remove", address="mdpy")
    answer = await sys.ask("status")
    assert answer == {
        "host": "samples",
        "devices": [
            {"address": "mtty", "driver": "mtty", "present": True, "due": 0.0},
            {"address": "mdpy", "driver": "mdpy", "present": False, "due": None},
        ],
        "parents": [{"name": "mtty", "driver": "mtty", "mdevs": 1, "types": ["mtty-1", "mtty-2"]}],
        "in_use": [],
        "faults": [],
    }
