"""The stream that carries device state, in QEMU's framing (migration/savevm.c, 7.2).

"QEVM" 00000003                                        magic, file version
07  u32 length, name                                   configuration: the machine type
04  u32 id, u8 length, name, u32 instance, u32 version, body, 7e u32 id       one for each device
00                                                     the end
06  u32 length, JSON                                   the description of every byte
"""

from __future__ import annotations

import errno
import json
import struct
from collections.abc import Callable, Collection, Mapping, Sequence

from attrs import define, field, frozen

from mdevfs.state import vmdesc
from mdevfs.state.body import Described, check_version, load
from mdevfs.state.description import VMState
from mdevfs.state.fields import Chunk
from mdevfs.state.pull import Feed, Pull, Reading
from mdevfs.state.refusal import BadState
from mdevfs.state.view import View

MAGIC, FILE_VERSION, OLD_FILE_VERSION = 0x5145564D, 3, 2
EOF, START, PART, END, FULL, SUBSECTION, DESCRIPTION, CONFIGURATION, COMMAND, FOOTER = *range(9), 0x7E
MAX_MACHINE = 255
NO_MACHINE = "none"  # QEMU's word. An empty name would fit every QEMU, but ends its analyzer with a traceback
# What may come between sections and means nothing to one device: command -> length (MIG_CMD_*).
COMMANDS = {0x01: 0, 0x02: 4, 0x0B: 0}
COMMAND_NAMES = {0x01: "OPEN_RETURN_PATH", 0x02: "PING", 0x0B: "SWITCHOVER_START"}


@frozen
class Section:
    """One saved device: its name (bus address and description's name, or the latter alone), its body and its JSON."""

    name: str
    version: int
    body: Sequence[Chunk]
    described: Described
    instance: int = 0


def head(machine: str) -> bytes:
    """What comes before the first section; without a machine type the stream of a device fits every machine."""
    name = (machine or NO_MACHINE).encode()
    return struct.pack(f">IIBI{len(name)}s", MAGIC, FILE_VERSION, CONFIGURATION, len(name), name)


def section_head(number: int, name: str, instance: int, version: int) -> bytes:
    """What comes before a section's body."""
    raw = name.encode()
    return struct.pack(f">BIB{len(raw)}sII", FULL, number, len(raw), raw, instance, version)


def write(machine: str, sections: Sequence[Section]) -> list[Chunk]:
    """A whole stream. Large chunks are views of the devices' state."""
    chunks: list[Chunk] = [head(machine)]
    for number, one in enumerate(sections, 1):
        chunks.append(section_head(number, one.name, one.instance, one.version))
        chunks += one.body
        chunks.append(struct.pack(">BI", FOOTER, number))
    devices = [{"name": one.name, "instance_id": one.instance, **one.described} for one in sections]
    text = json.dumps({"page_size": vmdesc.PAGE_SIZE, "devices": devices}).encode()
    # QEMU's analyzer takes the first brace after the last NUL byte for the JSON's: none may stand in its length.
    while b"{" in struct.pack(">I", len(text)):
        text += b" "
    chunks.append(struct.pack(">BBI", EOF, DESCRIPTION, len(text)) + text)
    return chunks


@define
class Place:
    """A device that a stream may load into: `begin` makes a new state and shows it; `blocked` versions are refused."""

    name: str
    description: VMState
    begin: Callable[[int], View]
    blocked: Collection[int] = ()
    instance: int = 0
    loaded: View | None = None

    def check(self, version: int, at: int) -> None:
        """Raises BadState for a version that is not loaded here; `at` is where it stood."""
        try:
            check_version(self.description, version, "", at)
        except BadState as error:
            error.device = self.name
            raise
        if version in self.blocked:
            raise BadState(
                "state-version-blocked",
                rule="this version is blocked at the target",
                device=self.name,
                offset=at,
                source=f"version {version}",
                target=f"blocked: {', '.join(map(str, sorted(self.blocked)))}",
                mend="save with another version, or allow it: mdevfs/blocked_state_versions",
            )


