"""A device with a field of every kind, for tests of streams; and streams put together by hand."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from mdevfs.state import body, stream
from mdevfs.state.description import Struct, VMState
from mdevfs.state.fields import S8, S32, U8, U16, U32, U64, Bitmap, Bytes, Flag, SizedBytes, Timer, Unused
from mdevfs.state.view import View

NAME = "0000:00:03.0/demo"
EXTRA = VMState("demo-queue/extra", fields=[U8("level")], needed=lambda view: view.state.head > 4)
QUEUE = VMState("demo-queue", fields=[U16("head"), U16("tail")], subsections=[EXTRA])
PAIR = VMState("demo-pair", fields=[S8("low"), U8("high", equal=True)])
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
        S32("sign", num=3),
        Bytes("ring", 70),
        U8("length"),
        SizedBytes("packet", "length", 64),
        Bitmap("filter", 70),
        Struct("queue", of=QUEUE, num=2),
        Struct("admin", of=QUEUE),
        Struct("pair", of=PAIR, num=3),
        U64("later", since=3),
        U16("odd", when=lambda view: bool(view.state.ctrl & 1)),
    ],
    subsections=[
        VMState("demo/rss", fields=[U32("rss"), U32("table", num=16)], needed="rss"),
        VMState("demo/vlan", 2, 1, fields=[U16("vlan")], needed="vlan"),
    ],
)


def view(seed: int = 7, **values: object) -> View:
    """A device that is no longer as after reset."""
    one = View(DEMO.fresh(), {"rss": True, "vlan": False, **values}, 3)
    state = one.state
    state.ctrl, state.regs, state.on, state.timer, state.length = seed, [1, 2, 3, 2**32 - 1], True, -1, 3
    state.ring[:] = bytes(range(70))
    state.packet, state.filter, state.later, state.odd, state.rss = bytearray(b"abc"), 1 << 69, 0x1234, 9, 77
    state.queue[1].tail = state.admin.head = 5
    state.sign, state.pair[1].low = [-1, -2, 3], -128
    state.table[15] = 1
    return one


def written(one: View | None = None, machine: str = "pc", name: str = NAME) -> bytes:
    """A stream of that device."""
    shown = one if one is not None else view()
    chunks, described = body.save(DEMO, shown)
    return b"".join(stream.write(machine, [stream.Section(name, shown.version, chunks, described)]))


def place(values: Mapping[str, object] | None = None, **more: Any) -> stream.Place:
    """A device of that kind to load into."""
    given = values if values is not None else {"rss": True, "vlan": False}
    return stream.Place(NAME, DEMO, lambda version: View(DEMO.fresh(), given, version), **more)


def section(data: bytes, number: int = 1, name: str = "x", version: int = 1, instance: int = 0) -> bytes:
    """A section of any body, with its footer."""
    return stream.section_head(number, name, instance, version) + data + struct.pack(">BI", 0x7E, number)


def assembled(sections: Sequence[bytes], described: object | bytes | None, head: bytes = stream.head("pc")) -> bytes:
    """A stream of any sections and any description; None: it has none."""
    if described is None:
        return head + b"".join(sections) + b"\0"
    text = described if isinstance(described, bytes) else json.dumps(described).encode()
    return head + b"".join(sections) + b"\0" + struct.pack(">BI", 6, len(text)) + text


def device(fields: Sequence[object], name: str = "x", **more: object) -> dict[str, object]:
    """A stream's JSON of one device."""
    about = {"name": name, "instance_id": 0, "vmsd_name": name, "version": 1, "fields": list(fields), **more}
    return {"page_size": 4096, "devices": [about]}


def odd() -> list[bytes]:
    """Streams of other machines: with memory, with what nothing describes, and without footers."""
    ram = struct.pack(">BIB3sII", 1, 2, 3, b"ram", 0, 4) + struct.pack(">QB2sQ", 4096 | 4, 2, b"pc", 4096)
    ram += struct.pack(">QB2sBQ4096sQ", 2, 2, b"pc", 7, 0x28, bytes(4096), 0x10) + struct.pack(">BI", 0x7E, 2)
    part = struct.pack(">BI", 2, 2) + struct.pack(">QBI", 0x22, 0, 0)[:9] + struct.pack(">QBI", 0x10, 0x7E, 2)
    one = device([{"name": "a", "type": "uint16", "size": 2}])
    x, y = section(b"12"), section(b"345", 4, "y")
    return [
        assembled([ram, part, x], one),
        assembled([y, x, struct.pack(">BHHI", 8, 2, 4, 1)], one),
        assembled([x[:-5]], one, stream.head("")[:8]),
        assembled([x, y], None),
    ]
