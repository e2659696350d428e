"""Bare device state in a stream: a kernel driver's bytes with the framing and the description that they lack."""

from __future__ import annotations

from collections.abc import Sequence

from mdevfs.errors import MdevfsError
from mdevfs.host.single import Wanted, device
from mdevfs.mdev.sessions import BareLoader
from mdevfs.state import body, stream
from mdevfs.state.fields import Chunk
from mdevfs.vendor.loader import installed, load_installed


def driver_of(type_id: str) -> str | None:
    """The installed driver whose types are called so; of several the one with the longest name."""
    return max((name for name in installed() if type_id.startswith(f"{name}-")), key=len, default=None)


async def wrap(type_id: str, string: str, data: bytes) -> Sequence[Chunk] | None:
    """A stream with the state of a device of this type that says this string; None where its driver is not here, or
    knows the bytes otherwise: a description that is not true is worse than none."""
    name = driver_of(type_id)
    found = load_installed(name) if name is not None else None
    if found is None:
        return None
    try:
        mdev = await device(Wanted(found.driver, type_id, arguments=string.split(",")[1:]))
        if not mdev.parent.description.bare:
            return None
        place = mdev.device_state.place()
        loader = BareLoader(place)
        loader.feed(data)
        loader.finish()
    except MdevfsError:
        return None
    assert place.loaded is not None
    chunks, described = body.save(place.description, place.loaded)
    if b"".join(chunks) != data:
        return None
    described["migration_version"] = string
    return stream.write("", [stream.Section(place.name, place.description.version, chunks, described)])
