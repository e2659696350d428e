"""`mdevfs state show FILE`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from mdevfs.cli.output import Json
from mdevfs.cli.streams import complain_of, contents, read
from mdevfs.errors import EXIT_NO, EXIT_YES, escape

if TYPE_CHECKING:
    from mdevfs.state.believe import Section, Stream
    from mdevfs.state.values import Items, Node

EXAMPLE = """\b
Examples:
  mdevfs state show state.mig
  ssh other cat state.mig | mdevfs state show --json -"""
SHOWN = 16  # elements of an array


def show(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A stream in QEMU's framing; - for standard input.")],
    json: Json = False,
) -> int:
    """Show what is in a stream, also one that QEMU wrote, or of a device whose driver is not here.

    The description in JSON at the stream's end is believed, and checked against the bytes. Of a stream that is
    damaged or cut short all is shown that can be, and where it stops. With --json: what QEMU's analyze-migration.py
    prints.

    Exit code: 0 all of it could be shown, 1 not all, 2 wrong use.
    """
    from mdevfs.state.values import write_json

    with contents(file) as data:
        stream = read(file, data)
        if json:
            write_json(sys.stdout.write, stream.values())
        else:
            for line in lines(stream):
                print(line)
    complain_of(file, stream)
    return EXIT_NO if stream.problems else EXIT_YES


def lines(stream: Stream) -> Iterator[str]:
    """A tree of devices, fields and values. All that a stream said is escaped."""
    from mdevfs.state.words import number_of

    machine = escape(stream.machine) if stream.machine else "unknown"
    yield f"machine type {machine}, {number_of(len(stream.sections), 'section')}, {number_of(len(stream.data), 'byte')}"
    for section in stream.sections:
        yield from _section(section)


def _section(section: Section) -> Iterator[str]:
    from mdevfs.state.values import Group
    from mdevfs.state.words import about, number_of

    instance = f" instance {section.instance}" if section.instance else ""
    where = f"version {section.version}, {number_of(section.size, 'byte')} at offset {section.body}"
    layout = ", the bare state of a kernel driver" if section.device and section.device.layout else ""
    yield f"{escape(section.name)}{instance}: {where}{layout}"
    if section.device is not None and section.device.says:
        yield f"  migration_version {escape(section.device.says)}"
    if isinstance(section.value, Group):
        yield from _children(section.value, "  ")
    elif section.size:
        yield f"  {escape(about(section.value))}"


def _children(one: Node, indent: str) -> Iterator[str]:
    from mdevfs.state.values import Group

    if isinstance(one, Group):
        for name, inner in one.children().items():
            yield from _named(escape(name), inner, indent)


def _named(name: str, one: Node, indent: str) -> Iterator[str]:
    from mdevfs.state.values import Group, Items, Leaf
    from mdevfs.state.words import text

    match one:
        case Leaf():
            yield f"{indent}{name} = {text(one)}"
        case Group():
            version = f" version {one.shape.version}" if one.shape.version is not None else ""
            kind = f" ({escape(one.shape.name)}{version})" if one.shape.name != name else f" ({version.strip()})"
            yield f"{indent}{name}{kind if len(kind) > 3 else ''}"
            yield from _children(one, indent + "  ")
        case Items() if one.parts[0][0].shape is not None:
            for index, inner in enumerate(one):
                if index == SHOWN:
                    yield f"{indent}... {one.count - SHOWN} more of {name}"
                    break
                yield from _named(f"{name}[{index}]", inner, indent)
        case Items():
            yield f"{indent}{name} = {_array(one)}"


def _array(one: Items) -> str:
    """Elements on one line; of many those that are not 0."""
    from mdevfs.state.values import Leaf
    from mdevfs.state.words import text

    leaves = (inner for inner in one if isinstance(inner, Leaf))
    if one.count <= SHOWN:
        return "[" + ", ".join(map(text, leaves)) + "]"
    some = (f"[{index}] {text(leaf)}" for index, leaf in enumerate(leaves) if any(leaf.raw))
    listed = ", ".join(islice(some, SHOWN))
    more = sum(1 for _ in some)
    if not listed:
        return f"{one.count} elements, all 0"
    return f"{one.count} elements, 0 but for {listed}" + (f" and {more} more" if more else "")
