"""What commands print: JSON for programs, plain lines for people. No markup is ever interpreted."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated

import typer

from mdevfs.errors import InputError, escape

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
"""The option of every command that prints data."""


def print_json(data: object) -> None:
    """One JSON object, in ASCII."""
    print(json.dumps(data, indent=2))


def print_block(title: str, text: str) -> None:
    """A title, and the text's lines indented below it."""
    print(f"{title}:")
    for line in text.splitlines():
        print(f"    {line}".rstrip())


@contextmanager
def whole_file(name: str) -> Iterator[IO[bytes]]:
    """A file to write, which takes its name once it is whole; standard output for "-". Raises InputError where it
    cannot be written."""
    if name == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    path = Path(name)
    try:
        if path.exists() and not path.is_file():  # a pipe, a device
            with path.open("wb") as file:
                yield file
            return
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name[:64]}.", delete=False) as new:
            try:
                yield new
                new.flush()
                os.fchmod(new.fileno(), 0o666 & ~_umask())
                Path(new.name).replace(path)
            except BaseException:
                Path(new.name).unlink()
                raise
    except OSError as error:
        raise InputError(f"{escape(name)}: {error.strerror}") from None


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
