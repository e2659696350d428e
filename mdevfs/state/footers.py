"""Where sections end, for a reader that cannot trust what a stream says of it."""

from __future__ import annotations

import struct
from collections.abc import Container

from mdevfs.state.cursor import Data
from mdevfs.state.stream import COMMAND, END, EOF, FOOTER, FULL, PART, START

SIZE = 5
MAX_COMMAND = 0x20


class Footers:
    """The footers of the sections in `data` up to `end`; `whole`: the description follows there. `there`: whether
    this stream has footers, None while nobody knows (machine types before 2.4 sent none)."""

    def __init__(self, data: Data, end: int, whole: bool, open_: Container[int]) -> None:
        self.data = data
        self.end = end
        self.whole = whole
        self.open = open_  # the numbers of sections that have begun
        self.there: bool | None = None

    def find(self, number: int, at: int) -> int:
        """The next footer of this section behind which something can begin; -1: none."""
        mark = struct.pack(">BI", FOOTER, number)
        while self.there is not False and (at := self.data.find(mark, at, self.end)) >= 0:
            if self.could_begin(at + SIZE):
                return at
            at += 1
        return -1

    def could_begin(self, at: int) -> bool:
        """Whether a section, or the end mark, could be here; of a stream that is cut short, nothing more."""
        head = self.data[at : min(at + SIZE, self.end)]
        if not head or head[0] == EOF:
            return at + 1 == self.end or not self.whole
        if len(head) < SIZE:
            return False
        if head[0] in (FULL, START):
            length = self.data[at + SIZE : at + SIZE + 1]
            name = self.data[at + SIZE + 1 : at + SIZE + 1 + length[0]] if length else b""
            return bool(name) and name.isascii() and name.decode("ascii").isprintable()
        if head[0] == COMMAND:
            return 0 < int.from_bytes(head[1:3], "big") < MAX_COMMAND
        return head[0] in (PART, END) and int.from_bytes(head[1:], "big") in self.open
