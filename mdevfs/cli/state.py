"""`mdevfs state check`."""

from __future__ import annotations

import typer

from mdevfs.cli.state_check import EXAMPLE, check

app = typer.Typer(add_completion=False, epilog="Example: mdevfs state check old.json new.json")


@app.callback()
def state() -> None:
    """Device state: its descriptions, compared."""


app.command(epilog=EXAMPLE)(check)
