"""`mdevfs doctor`."""

from __future__ import annotations

import typer

from mdevfs.cli.output import Json

app = typer.Typer(add_completion=False)


@app.command(epilog="Example: mdevfs doctor")
def doctor(json: Json = False) -> int:
    """Say what this machine lacks to mount hosts, and the package or setting that mends it.

    Exit code: 0 when it can, 3 when it cannot.
    """
    from mdevfs.cli.doctor import doctor as diagnose

    return diagnose(json)
