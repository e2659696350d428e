"""`mdevfs explain [CODE]`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mdevfs.cli.output import Json, print_block, print_json
from mdevfs.cli.table import print_table
from mdevfs.errors import InputError, escape

if TYPE_CHECKING:
    from mdevfs.migration.catalogue import Page

app = typer.Typer(add_completion=False)


@app.command(epilog="Example: mdevfs explain value-differs")
def explain(
    code: Annotated[str | None, typer.Argument(metavar="[CODE]", help="A reason's code; none lists them all.")] = None,
    json: Json = False,
) -> None:
    """Say what a reason's code means, which side to mend, and how; without CODE, list all codes."""
    import attrs

    pages = catalogue()
    if code is None:
        if json:
            print_json({"schema": 1, "pages": [attrs.asdict(page) for page in pages.values()]})
        else:
            print_table((page.code, page.title) for page in pages.values())
    elif code not in pages:
        raise InputError(unknown(code, pages))
    elif json:
        print_json({"schema": 1, **attrs.asdict(pages[code])})
    else:
        print_page(pages[code])


def catalogue() -> dict[str, Page]:
    """The built-in pages and those of the installed vendor drivers."""
    from mdevfs.migration.catalogue import merge
    from mdevfs.vendor.loader import pages

    return merge(pages())


def print_page(page: Page) -> None:
    print(f"{page.code}: {page.title}")
    print_block("\nMeans", page.what)
    print_block("\nExample", page.example)
    print_block(f"\nMend ({'either side' if page.side == 'both' else 'at the ' + page.side})", page.mend)
    print_block("\nRule", page.source)


def unknown(code: str, pages: dict[str, Page]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(code, pages, 1)
    hint = f"did you mean {near[0]}?" if near else "mdevfs explain lists all codes"
    return f"no code {escape(code)} in the catalogue; {hint}"
