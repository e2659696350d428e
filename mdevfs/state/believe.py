"""Reads any stream, of a driver that is here or not, by believing the description in JSON at its end.

What the description says is checked against the bytes; where they disagree, the device, the field and the offset are
named. A stream that is damaged or cut short is read as far as it can be.
"""

from __future__ import annotations

import errno

from attrs import define, field

from mdevfs.state import ram, vmdesc
from mdevfs.state.cursor import Cursor, Data
from mdevfs.state.footers import SIZE as FOOTER_SIZE
from mdevfs.state.footers import Footers
from mdevfs.state.refusal import BadState
from mdevfs.state.stream import (
    COMMAND,
    CONFIGURATION,
    DESCRIPTION,
    END,
    EOF,
    FILE_VERSION,
    FOOTER,
    FULL,
    MAGIC,
    MAX_MACHINE,
    PART,
    START,
)
from mdevfs.state.values import Group, Memory, Node, Opaque, check_subsections
from mdevfs.state.vmdesc import Device

MAX_BODIES = 1 << 16
MAX_SAID = 64  # problems, and notes: of more the first
MAX_LEAVES = 4  # values for each byte: a description of more is no description


@define
class Section:
    """One section; of one that comes in parts (START, PART, END) all of them: `at` is the first, `size` all bodies'."""

    name: str
    instance: int
    version: int
    number: int
    at: int
    body: int
    value: Node
    size: int = 0
    device: Device | None = None

    @property
    def title(self) -> str:
        """As QEMU's analyzer calls it."""
        return f"{self.name} ({self.number})"


@define
class Stream:
    """What could be read. `machine`: None without a configuration section; `problems` are what is wrong, `notes` what
    a reader should know."""

    data: Data
    machine: str | None = None
    sections: list[Section] = field(factory=list)
    problems: list[BadState] = field(factory=list)
    notes: list[str] = field(factory=list)

    def values(self) -> dict[str, Node]:
        """The sections' values; where a device was sent twice the last ones, as they are what counts."""
        return {one.title: one.value for one in self.sections}


def read(data: Data) -> Stream:
    """Reads a whole stream. Raises BadState only where there is nothing to show: no magic, another file version."""
    head = Cursor(data, 0, len(data))
    if head.number(4) != MAGIC:
        rule = f"this is no migration stream: it begins with {data[:4].hex(' ')}, not with QEVM"
        raise BadState("state-not-a-stream", rule=rule, offset=0)
    if (version := head.number(4)) != FILE_VERSION:
        rule = f"the format is of version {version}, only version {FILE_VERSION} can be read"
        raise BadState("state-file-version", errno.ENOTSUP, rule=rule, offset=4)
    walk = _Walk(data)
    try:
        walk.run()
    except BadState as error:
        walk.problem(error)
    return walk.stream


