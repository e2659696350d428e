"""What is left of a host file once its mistakes are taken out, so that the rest can be checked in the same breath."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from mdevfs.host.schema import HostFile

Location = tuple[str | int, ...]
Table = dict[str, Any]


def salvage(document: Table, mistakes: ValidationError) -> tuple[HostFile, list[int]]:
    """A valid file of what `mistakes` leave of `document`, and its devices' places in the original.

    A bad key goes; a device without a driver goes as a whole; one bad mdev takes its device's mdevs along.
    """
    places = list(range(len(document["device"]))) if isinstance(document.get("device"), list) else []
    error: ValidationError | None = mistakes
    while error is not None:
        _remove(document, places, [tuple(one["loc"]) for one in error.errors(include_url=False)])
        try:
            return HostFile.model_validate(document), places
        except ValidationError as again:
            error = again
    raise AssertionError("unreachable")


def _remove(document: Table, places: list[int], locations: Iterable[Location]) -> None:
    gone: set[int] = set()
    for location in locations:
        match location:
            case ("device", int() as index, str() as key, *_) if key != "driver":
                document["device"][index].pop(key, None)
            case ("device", int() as index, *_):
                gone.add(index)
            case ("host", str() as key, *_):
                document["host"].pop(key, None)
            case (str() as key, *_):
                document.pop(key, None)
    for index in sorted(gone, reverse=True):
        del document["device"][index], places[index]
