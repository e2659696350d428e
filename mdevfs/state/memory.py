"""Bytes of a large field, in large pages: a bytearray's are touched one small page after the other, at its making."""

from __future__ import annotations

import mmap

LARGE = 2 << 20  # bytes from which it is worth while: one large page


class Memory(mmap.mmap):
    """Zeros that are there once they are touched; indexed, sliced and compared as a bytearray of fixed length."""

    def __new__(cls, length: int) -> Memory:
        self = super().__new__(cls, -1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.madvise(mmap.MADV_HUGEPAGE)
        return self

    def __init__(self, length: int) -> None:
        """`length` bytes."""

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Memory | bytes | bytearray | memoryview):
            return NotImplemented
        return memoryview(self) == memoryview(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Memory({len(self)})"

    def copy(self) -> Memory:
        """Another with the same bytes."""
        other = Memory(len(self))
        memoryview(other)[:] = self
        return other


def zeros(length: int) -> bytearray | Memory:
    """So many bytes that can be changed."""
    if length < LARGE:
        return bytearray(length)
    try:
        return Memory(length)
    except OSError:  # a kernel without large pages
        return bytearray(length)
