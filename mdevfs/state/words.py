"""Values of a stream in words: on one line, long ones shortened."""

from __future__ import annotations

from mdevfs.state.values import Group, Items, Leaf, Memory, Node, Opaque

SHOWN = 16  # bytes, and elements of an array


def number_of(number: int, what: str) -> str:
    """1 byte, 2 bytes."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def text(leaf: Leaf) -> str:
    """A value on one line, long ones shortened."""
    value = leaf.analyzed()
    if isinstance(value, bool):
        return str(value).lower()
    if value is not None:
        return value
    if (number := leaf.number) is not None:
        return (
            str(number)
            if leaf.part.type == "timer"
            else f"0x{number % (1 << 8 * leaf.part.size):0{2 * leaf.part.size}x}"
        )
    size = leaf.part.size
    if size <= SHOWN:
        return leaf.raw.hex(" ") or "no bytes"
    return f"{leaf.data[leaf.at : leaf.at + SHOWN].hex(' ')} ... ({size} bytes)"


def about(one: Node) -> str:
    """What something is, where its value would be too long."""
    match one:
        case Leaf():
            return f"{one.part.type or 'bytes'} {text(one)}"
        case Items():
            part = one.parts[0][0]
            return f"{number_of(one.count, 'element')} {part.type} of {number_of(part.size, 'byte')}"
        case Group():
            version = f"version {one.shape.version}, " if one.shape.version is not None else ""
            return version + number_of(one.shape.size, "byte")
        case Memory():
            return ", ".join(f"{name} {size:#x}" for name, size in one.blocks.items())
        case Opaque():
            return f"{number_of(one.size, 'byte')} that nothing describes"


def offset(one: Node) -> int | None:
    """Where it begins."""
    match one:
        case Leaf() | Group():
            return one.at
        case Items():
            return one.parts[0][1]
        case Opaque():
            return one.pieces[0][0] if one.pieces else None
        case Memory():
            return None
