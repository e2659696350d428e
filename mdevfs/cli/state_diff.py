"""`mdevfs state diff A B`."""

from __future__ import annotations

import json as json_
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from mdevfs.cli.output import Json
from mdevfs.cli.streams import complain_of, contents, read
from mdevfs.errors import EXIT_NO, EXIT_YES, InputError, escape

if TYPE_CHECKING:
    from mdevfs.state.believe import Stream
    from mdevfs.state.differences import Difference

EXAMPLE = """\b
Examples:
  mdevfs state diff before.mig after.mig
  mdevfs state save /mnt/b/bus/mdev/devices/UUID -o - | mdevfs state diff --layout refused.mig -"""


def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="A stream; - for standard input.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another one; - for standard input.")],
    layout: Annotated[
        bool, typer.Option("--layout", help="Only what is made otherwise: versions, fields, subsections, sizes.")
    ] = False,
    json: Json = False,
) -> int:
    """Say in which devices and fields two streams differ.

    Both values and offsets are given; what only one of them has is explained. Both streams are believed, as by show.
    The guest's memory is not compared.

    Exit code: 0 they hold the same, 1 they differ, or not all of them could be read, 2 wrong use.
    """
    from mdevfs.state.differences import differences

    if a == b == "-":
        raise InputError("only one of A and B can be standard input")
    with contents(a) as data_a, contents(b) as data_b:
        streams = read(a, data_a), read(b, data_b)
        found = (one for one in differences(*streams) if not layout or one.kind not in ("value", "machine"))
        number = _print(found, streams, json)
    for name, stream in zip((a, b), streams, strict=True):
        stream.notes.clear()  # those are for show
        complain_of(name, stream)
    return EXIT_NO if number or any(stream.problems for stream in streams) else EXIT_YES


def _print(found: Iterator[Difference], streams: tuple[Stream, Stream], json: bool) -> int:
    """One difference after the other, however many; how many there were."""
    import attrs

    number = 0
    if json:
        print('{"schema": 1, "differences": [', end="")
    for number, one in enumerate(found, 1):
        if json:
            print(("," if number > 1 else "") + "\n  " + json_.dumps(attrs.asdict(one)), end="")
        else:
            print("\n".join(lines(one)))
    if json:
        complete = not any(stream.problems for stream in streams)
        print(f'\n], "same": {json_.dumps(complete and not number)}, "complete": {json_.dumps(complete)}}}')
    elif not number:
        print("no difference")
    return number


def lines(one: Difference) -> Iterator[str]:
    """A difference for people: where, and both sides."""
    where = "/".join(part for part in (one.device, one.field) if part) or "configuration"
    what = "" if one.kind == "value" else f" ({one.kind})"
    yield f"{escape(where)}{what}"
    for side, value, at in (("A", one.a, one.offset_a), ("B", one.b, one.offset_b)):
        if value is None:
            yield f"  {side}: not there"
        else:
            yield f"  {side}: {escape(value)}" + (f", at offset {at}" if at is not None else "")
