"""A section's body: fields in their order, then the subsections that are needed; saved, described, loaded."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypedDict

from mdevfs.state.description import MAX_NAME, Struct, VMState
from mdevfs.state.fields import Bitmap, Chunk, Field, Number
from mdevfs.state.pull import Pull, Reading
from mdevfs.state.refusal import BadState
from mdevfs.state.view import View

SUBSECTION = 0x05
BIG = ">"
LITTLE = " little-endian"  # at the end of a type
BARE = "bare"


class Described(TypedDict, total=False):
    """A description or a field in the JSON at a stream's end (QEMU's vmdesc)."""

    name: str
    instance_id: int
    vmsd_name: str
    version: int
    type: str
    size: int
    array_len: int
    index: int
    struct: Described
    fields: list[Described]
    subsections: list[Described]
    migration_version: str
    layout: str


def save(description: VMState, view: View, bare: str = "") -> tuple[list[Chunk], Described]:
    """The body's bytes, and their description; what is large is not copied, so the state must stand still. `bare` is
    the byte order of a bare description that this is a struct of."""
    if description.before_save is not None:
        description.before_save(view)
    bare = description.bare or bare
    chunks: list[Chunk] = []
    fields: list[Described] = []
    for one, index in description.saved(view):
        name = one.name if index < 0 else f"{one.name}[{index}]"
        if isinstance(one, Struct):
            fields += _save_struct(one, name, view, bare, chunks)
            continue
        count = one.count(view)
        if not count:
            continue
        written = one.write(view, bare or BIG)
        chunks += written
        about: Described = {"name": name}
        if count > 1:
            about["array_len"] = count
        total = sum(map(len, written))
        fields.append({**about, "type": _type(one, bare), "size": total // count})
    found: Described = {"vmsd_name": description.name, "version": view.version, "fields": fields}
    if description.bare:
        found["layout"] = BARE
    subsections: list[Described] = []
    for sub in description.subsections:
        inner = _view_of(sub, view)
        if sub.needed is None or not sub.needed(inner):
            continue
        body, about = save(sub, inner)
        chunks += [subsection_header(sub.name, sub.version), *body]
        subsections.append(about)
    if subsections:
        found["subsections"] = subsections
    return chunks, found


def _view_of(sub: VMState, view: View) -> View:
    return View(view.state, view.values, sub.version, view.root)


def _type(one: Field, bare: str) -> str:
    """QEMU's name of it; where its bytes are not in QEMU's order a name that is not QEMU's, so that the analyzer
    prints bytes and no wrong number."""
    swapped = bare == "<" and isinstance(one, Number | Bitmap) and one.size > 1
    return one.kind + LITTLE if swapped else one.kind


def _save_struct(one: Struct, name: str, view: View, bare: str, chunks: list[Chunk]) -> list[Described]:
    found: list[Described] = []
    for inner in one.elements(view):
        body, about = save(one.of, inner, bare)
        chunks += body
        found.append({"name": name, "type": one.kind, "struct": about, "size": sum(map(len, body))})
    if len(found) < 2:
        return found
    if not one.of.varies:
        first: Described = {"name": name, "array_len": len(found)}
        return [{**first, **found[0]}]
    return [{**about, "index": index} for index, about in enumerate(found)]


def subsection_header(name: str, version: int) -> bytes:
    """What comes before a subsection's fields."""
    raw = name.encode()
    return struct.pack(f">BB{len(raw)}sI", SUBSECTION, len(raw), raw, version)


def load(description: VMState, view: View, pull: Pull, path: str = "", bare: str = "") -> Reading[None]:
    """Takes a body of the view's version and sets the state that the view shows.

    Raises BadState, with the field's path and its offset; the state is then of no use.
    """
    check_version(description, view.version, path, pull.offset)
    bare = description.bare or bare
    for one, _ in description.saved(view):
        at = pull.offset
        with _named(f"{path}{description.name}/{one.name}", at):
            if isinstance(one, Struct):
                for inner in one.elements(view):
                    yield from load(one.of, inner, pull, f"{path}{description.name}/{one.name}:", bare)
            else:
                yield from one.read(view, pull, bare or BIG)
    if not bare:
        yield from _load_subsections(description, view, pull, path)
    if description.after_load is not None:
        with _named(f"{path}{description.name}", pull.offset):
            description.after_load(view)


def check_version(description: VMState, version: int, path: str, offset: int) -> None:
    """Raises BadState for a version that the description does not take."""
    if description.takes(version):
        return
    new = version > description.version
    raise BadState(
        "state-version-too-new" if new else "state-version-too-old",
        rule="the state's version is too new" if new else "the state's version is too old",
        field=f"{path}{description.name}",
        offset=offset,
        source=f"version {version}",
        target=f"version {description.version}, from {description.minimum} on",
        mend="save with an older version (mdevfs/save_state_version), or choose a newer target"
        if new
        else "choose an older target, or one that still takes that version",
    )


def _load_subsections(description: VMState, view: View, pull: Pull, path: str) -> Reading[None]:
    """As QEMU's vmstate_subsection_load: what does not bear this description's name is left to somebody else."""
    while True:
        at = pull.offset
        mark = yield from pull.take(1)
        if mark[0] != SUBSECTION:
            pull.back(mark)
            return
        length = yield from pull.take(1)
        raw = yield from pull.take(length[0])
        if len(raw) <= len(description.name.encode()) or not raw.startswith(description.name.encode()):
            pull.back(mark + length + raw)
            return
        name = raw.decode("utf-8", "backslashreplace")
        sub = description.by_name.get(name)
        if sub is None:
            raise BadState(
                "state-subsection-unknown",
                errno.ENOENT,
                rule="the target knows no such subsection",
                field=f"{path}{name}",
                offset=at,
                source=name[:MAX_NAME],
                target=", ".join(description.by_name) or "none",
                mend="switch that feature off at the source, or choose a target that has it",
            )
        (version,) = struct.unpack(">I", (yield from pull.take(4)))
        yield from load(sub, View(view.state, view.values, version, view.root), pull, path)


@contextmanager
def _named(path: str, offset: int) -> Iterator[None]:
    """Gives a refusal the field's path and offset, where it has none yet."""
    try:
        yield
    except BadState as error:
        if not error.field:
            error.field = path
        if error.offset is None:
            error.offset = offset
        raise


def fields_of(description: VMState) -> Iterator[tuple[str, Field]]:
    """Every field of a description, its structs and its subsections, with its path for people."""
    for one in description.fields:
        if isinstance(one, Struct):
            yield from ((f"{one.name}/{path}", inner) for path, inner in fields_of(one.of))
        else:
            yield one.name, one
    for sub in description.subsections:
        yield from ((f"{sub.name}/{path}", inner) for path, inner in fields_of(sub))
