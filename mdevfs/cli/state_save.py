"""`mdevfs state save DEVICE`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import IO, Annotated

import typer

from mdevfs.cli.output import whole_file
from mdevfs.cli.progress import progress
from mdevfs.cli.streams import refused
from mdevfs.client.device import MoveFailed, device_place
from mdevfs.client.handshake import OpenRefused, read_string
from mdevfs.client.state import save as save_state
from mdevfs.errors import EXIT_YES

EXAMPLE = "Example: mdevfs state save /mnt/a/bus/mdev/devices/UUID -o state.mig"
MAGIC = b"QEVM"
MAX_BARE = 64 << 20  # bytes of bare state that are described; more stay as they are


def save(
    device: Annotated[Path, typer.Argument(metavar="DEVICE", help="An mdev by its path.")],
    output: Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="- for standard output.")],
) -> int:
    """Save a device's state. The device stands still meanwhile, and goes on afterwards.

    The file appears once it is whole. A kernel driver's bare state gets the framing and the description of a stream
    where its driver is here, else it is saved as it is; load takes both.

    Exit code: 0 saved, 1 refused, 2 wrong use, 3 not permitted.
    """
    try:
        with whole_file(output) as file, progress() as told:
            taker = _Taker(file)
            save_state(device, taker.take, told)
            taker.finish(device)
    except MoveFailed as error:
        return refused(error)
    return EXIT_YES


class _Taker:
    """Writes a stream as it comes, and keeps bare state to the end, to be described."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.kept: bytearray | None = bytearray()
        self.bare = False

    def take(self, data: bytes) -> None:
        """The next piece."""
        if self.kept is None:
            self.file.write(data)
            return
        self.kept += data
        self.bare = self.bare or (len(self.kept) >= len(MAGIC) and not self.kept.startswith(MAGIC))
        if len(self.kept) >= len(MAGIC) and (not self.bare or len(self.kept) > MAX_BARE):
            self.file.write(self.kept)
            self.kept = None

    def finish(self, device: Path) -> None:
        """All of it has come."""
        if self.kept is not None:
            data = bytes(self.kept)
            self.file.writelines(_wrapped(device, data) or [data])


def _wrapped(path: Path, data: bytes) -> Sequence[bytes | memoryview] | None:
    import trio

    from mdevfs.host.bare import wrap

    place = device_place("DEVICE", path)
    try:
        string = read_string(place.attribute).text
    except (OSError, OpenRefused):
        return None
    return trio.run(wrap, place.type_id, string, data) if place.type_id is not None else None
