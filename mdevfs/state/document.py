"""A description as a document: the format of a device's migration data, for people, in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mdevfs.state.description import Struct, VMState
from mdevfs.state.fields import Field, ParameterOn, Predicate, SizedBytes, When

ORDERS = {"<": "the low byte first", ">": "the high byte first"}
HEAD = ("offset", "field", "type", "bytes", "since", "present", "meaning")


def document(title: str, one: VMState, version: int) -> str:
    """The format of a version, with every struct and subsection in it; `title` names the device."""
    lines = [f"# Device state of {title}", "", *_about(one), *_frame(one, version), *_table(one, version)]
    for struct in _structs(one):
        lines += ["", f"## Struct {_code(struct.name)}", "", *_about(struct), *_table(struct, struct.version)]
        lines += _subsections(struct)
    lines += _subsections(one)
    return "\n".join(lines) + "\n"


def _about(one: VMState) -> list[str]:
    return [one.doc.strip(), ""] if one.doc.strip() else []


def _frame(one: VMState, version: int) -> Iterator[str]:
    """What is around the fields."""
    if one.bare:
        yield f"The fields of this table follow each other and nothing else does. Numbers are {ORDERS[one.bare]}."
    else:
        loads = f"versions {one.minimum} to {version}" if one.minimum < version else f"version {version}"
        yield f"Version {version}; a target of this version loads {loads}."
        yield ""
        yield (
            f"A section of QEMU's migration stream, named {_code(one.name)} after the device's address. The fields "
            f"follow each other without names, sizes or padding, and numbers are {ORDERS['>']}. After them come the "
            "subsections that are needed: the byte 05, the length of the name in one byte, the name, the version in "
            "four bytes, and the subsection's fields."
        )
    for number, why in sorted(one.blocked.items()):
        if number <= version:
            yield ""
            yield f"Version {number} is blocked unless an administrator allows it: {_text(why)}."
    yield ""


def _subsections(one: VMState) -> Iterator[str]:
    for sub in one.subsections:
        versions = (
            f"version {sub.version}" if sub.minimum == sub.version else f"version {sub.version}, from {sub.minimum}"
        )
        yield from ("", f"## Subsection {_code(sub.name)}", "")
        yield f"Part of {_code(one.name)}, {versions}. Sent {_condition(sub.needed)}."
        yield ""
        yield from _about(sub)
        yield from _table(sub, sub.version)
        for struct in _structs(sub):
            yield from ("", f"### Struct {_code(struct.name)}", "", *_about(struct), *_table(struct, struct.version))
        yield from _subsections(sub)


def _structs(one: VMState) -> list[VMState]:
    """Every struct in it, also in other structs, each once."""
    found: dict[int, VMState] = {}

    def walk(fields: Sequence[Field]) -> None:
        for inner in fields:
            if isinstance(inner, Struct) and id(inner.of) not in found:
                found[id(inner.of)] = inner.of
                walk(inner.of.fields)

    walk(one.fields)
    return list(found.values())


# -- the table of fields


def _table(one: VMState, version: int) -> Iterator[str]:
    if not one.fields:
        yield "It has no fields."
        return
    yield _row(HEAD)
    yield _row(["---"] * len(HEAD))
    offset: int | None = 0
    for inner in one.fields:
        if inner.since > version:
            continue
        size = wire_size(inner)
        yield _row(
            [
                "" if offset is None else str(offset),
                _code(inner.name),
                _type(inner),
                _bytes(inner, size),
                str(inner.since) if inner.since else "",
                "always" if inner.when is None else _condition(inner.when),
                _text(inner.doc + (" (never changes)" if inner.fixed else "")).strip(),
            ]
        )
        certain = size is not None and inner.when is None and offset is not None
        offset = offset + size if certain and offset is not None and size is not None else None


def wire_size(one: Field) -> int | None:
    """Bytes that the field is on the wire; None where the state or a condition says."""
    size = element_size(one)
    return None if size is None or not isinstance(one.num, int | None) else size * (one.num or 1)


def element_size(one: Field) -> int | None:
    """The same of one element."""
    if not isinstance(one, Struct):
        return one.size if one.size >= 0 else None
    if one.of.subsections:
        return None
    sizes = [None if inner.when is not None else wire_size(inner) for inner in one.of.fields]
    return None if None in sizes else sum(filter(None, sizes))


def _type(one: Field) -> str:
    kind = f"struct {_code(one.of.name)}" if isinstance(one, Struct) else one.kind
    if one.num is None:
        return kind
    if isinstance(one.num, int):
        return f"{kind}[{one.num}]"
    return f"{kind}[{_code(one.num)}]" if isinstance(one.num, str) else f"{kind}[...]"


def _bytes(one: Field, size: int | None) -> str:
    if size is not None:
        return str(size)
    if isinstance(one, SizedBytes):
        return f"as {_code(one.length)} says, at most {one.most}"
    each = element_size(one) if one.num is not None else None
    return f"{each} each" if each is not None else "varies"


def _condition(when: Predicate | None) -> str:
    """When something is sent, in words: the condition's own, or what a function says of itself."""
    if isinstance(when, ParameterOn | When):
        return _text(str(when))
    text = (getattr(when, "__doc__", None) or "").strip().partition("\n")[0].rstrip(".")
    return f"when: {_text(text)}" if text else "when the driver says so"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _code(text: str) -> str:
    return f"`{text.replace('|', chr(92) + '|').replace('`', chr(39))}`"


def _text(text: str) -> str:
    """One line that cannot leave its cell."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
