"""`mdevfs state load FILE DEVICE`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mdevfs.cli.progress import progress
from mdevfs.cli.streams import contents, refused
from mdevfs.client.device import PIECE, MoveFailed
from mdevfs.client.state import load as load_state
from mdevfs.errors import EXIT_YES

if TYPE_CHECKING:
    from mdevfs.state.cursor import Data

EXAMPLE = "Example: mdevfs state load state.mig /mnt/b/bus/mdev/devices/UUID"


def load(
    file: Annotated[str, typer.Argument(metavar="FILE", help="What save or emit wrote; - for standard input.")],
    device: Annotated[Path, typer.Argument(metavar="DEVICE", help="An mdev by its path.")],
) -> int:
    """Load a saved state into a device, which then runs with it.

    Whatever fails, the device is as it was: it reads the whole state into a new one, and takes that over at the end.

    Exit code: 0 loaded, 1 refused, 2 wrong use, 3 not permitted.
    """
    with contents(file) as data, progress() as told:
        try:
            load_state(_pieces(data), device, told)
        except MoveFailed as error:
            return refused(error)
    return EXIT_YES


def _pieces(data: Data) -> Iterator[bytes]:
    begin, end = _bare(data) or (0, len(data))
    for at in range(begin, end, PIECE):
        yield data[at : min(at + PIECE, end)]


def _bare(data: Data) -> tuple[int, int] | None:
    """Where the body of a bare section begins and ends; None: the device takes the stream as it is."""
    from mdevfs.state import believe, vmdesc

    document = vmdesc.read(data)
    if document is None or not any(one.layout for one in document.devices.values()):
        return None
    stream = believe.read(data)
    bodies = [(one.body, one.body + one.size) for one in stream.sections if one.device and one.device.layout]
    return bodies[0] if len(bodies) == 1 and not stream.problems else None
