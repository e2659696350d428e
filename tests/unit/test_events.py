"""uevents: what a write to a `uevent` file asks for (recorded on 6.1), and the stream."""

from __future__ import annotations

import contextlib
import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mdevfs.errors import KernelError
from mdevfs.events.stream import ACTIONS, Event, EventStream, parse_synthetic
from tests.support import InProcess, host_of

UUID = "a3b2c3d4-0003-4abc-8def-0123456789ab"
MANY = {f"K{number}": str(number) for number in range(40)}


@pytest.mark.parametrize(
    ("written", "action", "keys"),
    [
        *((action, action, {"SYNTH_UUID": "0"}) for action in ACTIONS),
        ("add\n", "add", {"SYNTH_UUID": "0"}),
        ("change\n", "change", {"SYNTH_UUID": "0"}),
        ("add\0", "add", {"SYNTH_UUID": "0"}),
        (f"change {UUID}", "change", {"SYNTH_UUID": UUID}),
        (f"change {UUID}\n", "change", {"SYNTH_UUID": UUID}),
        (f"change {UUID.upper()}", "change", {"SYNTH_UUID": UUID.upper()}),
        (f"change {UUID} KEY=VALUE", "change", {"SYNTH_UUID": UUID, "SYNTH_ARG_KEY": "VALUE"}),
        (f"change {UUID} KEY=VALUE\n", "change", {"SYNTH_UUID": UUID, "SYNTH_ARG_KEY": "VALUE"}),
        (f"change {UUID} key=value", "change", {"SYNTH_UUID": UUID, "SYNTH_ARG_key": "value"}),
        (f"change {UUID} 1A=1", "change", {"SYNTH_UUID": UUID, "SYNTH_ARG_1A": "1"}),
        (f"add {UUID} SEQNUM=5", "add", {"SYNTH_UUID": UUID, "SYNTH_ARG_SEQNUM": "5"}),
        (f"add {UUID} ACTION=remove", "add", {"SYNTH_UUID": UUID, "SYNTH_ARG_ACTION": "remove"}),
        (
            f"change {UUID} " + " ".join(f"{key}={value}" for key, value in MANY.items()),
            "change",
            {"SYNTH_UUID": UUID} | {f"SYNTH_ARG_{key}": value for key, value in MANY.items()},
        ),
        (f"change {UUID} KEY={'v' * 1000}", "change", {"SYNTH_UUID": UUID, "SYNTH_ARG_KEY": "v" * 1000}),
    ],
)
def test_passes(written: str, action: str, keys: dict[str, str]) -> None:
    assert parse_synthetic(written.encode()) == (action, keys)
    assert list(parse_synthetic(written.encode())[1]) == list(keys)


@pytest.mark.parametrize(
    "written",
    [
        *("ADD", "Add", " add", "add ", "add\n\n", "ad", "addx", "junk", "junk\n", "\n", "0", "1", ""),
        *(f"change {UUID} {last}" for last in ("KEY=", "=VALUE", "KEY", "KEY=a_b", "KEY=a-b", "KEY_2=1", "K=a=b")),
        f"change  {UUID}",
        f"change {UUID}  KEY=1",
        f"change {UUID} ",
        f"change {UUID[:-1]}",
        f"change {UUID}x",
        f"change {UUID}\n\n",
        f"change {UUID} K=1\0\n",
        "change KEY=VALUE",
        "change 0",
        f"change {UUID} KEY={'v' * 2500}",
        f"change {UUID} KEY={'v' * 4000}",
        f"change {UUID} KEY{'v' * 4000}",
    ],
)
def test_einval(written: str) -> None:
    with pytest.raises(KernelError) as caught:
        parse_synthetic(written.encode())
    assert caught.value.errno == errno.EINVAL


def test_too_much_for_the_buffer() -> None:
    with pytest.raises(KernelError) as caught:
        parse_synthetic(f"change {UUID} KEY={'v' * 1900}".encode())
    assert caught.value.errno == errno.ENOMEM


@given(st.binary(max_size=80) | st.binary(max_size=40).map(lambda tail: f"add {UUID} A=1 ".encode() + tail))
def test_anything_else_is_einval(data: bytes) -> None:
    with contextlib.suppress(KernelError):
        action, keys = parse_synthetic(data)
        written = [action, *([] if keys.pop("SYNTH_UUID") == "0" else [UUID])]
        written += [f"{key.removeprefix('SYNTH_ARG_')}={value}" for key, value in keys.items()]
        assert action in ACTIONS
        assert data.rstrip(b"\n\0").split(b" ")[0].decode() == action
        assert all(piece.encode() in data for piece in written)
        return
    with pytest.raises(KernelError) as caught:
        parse_synthetic(data)
    assert caught.value.errno == errno.EINVAL


def test_a_stream_numbers_and_keeps_the_order() -> None:
    stream = EventStream()
    one: list[Event] = []
    two: list[Event] = []
    stream.send("add", "/devices/a", "x")
    stream.listeners += [one.append, two.append]
    stream.send("change", "/devices/a", "x", {"B": "2", "A": "1"})
    stream.listeners.remove(two.append)
    stream.send("remove", "/devices/a", "x")
    assert [event.seqnum for event in one] == [2, 3]
    assert two == one[:1]
    assert list(one[0].environment().items()) == [
        ("ACTION", "change"),
        ("DEVPATH", "/devices/a"),
        ("SUBSYSTEM", "x"),
        ("B", "2"),
        ("A", "1"),
        ("SEQNUM", "2"),
    ]


def test_a_listener_may_leave_while_it_is_told() -> None:
    stream = EventStream()
    heard: list[str] = []

    def once(event: Event) -> None:
        heard.append(event.action)
        stream.listeners.remove(once)

    stream.listeners += [once, lambda event: heard.append(event.devpath)]
    stream.send("add", "/devices/a", "x")
    assert heard == ["add", "/devices/a"]


@pytest.mark.parametrize(
    ("path", "devpath", "subsystem"),
    [
        ("devices/virtual/mtty/mtty", "/devices/virtual/mtty/mtty", "mtty"),
        ("bus/mdev", "/bus/mdev", "bus"),
        ("bus/mdev/drivers/mtty", "/bus/mdev/drivers/mtty", "drivers"),
    ],
)
async def test_uevent_files(path: str, devpath: str, subsystem: str) -> None:
    host = await host_of()
    sys = InProcess(host.tree)
    heard: list[Event] = []
    host.core.events.listeners.append(heard.append)
    assert await sys.write(f"{path}/uevent", "change") == 6
    assert await sys.write(f"{path}/uevent", "") == 0
    with pytest.raises(OSError) as caught:
        await sys.write(f"{path}/uevent", "junk")
    assert caught.value.errno == errno.EINVAL
    assert [(e.action, e.devpath, e.subsystem, e.keys) for e in heard] == [
        ("change", devpath, subsystem, {"SYNTH_UUID": "0"})
    ]
