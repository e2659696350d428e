"""Bytes that come in pieces of any size, read by generators that wait for more.

A reader is a generator: it takes what it needs from a `Pull` with `yield from`, and yields where that has not come
yet. `Feed` runs one: whoever has bytes calls `feed`, whoever has the last one calls `end`.
"""

from __future__ import annotations

import errno
from collections.abc import Generator
from typing import Generic, TypeVar

from mdevfs.state.memory import Memory
from mdevfs.state.refusal import BadState

T = TypeVar("T")
Reading = Generator[None, None, T]


class Pull:
    """What has come and was not taken yet; `offset` counts what was taken since the first byte."""

    __slots__ = ("_at", "_data", "offset")

    def __init__(self) -> None:
        self._data = memoryview(b"")
        self._at = 0
        self.offset = 0

    def push(self, data: bytes | bytearray | memoryview) -> None:
        """More bytes; they must not change until the reader has yielded. What it left of the piece before stays."""
        left = self._data[self._at :]
        self._data = memoryview(bytes(left) + bytes(data)) if len(left) else memoryview(data)
        self._at = 0

    @property
    def waiting(self) -> int:
        """How many bytes have come that nobody took."""
        return len(self._data) - self._at

    def take(self, size: int) -> Reading[bytes]:
        """The next `size` bytes; for what fits in the head: a reader that wants many bytes fills a buffer."""
        while self.waiting < size:
            yield
        piece = bytes(self._data[self._at : self._at + size])
        self._at += size
        self.offset += size
        return piece

    def fill(self, buffer: bytearray | Memory) -> Reading[None]:
        """Fills the whole buffer, piece by piece as they come."""
        view, done = memoryview(buffer), 0
        while done < len(view):
            piece = self._data[self._at : self._at + len(view) - done]
            if not len(piece):
                yield
                continue
            view[done : done + len(piece)] = piece
            done += len(piece)
            self._at += len(piece)
            self.offset += len(piece)

    def skip(self, size: int) -> Reading[None]:
        """Passes over bytes, however many."""
        while size:
            step = min(size, self.waiting)
            if not step:
                yield
                continue
            self._at += step
            self.offset += step
            size -= step

    def back(self, data: bytes) -> None:
        """Puts back what was taken last."""
        if self._at >= len(data):  # all of it is of the piece that is here
            self._at -= len(data)
        else:
            self._data = memoryview(data + bytes(self._data[self._at :]))
            self._at = 0
        self.offset -= len(data)

    def keep(self) -> None:
        """Copies what is left of the caller's piece, which may change from here on."""
        self._data = memoryview(bytes(self._data[self._at :]))
        self._at = 0


class Feed(Generic[T]):
    """A reader under way. After it has failed, every call fails alike."""

    def __init__(self, pull: Pull, reading: Reading[T]) -> None:
        self.pull = pull
        self._reading = reading
        self._error: Exception | None = None
        self.result: T | None = None
        self.done = False
        self._step()

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Hands on a piece. Raises BadState as soon as the bytes so far cannot be right."""
        if self._error is not None:
            raise self._error
        self.pull.push(data)
        if not self.done:
            self._step()
        self.pull.keep()

    def _step(self) -> None:
        try:
            next(self._reading)
        except StopIteration as stop:
            self.done = True
            self.result = stop.value
        except Exception as error:
            self._error = error
            raise

    def end(self) -> T:
        """What was read. Raises BadState (EIO) when bytes are missing."""
        if self._error is not None:
            raise self._error
        if not self.done:
            rule = "the device state ends too early"
            error = BadState("state-cut-short", errno.EIO, rule=rule, offset=self.pull.offset + self.pull.waiting)
            self._error = error
            self._reading.throw(error)  # who waits for bytes knows the field's name
            raise error
        return self.result  # type: ignore[return-value]
