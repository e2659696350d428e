"""A device to load into, made of a stream's own description: it takes what was sent, and nothing else."""

from __future__ import annotations

import itertools

from mdevfs.state.believe import Section
from mdevfs.state.description import Struct, VMState
from mdevfs.state.fields import S8, S32, U8, U16, U32, Bytes, Field, Flag, Number, Unused
from mdevfs.state.pci import ConfigSpace, PciConfig
from mdevfs.state.stream import Place
from mdevfs.state.values import Group, Leaf, node
from mdevfs.state.view import View
from mdevfs.state.vmdesc import Part, Shape

NUMBERS: dict[str, type[Number]] = {"uint8": U8, "uint16": U16, "uint32": U32, "int32": S32, "int8": S8, "bool": Flag}
PATHS = itertools.count()  # a subsection's fields stand beside its parent's
IDENTITY = (*range(4), *range(8, 12))  # of configuration space: what no guest writes


def place(section: Section) -> Place:
    """A device of the section's kind, with the values that it was sent with where those must be equal."""
    assert isinstance(section.value, Group)
    found = _description(section.value, section.value.shape, section.version)
    return Place(section.name, found, lambda version: View(found.fresh(), {}, version), instance=section.instance)


def _description(group: Group, shape: Shape, version: int) -> VMState:
    at = group.at
    fields: list[Field] = []
    for part in shape.parts:
        fields.append(_field(part, f"part{next(PATHS)}", Group(shape, group.data, at)))
        at += part.total
    subsections = []
    for sub in shape.subsections:
        begin = at + 6 + len(sub.name)
        subsections.append(_description(Group(sub, group.data, begin), sub, sub.version or 0))
        at = begin + sub.size
    return VMState(shape.name, version, first=version, fields=fields, subsections=subsections, needed=lambda view: True)


def _field(part: Part, path: str, group: Group) -> Field:
    """`group` begins where the part does."""
    first = node(part, group.data, group.at)
    if isinstance(first, Group) and part.shape is not None:
        return Struct(part.name, of=_description(first, part.shape, part.shape.version or 0), path=path, num=part.count)
    assert isinstance(first, Leaf)
    if part.type == "pci config":
        raw = first.raw
        compared = bytes(0xFF * (at in IDENTITY) for at in range(len(raw)))
        return PciConfig(part.name, len(raw), path=path, space=ConfigSpace(raw, bytes(len(raw)), compared))
    if part.type == "unused_buffer":
        return Unused(length=part.total)
    plain, _, how = part.type.partition(" ")
    if plain in NUMBERS and how in ("", "equal", "le"):
        held = None if part.count is not None else first.number or 0
        return NUMBERS[plain](part.name, path=path, num=part.count, equal=how == "equal", le=how == "le", reset=held)
    return Bytes(part.name, part.total, path=path)