class _Walk:
    """From the first section to the last."""

    def __init__(self, data: Data) -> None:
        self.data = data
        self.stream = Stream(data)
        found = vmdesc.read(data)
        self.document = found or vmdesc.Document(len(data), len(data))
        self.cursor = Cursor(data, 8, self.document.at)
        self.open: dict[int, Section] = {}
        self.footers = Footers(data, self.document.at, found is not None, self.open)
        self.bodies = self.leaves = 0
        if found is None:
            self.note("no whole description is at the end: what the sections hold cannot be shown")
        for wrong in self.document.wrong:
            self.misdescribed(f"the description is wrong: {wrong}", self.document.at)
        if left := len(data) - self.document.end:
            rule = f"{left} bytes follow the description"
            self.problem(BadState("state-too-long", errno.ENOMEM, rule=rule, offset=self.document.end))

    def problem(self, error: BadState) -> None:
        """Remembers what is wrong."""
        if len(self.stream.problems) < MAX_SAID:
            self.stream.problems.append(error)

    def misdescribed(self, rule: str, at: int, device: str = "") -> None:
        """Where the description and the bytes disagree, or either with itself."""
        self.problem(BadState("state-description-wrong", rule=rule, device=device, offset=at))

    def note(self, text: str) -> None:
        """Remembers what a reader should know."""
        if len(self.stream.notes) < MAX_SAID:
            self.stream.notes.append(text)

    # -- the sections

    def run(self) -> None:
        """All of them, up to the end mark. Raises BadState where it cannot go on."""
        self._configure()
        cursor = self.cursor
        while (kind := cursor.peek()) != EOF:
            at = cursor.at
            if kind < 0:
                rule = "the stream ends without an end mark"
                raise BadState("state-cut-short", errno.EIO, rule=rule, offset=at)
            cursor.skip(1)
            if kind in (FULL, START):
                self._begin(at)
            elif kind in (PART, END):
                self._go_on(at)
            elif kind == COMMAND:
                command, length = cursor.unpack(">HH")
                cursor.skip(length)
                self.note(f"a command, {command:#x}, of {length} bytes at offset {at}")
            else:
                raise BadState("state-section-type", rule=f"no section has the type {kind:#04x}", offset=at)
        self._end(cursor.at + 1)

    def _end(self, at: int) -> None:
        """After the end mark."""
        left = self.document.at - at
        if left and self.footers.whole:
            self.misdescribed(f"{left} bytes stand between the end mark and the description", at)
        elif left and self.data[at] == DESCRIPTION:
            rule = "the description ends too early"
            self.problem(BadState("state-cut-short", errno.EIO, rule=rule, offset=len(self.data)))
        elif left:
            self.note(f"{left} bytes follow the end mark, and are no description")
        sent = {(one.name, one.instance) for one in self.stream.sections}
        for name, instance in self.document.devices:
            if (name, instance) not in sent:
                self.note(f"{name} instance {instance} is described, but not sent")

    def _configure(self) -> None:
        cursor, at = self.cursor, self.cursor.at
        if cursor.peek() != CONFIGURATION:
            self.note("no configuration section, as before machine types 2.4: no machine type is said")
            return
        cursor.skip(1)
        self.footers.there = True  # the machine types that send the one send the others
        length = cursor.number(4)
        if length > MAX_MACHINE:
            rule = f"a machine type's name has at most {MAX_MACHINE} bytes, not {length}"
            raise BadState("state-configuration-missing", rule=rule, offset=at + 1)
        self.stream.machine = cursor.name(length)
        about = self.document.configuration  # newer releases describe it, with its subsections
        cursor.skip(max(0, about.size - 4 - length) if about is not None else 0)

    def _begin(self, at: int) -> None:
        cursor = self.cursor
        number, length = cursor.unpack(">IB")
        name = cursor.name(length)
        instance, version = cursor.unpack(">II")
        memory = (name, instance, version) == (ram.NAME, 0, ram.VERSION)
        value = Memory({}) if memory else Opaque(self.data, [])
        section = Section(name, instance, version, number, at, cursor.at, value)
        section.device = self.document.devices.get((name, instance))
        self.stream.sections.append(section)
        self.open[number] = section
        if not memory and section.device is None and self.footers.whole:
            self.note(f"{name} instance {instance} is not described: its bytes are passed over")
        self._body(section)

    def _go_on(self, at: int) -> None:
        number = self.cursor.number(4)
        if number not in self.open:
            rule = f"a part belongs to section {number}, which has not begun"
            raise BadState("state-part-unknown", rule=rule, offset=at)
        self._body(self.open[number])

    def _body(self, section: Section) -> None:
        """A section's bytes, its values, and its footer."""
        begin = self.cursor.at
        self.bodies += 1
        if self.bodies > MAX_BODIES:
            raise BadState("state-opaque", rule=f"more than {MAX_BODIES} sections", offset=section.at)
        try:
            if isinstance(section.value, Memory):
                ram.walk(self.cursor, self.document.page_size, section.value.blocks)
            elif section.device is not None:
                self._believe(section, section.device)
            else:
                self._pass_over(section)
        except BadState as error:
            error.device = error.device or section.name
            raise
        finally:
            section.size += self.cursor.at - begin
        self._footer(section, begin)

    def _believe(self, section: Section, device: Device) -> None:
        cursor, shape = self.cursor, device.shape
        if shape.version is not None and shape.version != section.version:
            rule = f"the section is of version {section.version}, its description of version {shape.version}"
            self.misdescribed(rule, section.at, section.name)
        cursor.need(shape.size)
        self.leaves += shape.leaves
        if self.leaves > MAX_LEAVES * len(self.data) + MAX_BODIES:
            rule = f"the description has {shape.leaves} values in {shape.size} bytes"
            raise BadState("state-description-wrong", rule=rule, offset=cursor.at)
        section.value = Group(shape, self.data, cursor.at)
        try:
            check_subsections(self.data, shape, cursor.at, "")
        except BadState as error:
            error.device = section.name
            self.problem(error)
        cursor.skip(shape.size)

    def _pass_over(self, section: Section) -> None:
        """To the footer of a section that nothing describes: the first place that looks like it."""
        end = self.footers.find(section.number, self.cursor.at)
        if end < 0:
            if not self.footers.whole and self.footers.there is not False:
                rule = "the stream ends in this section"
                raise BadState("state-cut-short", errno.EIO, rule=rule, device=section.name, offset=len(self.data))
            rule = "nothing describes this section, and without its footer nobody knows where it ends"
            raise BadState("state-opaque", rule=rule, device=section.name, offset=self.cursor.at)
        if isinstance(section.value, Opaque):
            section.value.pieces.append((self.cursor.at, end - self.cursor.at))
        self.cursor.at = end

    def _footer(self, section: Section, begin: int) -> None:
        """The footer where the body ends; where it is not there, the place where it is, to go on behind it."""
        cursor, at, footers = self.cursor, self.cursor.at, self.footers
        found = cursor.peek()
        if found != FOOTER and not footers.there and footers.could_begin(at):
            if footers.there is None:
                self.note("no footers after sections, as before machine types 2.4")
            footers.there = False
            return
        footers.there = True
        if found == FOOTER:
            cursor.skip(1)
            if (number := cursor.number(4)) != section.number:
                rule = f"the footer is that of section {number}, this is section {section.number}"
                self.problem(BadState("state-footer-differs", rule=rule, device=section.name, offset=at))
            return
        self._no_footer(section, begin, found)

    def _no_footer(self, section: Section, begin: int, found: int) -> None:
        cursor, at = self.cursor, self.cursor.at
        real = self.footers.find(section.number, begin)
        if real >= 0:
            there, cursor.at = f"it is {abs(real - at)} bytes {'before' if real < at else 'behind'}", real + FOOTER_SIZE
        elif self.footers.could_begin(at):
            there = "the next section begins there"
        else:
            there = f"there is byte {found:#04x}" if found >= 0 else "there is the end"
        rule = f"the footer is not where the section's {at - begin} described bytes end: {there}"
        error = BadState("state-footer-missing", rule=rule, device=section.name, offset=at)
        if real < 0 and not self.footers.could_begin(at):
            raise error
        self.problem(error)
