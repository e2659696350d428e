"""The catalogue: one page for each code that a verdict's reason can carry. The built-in pages are in BUILT_IN."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path

from attrs import field, frozen, validators

from mdevfs.errors import InputError

CODE = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*\Z")
SIDES = ("source", "target", "both")

BUILT_IN = [Path(__file__).with_name(f"catalogue{part}.toml") for part in ("", "_create", "_state", "_check")]


@frozen
class Page:
    """What a code means, an example with real values, the side to mend, how, and where the rule comes from.

    `code` is lower-case words joined by `-`; `side` is `source`, `target` or `both`. Raises ValueError otherwise.
    """

    code: str = field(validator=validators.matches_re(CODE))
    title: str
    what: str
    example: str
    side: str = field(validator=validators.in_(SIDES))
    mend: str
    source: str


def load() -> dict[str, Page]:
    """The built-in pages by code, in the catalogue's order."""
    tables: dict[str, dict[str, str]] = tomllib.loads("".join(path.read_text(encoding="utf-8") for path in BUILT_IN))
    return {code: Page(code, **{key: text.strip() for key, text in table.items()}) for code, table in tables.items()}


def merge(pages: Iterable[Page]) -> dict[str, Page]:
    """The built-in pages and those that vendor drivers bring.

    Raises InputError for every code that would have two different pages.
    """
    merged = load()
    clashes = []
    for page in pages:
        if merged.setdefault(page.code, page) != page:
            titles = f'"{merged[page.code].title}" and "{page.title}"'
            clashes.append(f"catalogue: the code {page.code} has two pages: {titles}")
    if clashes:
        raise InputError(clashes)
    return merged
