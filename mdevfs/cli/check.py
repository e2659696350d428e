"""`mdevfs check SOURCE TARGET`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from mdevfs.cli.output import Json, print_json
from mdevfs.client import Answer, Reason, SourceString
from mdevfs.client import check as ask
from mdevfs.client.text import PAGE
from mdevfs.errors import EXIT_NO, EXIT_YES, InputError, escape

app = typer.Typer(add_completion=False)

EXAMPLE = """\b
Example:
  mdevfs check /mnt/a/bus/mdev/devices/UUID /mnt/b/class/mdev_bus/mtty/mdev_supported_types/mtty-1
  ssh other cat /sys/bus/mdev/devices/UUID/migration_version | mdevfs check - /mnt/b/bus/mdev/devices/UUID"""


@app.command(epilog=EXAMPLE)
def check(
    paths: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE TARGET", help="An mdev, a type, or a physical device, each by its path."),
    ],
    string: Annotated[str | None, typer.Option(metavar="TEXT", help="The source's string, instead of SOURCE.")] = None,
    json: Json = False,
) -> int:
    """Say whether the source device could migrate to the target, and why not.

    Reads migration_version at the source and writes it at the target. A SOURCE of - reads the string from
    standard input. Where a type is named, the types must be the same.

    Exit code: 0 compatible, 1 incompatible, 2 wrong use, 3 not permitted.
    """
    answer = ask(_source(paths, string), Path(paths[-1]))
    if json:
        print_json(answer.as_dict())
    else:
        print("\n".join(lines(answer)))
    return EXIT_YES if answer.compatible else EXIT_NO


def _source(paths: list[str], string: str | None) -> Path | SourceString:
    expected = 1 if string is not None else 2
    if len(paths) != expected:
        what = "with --string, TARGET alone" if string is not None else "SOURCE and TARGET"
        raise InputError(f"check takes {what}: {len(paths)} given; see mdevfs check --help")
    if string is not None:
        return SourceString.from_text(string)
    if paths[0] == "-":
        return SourceString(sys.stdin.buffer.read(PAGE + 1))
    return Path(paths[0])


def lines(answer: Answer) -> Iterator[str]:
    """The answer for people. All that a tree said is escaped."""
    yield "compatible" if answer.compatible else "incompatible"
    yield from reason_lines(answer.reasons, answer.notes)


def reason_lines(reasons: Sequence[Reason], notes: Sequence[str] = ()) -> Iterator[str]:
    """Every reason with its mend, and where to read more."""
    for reason in reasons:
        yield f"  {sentence(reason)}"
        if mend := reason.mend or _page_mend(reason.code):
            yield f"    mend ({reason.side}): {escape(mend)}"
    for note in notes:
        yield f"  note: {note}"
    if reasons:
        yield f"  more: mdevfs explain {escape(reasons[0].code)}"


def sentence(reason: Reason) -> str:
    """Code, parameter, rule and both sides' values, on one line."""
    about = f"{escape(reason.parameter)}: " if reason.parameter else ""
    given = (("source", reason.source), ("target", reason.target))
    values = ", ".join(f'{side} "{escape(value)}"' for side, value in given if value is not None)
    return f"{escape(reason.code)}: {about}{escape(reason.rule)}" + (f" ({values})" if values else "")


def _page_mend(code: str) -> str | None:
    from mdevfs.migration.catalogue import load

    page = load().get(code)
    return " ".join(page.mend.split()) if page else None
