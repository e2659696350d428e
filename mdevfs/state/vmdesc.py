"""What a stream's JSON says of its bytes: read from anybody, bounded before anything is made of it.

A `Shape` is a device, a struct or a subsection; a `Part` one of its fields, or an array of them. Sizes are bytes on
the wire, and add up: whoever has a Shape may go by its sizes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import cast

from attrs import define, field, frozen

from mdevfs.state.cursor import Data

MAX_TEXT = 10 << 20  # bytes: QEMU's analyzer looks no further back for it
MAX_COST = 56 << 20  # bytes that its text and all that Python makes of it may take
MAX_DEPTH = 32
MAX_WRONG = 64  # devices whose description is wrong: of more the first
MAX_NAME = 255  # bytes: a length on the wire is one byte
MAX_SIZE = 1 << 48
PAGE_SIZE, PAGE_SIZES = 4096, [1 << bits for bits in range(10, 17)]
SUBSECTION_HEADER = 6  # bytes, and the name's
SIZES = {"bool": 1, "timer": 8} | {f"{sign}int{bits}": bits // 8 for sign in ("", "u") for bits in (8, 16, 32, 64)}

Object = Mapping[str, object]


def parse(text: bytes) -> Object:
    """The JSON object that a text is. Raises ValueError for what is none, and for what would take too much memory."""
    if len(text) > MAX_TEXT:
        raise ValueError(f"it has {len(text)} bytes, more than {MAX_TEXT}")
    if not text.isascii():
        raise ValueError("it is not ASCII")
    # What CPython takes at most: text may become four bytes for each character, a dict with one key 240, and so on.
    cost = len(text) * (5 if b"\\u" in text else 2) + 400 * text.count(b"{") + 64 * sum(map(text.count, b"[,:"))
    if cost > MAX_COST:
        raise ValueError(f"it would take {cost >> 20} MiB of memory, more than {MAX_COST >> 20}")
    try:
        found = json.loads(text.decode("ascii"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError as error:
        raise ValueError(f"it is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError("it is no object")
    return cast(Object, found)


def find(data: Data) -> int:
    """The offset of the description's section, -1 where there is none: its length fits, and a brace begins it. As
    JSON holds no NUL byte, it is looked for from the end."""
    at = len(data)
    while (at := data.rfind(b"\6\0", 0, at)) >= 0:
        begin = at + 5
        if data[begin : begin + 1] == b"{" and begin + int.from_bytes(data[at + 1 : begin], "big") <= len(data):
            return at
        at += 1
    return -1


@frozen
class Part:
    """A field; `count` equal elements of it (None: it is no array); or, with `index`, one element of an array whose
    elements differ. `size` is one element's. Of a struct, `shape` is what it holds."""

    name: str
    type: str
    size: int
    count: int | None = None
    index: int | None = None
    shape: Shape | None = None

    @property
    def total(self) -> int:
        """Bytes of all elements."""
        return self.size * (self.count or 1)


@frozen
class Shape:
    """Fields, then subsections, each with its header. `version` is None where the JSON gives none."""

    name: str
    version: int | None
    parts: tuple[Part, ...]
    subsections: tuple[Shape, ...] = ()
    size: int = field(init=False)
    leaves: int = field(init=False)
    """How many values there are to show; at least 1."""
    optional: bool = field(init=False)
    """Whether there are subsections in it, however deep."""

    def __attrs_post_init__(self) -> None:
        own = sum(part.total for part in self.parts)
        object.__setattr__(self, "size", own + sum(header_size(sub) + sub.size for sub in self.subsections))
        values = sum((part.count or 1) * (part.shape.leaves if part.shape else 1) for part in self.parts)
        object.__setattr__(self, "leaves", 1 + values + sum(sub.leaves for sub in self.subsections))
        deeper = any(part.shape is not None and part.shape.optional for part in self.parts)
        object.__setattr__(self, "optional", bool(self.subsections) or deeper)


def header_size(sub: Shape) -> int:
    """Bytes before a subsection's fields."""
    return SUBSECTION_HEADER + len(sub.name.encode())


@frozen
class Device:
    """One of the JSON's devices. `says` is its migration_version string, `layout` "bare" where its section is not in
    QEMU's encodings but in those of a kernel driver: keys that mdevfs adds."""

    name: str
    instance: int
    shape: Shape
    says: str | None = None
    layout: str | None = None


@define
class Document:
    """All that a stream's JSON says, and what is wrong with it. `at`: where its section begins, `end` where it ends."""

    at: int
    end: int
    page_size: int = PAGE_SIZE
    configuration: Shape | None = None
    devices: dict[tuple[str, int], Device] = field(factory=dict)
    wrong: list[str] = field(factory=list)


def read(data: Data) -> Document | None:
    """The description at a stream's end; None where there is none."""
    at = find(data)
    if at < 0:
        return None
    begin = at + 5
    found = Document(at, begin + int.from_bytes(data[at + 1 : begin], "big"))
    try:
        if found.end - begin > MAX_TEXT:
            raise ValueError(f"it has {found.end - begin} bytes, more than {MAX_TEXT}")
        _read(parse(data[begin : found.end]), found)
    except ValueError as error:
        found.wrong.append(str(error))
    return found