@define
class Loader:
    """Loads a stream that comes in pieces into new states; the devices themselves are not touched.

    `machine` is the local machine type; None: any will do. `named` is the one that the stream names. `complete` once
    the end mark has come: what follows is only for people, and `described` holds it when it could be read. Raises
    BadState from `feed` and `finish`.
    """

    places: Sequence[Place]
    machine: str | None = None
    named: str = field(default=NO_MACHINE, init=False)
    complete: bool = field(default=False, init=False)
    described: Mapping[str, object] | None = field(default=None, init=False)
    _pull: Pull = field(factory=Pull, init=False)
    _sections: dict[int, Place] = field(factory=dict, init=False)
    _feed: Feed[None] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._feed = Feed(self._pull, self._read())

    @property
    def offset(self) -> int:
        """How many bytes were taken."""
        return self._pull.offset

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """The next piece."""
        if self._feed.done and len(data):
            raise BadState("state-too-long", errno.ENOMEM, rule="bytes follow the stream's end", offset=self.offset)
        self._feed.feed(data)
        if self._feed.done and self._pull.waiting:
            raise BadState("state-too-long", errno.ENOMEM, rule="bytes follow the stream's end", offset=self.offset)

    def check_machine(self, local: str) -> None:
        """Raises BadState where the stream is of another machine type. A prefix is as good: QEMU compares as many
        characters as it received (configuration_post_load)."""
        if self.named == NO_MACHINE or local.startswith(self.named):
            return
        raise BadState(
            "state-machine-differs",
            rule="the machine types differ",
            offset=13,
            source=self.named,
            target=local,
            mend=f"use the machine type {self.named} on both hosts",
        )

    def finish(self) -> None:
        """Nothing more comes: raises BadState where something is missing."""
        if not self.complete:
            self._feed.end()
        missing = [place.name for place in self.places if place.loaded is None]
        if missing:
            rule = "the stream holds no section of this device"
            mend = "save it from a device of its kind"
            raise BadState("state-section-missing", rule=rule, device=missing[0], mend=mend)

    # -- the framing

    def _read(self) -> Reading[None]:
        pull = self._pull
        yield from self._head()
        while True:
            at = pull.offset
            (kind,) = yield from pull.take(1)
            if kind == EOF:
                break
            if kind in (FULL, START):
                yield from self._section(at)
            elif kind in (PART, END):
                yield from self._part(at)
            elif kind == COMMAND:
                yield from self._command(at)
            else:
                rule = "no section has this type"
                raise BadState("state-section-type", rule=rule, offset=at, source=f"type {kind:#04x}")
        self.complete = True
        yield from self._description()

    def _head(self) -> Reading[None]:
        pull = self._pull
        magic, version = struct.unpack(">II", (yield from pull.take(8)))
        if magic != MAGIC:
            rule = "this is not a migration stream"
            raise BadState("state-not-a-stream", rule=rule, offset=0, source=f"{magic:#010x}", target=f"{MAGIC:#010x}")
        if version != FILE_VERSION:
            rule = "version 2 of the format is obsolete" if version == OLD_FILE_VERSION else "the format is unknown"
            source, target = f"version {version}", f"version {FILE_VERSION}"
            raise BadState("state-file-version", errno.ENOTSUP, rule=rule, offset=4, source=source, target=target)
        (kind,) = yield from pull.take(1)
        if kind != CONFIGURATION:
            rule = "the configuration section is missing"
            raise BadState("state-configuration-missing", rule=rule, offset=8, source=f"type {kind:#04x}")
        (length,) = struct.unpack(">I", (yield from pull.take(4)))
        if length > MAX_MACHINE:
            rule = f"a machine type's name has at most {MAX_MACHINE} bytes"
            raise BadState("state-configuration-missing", rule=rule, offset=9, source=str(length))
        name = (yield from pull.take(length)).decode("utf-8", "backslashreplace")
        self.named = name
        if self.machine is not None:
            self.check_machine(self.machine)

    def _section(self, at: int) -> Reading[None]:
        pull = self._pull
        number, length = struct.unpack(">IB", (yield from pull.take(5)))
        name = (yield from pull.take(length)).decode("utf-8", "backslashreplace")
        if not name:
            rule = "a section has no name"
            raise BadState("state-device-unknown", rule=rule, offset=at, target=self._names())
        instance, version = struct.unpack(">II", (yield from pull.take(8)))
        place = next((one for one in self.places if (one.name, one.instance) == (name, instance)), None)
        if place is None:
            raise BadState(
                "state-device-unknown",
                rule="the target has no such device",
                device=name,
                offset=at,
                source=f"{name} instance {instance}",
                target=self._names(),
                mend="load it into a device of that kind, at that address",
            )
        place.check(version, at)
        view = place.begin(version)
        self._sections[number] = place
        begin = pull.offset
        try:
            yield from load(place.description, view, pull)
            yield from self._footer(number, place.description, version, pull.offset - begin)
        except BadState as error:
            error.device = error.device or name
            raise
        place.loaded = view

    def _footer(self, number: int, description: VMState, version: int, size: int) -> Reading[None]:
        pull, at = self._pull, self._pull.offset
        (mark,) = yield from pull.take(1)
        if mark != FOOTER:
            raise BadState(
                "state-footer-missing",
                rule="the section's footer is missing where the fields end: the source sent more or less of them",
                field=f"{description.name}, after its last field",
                offset=at,
                source=f"version {version}, byte {mark:#04x}",
                target=f"version {description.version}, the footer {FOOTER:#04x} after {size} bytes",
            )
        (said,) = struct.unpack(">I", (yield from pull.take(4)))
        if said != number:
            rule = "the footer is another section's"
            source, target = f"section {said}", f"section {number}"
            raise BadState("state-footer-differs", rule=rule, offset=at, source=source, target=target)

    def _part(self, at: int) -> Reading[None]:
        (number,) = struct.unpack(">I", (yield from self._pull.take(4)))
        place = self._sections.get(number)
        name = place.name if place is not None else ""
        rule = "the device sends no parts" if place is not None else "a part belongs to no section"
        raise BadState("state-part-unknown", rule=rule, device=name, offset=at, source=f"section {number}")

    def _command(self, at: int) -> Reading[None]:
        command, length = struct.unpack(">HH", (yield from self._pull.take(4)))
        if command not in COMMANDS:
            rule = "the command is unknown"
            raise BadState("state-command-unknown", rule=rule, offset=at, source=f"{command:#x}, length {length:#x}")
        if length != COMMANDS[command]:
            rule = f"{COMMAND_NAMES[command]} has another length"
            raise BadState(
                "state-command-length",
                errno.ERANGE,
                rule=rule,
                offset=at,
                source=str(length),
                target=str(COMMANDS[command]),
            )
        yield from self._pull.skip(length)

    def _description(self) -> Reading[None]:
        """For people, and for the string that the source says of itself; QEMU does not mind its absence, nor do we."""
        pull = self._pull
        (kind,) = yield from pull.take(1)
        if kind != DESCRIPTION:
            while True:
                yield from pull.skip(1)
        (length,) = struct.unpack(">I", (yield from pull.take(4)))
        if length > vmdesc.MAX_TEXT:
            yield from pull.skip(length)
            return
        text = bytearray()
        while len(text) < length:  # never more than has come
            text += yield from pull.take(max(1, min(length - len(text), pull.waiting)))
        try:
            self.described = vmdesc.parse(bytes(text))
        except ValueError:
            return

    def _names(self) -> str:
        return ", ".join(f"{one.name} instance {one.instance}" for one in self.places)
