"""`mdevfs state`: device state, in streams and in descriptions."""

from __future__ import annotations

import typer

from mdevfs.cli import (
    state_check,
    state_describe,
    state_diff,
    state_emit,
    state_load,
    state_save,
    state_show,
)

app = typer.Typer(add_completion=False, epilog="Example: mdevfs state show state.mig")


@app.callback()
def state() -> None:
    """Device state: make, show, compare, save and load it, and check its descriptions."""


app.command("save", epilog=state_save.EXAMPLE)(state_save.save)
app.command("load", epilog=state_load.EXAMPLE)(state_load.load)
app.command("emit", epilog=state_emit.EXAMPLE)(state_emit.emit)
app.command("show", epilog=state_show.EXAMPLE)(state_show.show)
app.command("diff", epilog=state_diff.EXAMPLE)(state_diff.diff)
app.command("describe", epilog=state_describe.EXAMPLE)(state_describe.describe)
app.command("check", epilog=state_check.EXAMPLE)(state_check.check)