def _read(about: Object, found: Document) -> None:
    size, devices = about.get("page_size"), about.get("devices")
    if isinstance(size, int) and size in PAGE_SIZES:
        found.page_size = size
    if not isinstance(devices, list):
        raise ValueError("devices is no list")
    if "configuration" in about:
        found.configuration = shape(_object(about["configuration"], "configuration"))
    for index, one in enumerate(devices):
        try:
            device = _device(one)
            if found.devices.setdefault((device.name, device.instance), device) is not device:
                raise ValueError("described twice")
        except ValueError as error:
            name = one.get("name") if isinstance(one, dict) else None
            found.wrong.append(f"devices[{index}]{f' ({name})' if _is_name(name) else ''}: {error}")
            if len(found.wrong) >= MAX_WRONG:
                return


def _device(found: object) -> Device:
    about = _object(found, "it")
    extra = [about.get(key) for key in ("migration_version", "layout")]
    says, layout = [one if isinstance(one, str) and one.isascii() and one.isprintable() else None for one in extra]
    return Device(_name(about, "name"), _number(about, "instance_id"), shape(about), says, layout)


def shape(about: Object, path: str = "", depth: int = 1) -> Shape:
    """A description as QEMU writes it. Raises ValueError, with the path of what is wrong."""
    if depth > MAX_DEPTH:
        raise ValueError(f"{path}: nested more than {MAX_DEPTH} deep")
    name = _name(about, "vmsd_name") if "vmsd_name" in about else ""
    version = _number(about, "version", path) if "version" in about else None
    fields, subsections = about.get("fields"), about.get("subsections", [])
    if not isinstance(fields, list) or not isinstance(subsections, list):
        raise ValueError(f"{path or name}: fields and subsections are lists")
    parts = tuple(_part(_object(one, f"{path}fields[{index}]"), path, depth) for index, one in enumerate(fields))
    _check_names(parts, path)
    subs = tuple(_subsection(_object(one, f"{path}subsections"), name, path, depth) for one in subsections)
    if len({sub.name for sub in subs} | {part.name for part in parts}) < len(subs) + len({one.name for one in parts}):
        raise ValueError(f"{path or name}: two subsections, or a subsection and a field, have one name")
    return Shape(name, version, parts, subs)


def _subsection(about: Object, above: str, path: str, depth: int) -> Shape:
    name = _name(about, "vmsd_name")
    if not name.startswith(above) or name == above:
        raise ValueError(f"{path}{name}: a subsection's name begins with {above}")
    return shape(about, f"{path}{name}/", depth + 1)


def _part(about: Object, path: str, depth: int) -> Part:
    name = _name(about, "name")
    where = f"{path}{name}"
    size = _number(about, "size", where)
    type_ = about.get("type", "")
    if not isinstance(type_, str) or not type_.isprintable():
        raise ValueError(f"{where}: its type is no text")
    count = _number(about, "array_len", where) if "array_len" in about else None
    index = _number(about, "index", where) if "index" in about else None
    inner = shape(_object(about.get("struct"), where), f"{where}/", depth + 1) if type_ == "struct" else None
    if inner is not None and inner.size != size:
        raise ValueError(f"{where}: its fields have {inner.size} bytes, its size says {size}")
    plain = type_.removesuffix(" equal").removesuffix(" le")
    if SIZES.get(plain, size) != size:
        raise ValueError(f"{where}: {type_} has {SIZES[plain]} bytes, its size says {size}")
    if count is not None and (count < 1 or index is not None or not size):
        raise ValueError(f"{where}: an array of {count} elements of {size} bytes")
    if size * (count or 1) > MAX_SIZE:
        raise ValueError(f"{where}: {size * (count or 1)} bytes are too many")
    return Part(name, type_, size, count, index, inner)


def _check_names(parts: tuple[Part, ...], path: str) -> None:
    """A name is a field's, or that of elements in their order."""
    seen: dict[str, int] = {}
    for part in parts:
        before = seen.get(part.name)
        if part.index is None and before is not None:
            raise ValueError(f"{path}{part.name}: described twice")
        if part.index is not None and part.index != (0 if before is None else before + 1):
            raise ValueError(f"{path}{part.name}: element {part.index} is not the next one")
        seen[part.name] = part.index if part.index is not None else MAX_SIZE


def _object(found: object, where: str) -> Object:
    if not isinstance(found, dict):
        raise ValueError(f"{where} is no object")
    return cast(Object, found)


def _is_name(found: object) -> bool:
    return isinstance(found, str) and 0 < len(found.encode("utf-8", "replace")) <= MAX_NAME and found.isprintable()


def _name(about: Object, key: str) -> str:
    found = about.get(key)
    if not _is_name(found):
        raise ValueError(f"{key} is no name")
    return cast(str, found)


def _number(about: Object, key: str, where: str = "") -> int:
    found = about.get(key)
    if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found < 1 << 63:
        raise ValueError(f"{where}{': ' if where else ''}{key} is no number of 0 or more")
    return found
