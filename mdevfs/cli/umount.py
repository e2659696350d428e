"""`mdevfs umount DIR`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)


@app.command(epilog="Example: mdevfs umount /tmp/sys")
def umount(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where a host is mounted.")],
    lazy: Annotated[bool, typer.Option("--lazy", "-l", help="Detach now, even while somebody works in it.")] = False,
) -> None:
    """End a mounted host. A directory left behind by a killed server is cleaned up as well."""
    from mdevfs.errors import InputError
    from mdevfs.mount.places import mounted_at, unmount

    directory = directory.absolute()
    there = mounted_at(directory)
    if there is None:
        raise InputError(f"nothing is mounted on {directory}")
    if not there.ours:
        raise InputError(f"{directory} is a mount of {there.fstype} {there.source}, not of mdevfs: left alone")
    unmount(directory, lazy)
