"""The values in a stream that is believed: made when somebody looks, printed in the form of QEMU's analyzer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping

from attrs import frozen

from mdevfs.state.body import LITTLE, SUBSECTION
from mdevfs.state.cursor import Data
from mdevfs.state.refusal import BadState
from mdevfs.state.vmdesc import Part, Shape, header_size

# Types that the analyzer (scripts/analyze-migration.py, 7.2 and 10.2) prints as numbers; all others are bytes to it.
SIGNED = {"int8", "int16", "int32", "int64", "int32 equal", "int64 equal", "int32 le", "uint8 equal", "uint16 equal"}
UNSIGNED = {"uint8", "uint16", "uint32", "uint64", "uint32 equal"}
PIECE = 64 << 10


@frozen
class Leaf:
    """One value: its part's type and size, and where its bytes begin."""

    part: Part
    data: Data
    at: int

    @property
    def raw(self) -> bytes:
        """All its bytes."""
        return self.data[self.at : self.at + self.part.size]

    @property
    def number(self) -> int | None:
        """As a number, where its type is one."""
        type_ = self.part.type
        if type_.endswith(LITTLE):
            return int.from_bytes(self.raw, "little", signed=not type_.startswith(("u", "bitmap")))
        if type_ in SIGNED or type_ in UNSIGNED or type_ == "timer":
            return int.from_bytes(self.raw, "big", signed=type_ not in UNSIGNED)
        return None

    def analyzed(self) -> str | bool | None:
        """As the analyzer prints it; None: bytes."""
        type_ = self.part.type
        if type_ == "bool":
            return self.raw != b"\0"
        if type_ not in SIGNED and type_ not in UNSIGNED:
            return None
        value, raw = self.number, self.raw
        assert value is not None
        return f"0x{raw.hex()} ({value})" if value < 0 else f"0x{raw.hex()}"


@frozen
class Items:
    """An array: `count` elements of one part, or one element of each of several."""

    parts: tuple[tuple[Part, int], ...]
    data: Data
    count: int

    def __iter__(self) -> Iterator[Node]:
        if len(self.parts) == 1:
            part, at = self.parts[0]
            return (node(part, self.data, at + index * part.size) for index in range(self.count))
        return (node(part, self.data, at) for part, at in self.parts)


@frozen
class Group:
    """A device, a struct or a subsection."""

    shape: Shape
    data: Data
    at: int

    def children(self) -> dict[str, Node]:
        """Fields, arrays and subsections by name, in their order."""
        found: dict[str, Node] = {}
        elements: dict[str, list[tuple[Part, int]]] = {}
        at = self.at
        for part in self.shape.parts:
            if part.index is not None:
                elements.setdefault(part.name, []).append((part, at))
                found.setdefault(part.name, Items((), self.data, 0))
            elif part.count is not None:
                found[part.name] = Items(((part, at),), self.data, part.count)
            else:
                found[part.name] = node(part, self.data, at)
            at += part.total
        for name, parts in elements.items():
            found[name] = Items(tuple(parts), self.data, len(parts))
        for sub, begin in subsections(self.shape, self.at):
            found[sub.name] = Group(sub, self.data, begin)
        return found


@frozen
class Memory:
    """The guest's memory: blocks and their sizes."""

    blocks: dict[str, int]


@frozen
class Opaque:
    """Bytes that nothing describes: offset and size of each piece."""

    data: Data
    pieces: list[tuple[int, int]]

    @property
    def size(self) -> int:
        """Of all pieces."""
        return sum(size for _, size in self.pieces)


Node = Leaf | Items | Group | Memory | Opaque


def node(part: Part, data: Data, at: int) -> Leaf | Group:
    """One element of a part."""
    return Group(part.shape, data, at) if part.shape is not None else Leaf(part, data, at)


def subsections(shape: Shape, at: int) -> Iterator[tuple[Shape, int]]:
    """Each with the offset of its first field, where the shape's own begin at `at`."""
    at += sum(part.total for part in shape.parts)
    for sub in shape.subsections:
        at += header_size(sub)
        yield sub, at
        at += sub.size


def check_subsections(data: Data, shape: Shape, at: int, path: str) -> None:
    """Subsections stand in the bytes as they are listed. Raises BadState, without the device."""
    if not shape.optional:
        return
    for part in shape.parts:
        if part.shape is not None and part.shape.optional:
            for index in range(part.count or 1):
                check_subsections(data, part.shape, at + index * part.size, f"{path}{part.name}/")
        at += part.total
    for sub in shape.subsections:
        raw, begin = sub.name.encode(), at + header_size(sub)
        if data[at : begin - 4] != bytes((SUBSECTION, len(raw))) + raw:
            rule = "the description lists a subsection that was not sent here"
            raise BadState("state-description-wrong", rule=rule, field=path + sub.name, offset=at)
        version = int.from_bytes(data[begin - 4 : begin], "big")
        if sub.version not in (None, version):
            rule = f"the subsection is of version {version}, its description of version {sub.version}"
            raise BadState("state-description-wrong", rule=rule, field=path + sub.name, offset=at)
        check_subsections(data, sub, begin, f"{path}{sub.name}/")
        at = begin + sub.size


def write_json(write: Callable[[str], object], found: Mapping[str, Node]) -> None:
    """The analyzer's JSON, piece by piece, so that no size of the state matters."""
    _write_object(write, found, "\n")
    write("\n")


def _write(write: Callable[[str], object], one: Node, line: str) -> None:
    match one:
        case Leaf():
            _write_leaf(write, one)
        case Group():
            _write_object(write, one.children(), line)
        case Items():
            _write_list(write, one, line)
        case Memory():
            sizes = {name: f"0x{size:016x}" for name, size in one.blocks.items()}
            text = json.dumps({"section sizes": sizes}, indent=4, separators=(",", ": "))
            write(text.replace("\n", line))
        case Opaque():
            write(json.dumps({"opaque": [{"offset": at, "size": size} for at, size in one.pieces]}))


def _write_object(write: Callable[[str], object], found: Mapping[str, Node], line: str) -> None:
    inner, mark = line + "    ", "{"
    for name, one in found.items():
        write(f"{mark}{inner}{json.dumps(name)}: ")
        _write(write, one, inner)
        mark = ","
    write("{}" if mark == "{" else line + "}")


def _write_list(write: Callable[[str], object], found: Items, line: str) -> None:
    inner, mark = line + "    ", "["
    for one in found:
        write(mark + inner)
        _write(write, one, inner)
        mark = ","
    write(line + "]")


def _write_leaf(write: Callable[[str], object], leaf: Leaf) -> None:
    value = leaf.analyzed()
    if value is not None:
        write(json.dumps(value))
        return
    write('"')
    end = leaf.at + leaf.part.size
    for at in range(leaf.at, end, PIECE):
        write((" " if at > leaf.at else "") + leaf.data[at : min(at + PIECE, end)].hex(" "))
    write('"')
