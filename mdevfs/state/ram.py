"""The guest's memory in a stream: not described in its JSON, walked by its own rules (migration/ram.c, version 4).

A part of the section is a list of 64-bit words, flags in the low bits that a page leaves free: the blocks and their
sizes, pages of one byte's value, whole pages, and the mark of the part's end.
"""

from __future__ import annotations

from mdevfs.state.cursor import Cursor
from mdevfs.state.refusal import BadState

NAME, VERSION = "ram", 4
ZERO, SIZES, PAGE, END, CONTINUE = 0x02, 0x04, 0x08, 0x10, 0x20
KNOWN = ZERO | SIZES | PAGE | END | CONTINUE
MAX_BLOCKS = 4096


def walk(cursor: Cursor, page_size: int, blocks: dict[str, int]) -> None:
    """Passes over one part, and notes the blocks' sizes. Raises BadState for what it does not know (compression, or
    memory that goes another way), where nothing tells how long it is."""
    while True:
        at = cursor.at
        word = cursor.number(8)
        flags, address = word & (page_size - 1), word & -page_size
        if flags & ~KNOWN or not flags & (ZERO | SIZES | PAGE | END):
            rule = f"this form of the guest's memory, with flags {flags:#x}, is not known"
            raise BadState("state-opaque", rule=rule, device=NAME, offset=at)
        if flags & SIZES:
            _sizes(cursor, address, blocks)
        if flags & (ZERO | PAGE) and not flags & CONTINUE:
            cursor.skip(cursor.number(1))
        if flags & (ZERO | PAGE):
            cursor.skip(1 if flags & ZERO else page_size)
        if flags & END:
            return


def _sizes(cursor: Cursor, total: int, blocks: dict[str, int]) -> None:
    while total > 0:
        at = cursor.at
        name, size = cursor.name(cursor.number(1)), cursor.number(8)
        if not size or len(blocks) >= MAX_BLOCKS:
            rule = f"more than {MAX_BLOCKS} blocks of memory" if size else "a block of memory has no bytes"
            raise BadState("state-opaque", rule=rule, device=NAME, field=name, offset=at)
        blocks[name] = size
        total -= size
