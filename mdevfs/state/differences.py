"""What differs between two streams that are believed: devices, versions, layouts, values, each with its offsets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from attrs import frozen

from mdevfs.state.believe import Section, Stream
from mdevfs.state.values import Group, Items, Leaf, Memory, Node, Opaque
from mdevfs.state.vmdesc import Part
from mdevfs.state.words import SHOWN, about, number_of, offset, text

Kind = Literal["machine", "section", "version", "subsection", "field", "layout", "value"]

PIECE = 1 << 20


@frozen
class Difference:
    """`a` and `b` are what each stream holds, None where it has nothing; the offsets are where that begins."""

    kind: Kind
    device: str
    field: str
    a: str | None
    b: str | None
    offset_a: int | None = None
    offset_b: int | None = None


def differences(a: Stream, b: Stream) -> Iterator[Difference]:
    """In the order of `a`, then what only `b` has."""
    if a.machine != b.machine:
        yield Difference("machine", "", "", a.machine, b.machine)
    there = {(one.name, one.instance): one for one in b.sections}
    for (name, instance), one in {(one.name, one.instance): one for one in a.sections}.items():
        title = f"{name} instance {instance}" if instance else name
        other = there.pop((name, instance), None)
        if other is None:
            yield Difference("section", title, "", _section(one), None, one.at)
        else:
            yield from _compare_sections(title, one, other)
    for (name, instance), one in there.items():
        title = f"{name} instance {instance}" if instance else name
        yield Difference("section", title, "", None, _section(one), None, one.at)


def _section(one: Section) -> str:
    return f"version {one.version}, {number_of(one.size, 'byte')}"


def _compare_sections(title: str, a: Section, b: Section) -> Iterator[Difference]:
    if a.version != b.version:
        yield Difference("version", title, "", f"version {a.version}", f"version {b.version}", a.at, b.at)
    yield from _compare(title, "", a.value, b.value)


def _compare(device: str, path: str, a: Node, b: Node) -> Iterator[Difference]:
    match a, b:
        case (Group(), Group()):
            yield from _compare_groups(device, path, a, b)
        case (Leaf(), Leaf()) if _same_form(a.part, b.part):
            if _first_different(a, b) >= 0:
                yield Difference("value", device, path, *_excerpts(a, b))
        case (Items(), Items()):
            yield from _compare_items(device, path, a, b)
        case (Memory(), Memory()):
            if a.blocks != b.blocks:
                yield Difference("layout", device, path, about(a), about(b))
        case (Opaque(), Opaque()) if _sizes(a) == _sizes(b):
            for one, other in zip(_leaves(a), _leaves(b), strict=True):
                yield from _compare(device, path, one, other)
        case _:
            yield Difference("layout", device, path, about(a), about(b), offset(a), offset(b))


def _compare_groups(device: str, path: str, a: Group, b: Group) -> Iterator[Difference]:
    there, subs = b.children(), {one.name for shape in (a.shape, b.shape) for one in shape.subsections}
    if path and a.shape.version != b.shape.version:
        yield Difference(
            "version", device, path, f"version {a.shape.version}", f"version {b.shape.version}", a.at, b.at
        )
    for name, one in a.children().items():
        where = f"{path}/{name}" if path else name
        other = there.pop(name, None)
        if other is None:
            yield Difference(_kind(name in subs), device, where, about(one), None, offset(one))
        else:
            yield from _compare(device, where, one, other)
    for name, one in there.items():
        where = f"{path}/{name}" if path else name
        yield Difference(_kind(name in subs), device, where, None, about(one), None, offset(one))


def _kind(subsection: bool) -> Kind:
    return "subsection" if subsection else "field"


def _compare_items(device: str, path: str, a: Items, b: Items) -> Iterator[Difference]:
    """Of arrays of values one difference, of arrays of structs those in each element."""
    one, other = a.parts[0][0], b.parts[0][0]
    if a.count != b.count or not _same_form(one, other):
        yield Difference("layout", device, path, about(a), about(b), offset(a), offset(b))
    elif one.shape is not None:
        for index, (inner, with_) in enumerate(zip(a, b, strict=True)):
            yield from _compare(device, f"{path}[{index}]", inner, with_)
    else:
        yield from _compare_values(device, path, a, b)


def _compare_values(device: str, path: str, a: Items, b: Items) -> Iterator[Difference]:
    number, texts = 0, ([], [])  # type: tuple[int, tuple[list[str], list[str]]]
    first: tuple[int, int] | None = None
    for index, (one, other) in enumerate(zip(a, b, strict=True)):
        if not (isinstance(one, Leaf) and isinstance(other, Leaf)) or one.raw == other.raw:
            continue
        number, first = number + 1, first or (one.at, other.at)
        if number <= SHOWN:
            for leaf, shown in zip((one, other), texts, strict=True):
                shown.append(f"[{index}] {text(leaf)}")
    if first is not None:
        more = [f"({number} of {a.count} elements differ)"] if number > SHOWN else []
        yield Difference("value", device, path, " ".join(texts[0] + more), " ".join(texts[1] + more), *first)


def _sizes(one: Opaque) -> list[int]:
    return [size for _, size in one.pieces]


def _leaves(one: Opaque) -> Iterator[Leaf]:
    return (Leaf(Part("", "", size), one.data, at) for at, size in one.pieces)


def _same_form(a: Part, b: Part) -> bool:
    return (a.type, a.size if a.shape is None else 0) == (b.type, b.size if b.shape is None else 0)


def _first_different(a: Leaf, b: Leaf) -> int:
    """The index of the first byte that differs, -1: none."""
    for at in range(0, a.part.size, PIECE):
        one, other = (leaf.data[leaf.at + at : leaf.at + min(at + PIECE, a.part.size)] for leaf in (a, b))
        if one != other:
            return at + next(index for index, (x, y) in enumerate(zip(one, other, strict=True)) if x != y)
    return -1


def _excerpts(a: Leaf, b: Leaf) -> tuple[str, str, int, int]:
    """Both values and their offsets; of long ones the bytes from the first on that differs."""
    if a.part.size <= SHOWN or a.number is not None:
        return text(a), text(b), a.at, b.at
    at = _first_different(a, b)
    end = min(at + SHOWN, a.part.size)
    dots = " ..." if end < a.part.size else ""
    one, other = (f"[{at}] {leaf.data[leaf.at + at : leaf.at + end].hex(' ')}{dots}" for leaf in (a, b))
    return one, other, a.at + at, b.at + at
