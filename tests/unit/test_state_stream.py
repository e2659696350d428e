"""Streams: what is written is read back, whatever pieces it comes in, and what is wrong with it is named."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping
from typing import Any

import pytest

from mdevfs.errors import InputError
from mdevfs.state import body, stream
from mdevfs.state.description import Struct, VMState
from mdevfs.state.fields import U8, U16, U32, Bitmap, Bytes, Flag, SizedBytes, Timer, Unused
from mdevfs.state.pull import Feed, Pull
from mdevfs.state.refusal import BadState
from mdevfs.state.view import View

QUEUE = VMState("demo-queue", fields=[U16("head"), U16("tail")])
DEMO = VMState(
    "demo",
    3,
    2,
    fields=[
        U32("ctrl", reset=5),
        U32("regs[ICR]", path="regs", at=3),
        U32("regs", num=4),
        Unused(length=2),
        Flag("on"),
        Timer("timer"),
        Bytes("ring", 70),
        U8("length"),
        SizedBytes("packet", "length", 64),
        Bitmap("filter", 70),
        Struct("queue", of=QUEUE, num=2),
        Struct("admin", of=QUEUE),
        U16("later", since=3),
        U16("odd", when=lambda view: bool(view.state.ctrl & 1)),
    ],
    subsections=[VMState("demo/rss", fields=[U32("rss")], needed="rss")],
)


def driven(**values: object) -> View:
    one = View(DEMO.fresh(), {"rss": False, **values}, 3)
    state = one.state
    state.ctrl, state.regs, state.on, state.timer, state.length = 7, [1, 2, 3, 2**32 - 1], True, -1, 3
    state.ring[:] = bytes(range(70))
    state.packet, state.filter, state.later, state.odd, state.rss = bytearray(b"abc"), 1 << 69, 0x1234, 9, 77
    state.queue[1].tail = state.admin.head = 5
    return one


def written(one: View, machine: str = "pc") -> bytes:
    chunks, described = body.save(DEMO, one)
    return b"".join(stream.write(machine, [stream.Section("0000:00:03.0/demo", one.version, chunks, described)]))


def load(data: bytes, values: Mapping[str, object] | None = None, step: int = 1 << 20, **more: Any) -> Any:
    place = stream.Place(
        "0000:00:03.0/demo",
        DEMO,
        lambda version: View(DEMO.fresh(), values or {}, version),
        **more,
    )
    loader = stream.Loader([place], "pc")
    for at in range(0, len(data), step):
        loader.feed(data[at : at + step])
    loader.finish()
    assert place.loaded is not None
    return place.loaded.state


@pytest.mark.parametrize("step", [1, 2, 7, 4096])
@pytest.mark.parametrize("rss", [True, False])
def test_what_is_saved_loads_in_pieces_of_any_size(step: int, rss: bool) -> None:
    source = driven(rss=rss)
    if not rss:
        source.state.rss = 0  # it is not sent
    assert load(written(source), step=step) == source.state


def test_the_json_describes_every_byte() -> None:
    chunks, described = body.save(DEMO, driven(rss=True))

    def size(about: body.Described) -> int:
        own = sum(one["size"] * one.get("array_len", 1) for one in about["fields"])
        return own + sum(6 + len(sub["vmsd_name"]) + size(sub) for sub in about.get("subsections", []))

    assert size(described) == sum(map(len, chunks))
    text = written(driven())
    document = json.loads(text[text.find(b"{", text.rfind(b"\0")) :])
    assert [one["name"] for one in document["devices"]] == ["0000:00:03.0/demo"]


def test_an_older_version_leaves_newer_fields_as_after_reset() -> None:
    source = driven()
    old = View(source.state, source.values, 2)
    loaded = load(written(old))
    source.state.later = source.state.rss = 0
    assert loaded == source.state


def test_a_subsection_that_is_off_at_the_target_loads_as_in_qemu() -> None:
    assert load(written(driven(rss=True)), {"rss": False}).rss == 77


@pytest.mark.parametrize(
    ("change", "code", "number", "place"),
    [
        (lambda data: b"XEVM" + data[4:], "state-not-a-stream", errno.EINVAL, "offset 0"),
        (lambda data: data[:7] + b"\2" + data[8:], "state-file-version", errno.ENOTSUP, "offset 4"),
        (lambda data: data[:8] + data[15:], "state-configuration-missing", errno.EINVAL, "offset 8"),
        (lambda data: data.replace(b"\2pc", b"\2pd"), "state-machine-differs", errno.EINVAL, "source pd"),
        (
            lambda data: data.replace(b"demo\0\0\0\0\0\0\0\3", b"demo\0\0\0\0\0\0\0\4", 1),
            "state-version-too-new",
            22,
            "version 4",
        ),
        (
            lambda data: data.replace(b"demo\0\0\0\0\0\0\0\3", b"demo\0\0\0\0\0\0\0\1", 1),
            "state-version-too-old",
            22,
            "version 1",
        ),
        (lambda data: data.replace(b":03.0/demo", b":04.0/demo", 1), "state-device-unknown", 22, ":04.0/demo"),
        (
            lambda data: data.replace(b"\x08demo/rss", b"\x08demo/rsy", 1),
            "state-subsection-unknown",
            errno.ENOENT,
            "demo/rsy",
        ),
        (lambda data: data[:60] + data[61:], "field-out-of-bounds", 22, "demo/packet"),
        (lambda data: data[:90], "state-cut-short", errno.EIO, ":03.0/demo/demo/ring at offset 90"),
        (lambda data: data[:35], "state-cut-short", errno.EIO, "offset 35"),
        (lambda data: data + b"x", "state-too-long", errno.ENOMEM, "end"),
    ],
)
def test_what_is_wrong_is_named(change: object, code: str, number: int, place: str) -> None:
    data = change(written(driven(rss=True)))  # type: ignore[operator]
    with pytest.raises(BadState) as caught:
        load(data)
    assert (caught.value.code, caught.value.errno) == (code, number)
    assert place in str(caught.value)


def test_a_blocked_version_is_refused() -> None:
    with pytest.raises(BadState, match="blocked: 2, 3"):
        load(written(driven()), blocked={3, 2})


def test_impossible_descriptions_say_all_their_mistakes() -> None:
    with pytest.raises(InputError) as caught:
        VMState("x", 1, 2, fields=[U8("", since=4), Bytes("b", 0)], subsections=[VMState("y")])
    assert len(caught.value.mistakes) == 6


FILTER = VMState("filter-entry", fields=[U16("vlan"), U8("hits", num="depth")])
SIZED = VMState(
    "sized",
    fields=[U32("table", num="entries"), Struct("filter", of=FILTER, num=lambda view: view.values["entries"] // 2)],
)


@pytest.mark.parametrize("entries", [0, 1, 2, 5])
def test_a_migration_parameter_says_how_long_an_array_is(entries: int) -> None:
    values = {"entries": entries, "depth": 3}
    source, target = (View(SIZED.fresh(values), values, 1) for _ in range(2))
    assert (len(source.state.table), len(source.state.filter)) == (entries, entries // 2)
    source.state.table = list(range(entries))
    for at, one in enumerate(source.state.filter):
        one.vlan, one.hits = at, [at, 1, 2]
    chunks, described = body.save(SIZED, source)
    data = b"".join(chunks)
    assert len(data) == 4 * entries + 5 * (entries // 2)
    names = [one["name"] for one in described["fields"]]
    assert names == ["table"] * (entries > 0) + ["filter"] * (entries // 2)
    feed = Feed(pull := Pull(), body.load(SIZED, target, pull))
    feed.feed(data + b"\x7e")
    assert (feed.end(), pull.waiting, target.state) == (None, 1, source.state)


def test_a_list_given_as_reset_value_is_each_devices_own() -> None:
    description = VMState("list", fields=[U8("mac", num=2, reset=[1, 2])])
    one, other = description.fresh(), description.fresh()
    one.mac[0] = 9  # type: ignore[attr-defined]
    assert other.mac == [1, 2]  # type: ignore[attr-defined]


def test_structs_of_bare_state_have_its_byte_order_and_no_subsections() -> None:
    bare = VMState("bare", fields=[U16("head"), Struct("queue", of=QUEUE)], bare="<")
    view = View(bare.fresh(), {}, 1)
    view.state.head, view.state.queue.tail = 1, 2
    chunks, described = body.save(bare, view)
    assert b"".join(chunks).hex() == "010000000200"
    assert (described["layout"], described["fields"][0]["type"]) == ("bare", "uint16 little-endian")
    loaded = View(bare.fresh(), {}, 1)
    feed = Feed(pull := Pull(), body.load(bare, loaded, pull))
    feed.feed(bytes.fromhex("010000000200"))
    assert (feed.end(), loaded.state) == (None, view.state)
