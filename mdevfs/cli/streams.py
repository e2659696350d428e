"""Streams as commands are given them: files, or standard input."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mdevfs.errors import InputError, escape

if TYPE_CHECKING:
    from mdevfs.client.device import MoveFailed
    from mdevfs.state.believe import Stream
    from mdevfs.state.cursor import Data
    from mdevfs.state.refusal import BadState


@contextmanager
def contents(name: str) -> Iterator[Data]:
    """All bytes of a file, of which only what is looked at is read; of standard input for "-". Raises InputError."""
    if name == "-":
        yield sys.stdin.buffer.read()
        return
    data = _open(name)
    try:
        yield data
    finally:
        if isinstance(data, mmap.mmap):
            data.close()


def _open(name: str) -> Data:
    try:
        with open(name, "rb") as file:
            try:
                return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except (ValueError, OSError):  # empty, or nothing that can be mapped
                return file.read()
    except OSError as error:
        raise InputError(f"{escape(name)}: {error.strerror}") from None


def read(name: str, data: Data) -> Stream:
    """The stream that a file holds, believed. Raises InputError where there is nothing to show."""
    from mdevfs.state import believe
    from mdevfs.state.refusal import BadState

    try:
        return believe.read(data)
    except BadState as error:
        raise InputError(f"{escape(name)}: {sentence(error)}") from None


def complain_of(name: str, stream: Stream) -> None:
    """What is wrong with a stream, and what a reader should know, on standard error."""
    from mdevfs.cli.main import complain

    complain(*(f"{escape(name)}: {sentence(problem)}" for problem in stream.problems))
    complain(*(f"{escape(name)}: note: {escape(note)}" for note in stream.notes))
    if stream.problems:
        complain(f"more: mdevfs explain {stream.problems[0].code}")


def sentence(problem: BadState) -> str:
    """Its code, and all that it says."""
    return f"{problem.code}: {problem.sentence()}"


def refused(error: MoveFailed) -> int:
    """Says on standard error why a device's state did not move, with the device's reasons; the exit code."""
    from mdevfs.cli.check import reason_lines
    from mdevfs.cli.main import complain

    complain(str(error))
    for line in reason_lines(error.reasons):
        print(line, file=sys.stderr)
    return error.exit_code
