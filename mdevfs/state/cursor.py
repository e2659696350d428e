"""A place in bytes that are all there, for readers that look ahead."""

from __future__ import annotations

import errno
import mmap
import struct

from mdevfs.state.refusal import BadState

Data = bytes | mmap.mmap


class Cursor:
    """Takes numbers and texts from `at` on, never beyond `end`. Raises BadState (state-cut-short) where it would."""

    __slots__ = ("at", "data", "end")

    def __init__(self, data: Data, at: int, end: int) -> None:
        self.data = data
        self.at = at
        self.end = end

    def take(self, size: int) -> bytes:
        """The next bytes."""
        self.need(size)
        self.at += size
        return self.data[self.at - size : self.at]

    def skip(self, size: int) -> None:
        """Passes over bytes."""
        self.need(size)
        self.at += size

    def need(self, size: int) -> None:
        """Says whether so many bytes are there."""
        if size > self.end - self.at:
            rule = f"{size} bytes are wanted here, {self.end - self.at} are left"
            raise BadState("state-cut-short", errno.EIO, rule=rule, offset=self.end)

    def number(self, size: int) -> int:
        """A big-endian number."""
        return int.from_bytes(self.take(size), "big")

    def unpack(self, form: str) -> tuple[int, ...]:
        """Several big-endian numbers."""
        return struct.unpack(form, self.take(struct.calcsize(form)))

    def name(self, length: int) -> str:
        """A text; bytes that are no UTF-8 are escaped."""
        return self.take(length).decode("utf-8", "backslashreplace")

    def peek(self) -> int:
        """The next byte; -1 at the end."""
        return self.data[self.at] if self.at < self.end else -1
