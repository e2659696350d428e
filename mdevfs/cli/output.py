"""What commands print: JSON for programs, plain lines for people. No markup is ever interpreted."""

from __future__ import annotations

import json
from typing import Annotated

import typer

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
