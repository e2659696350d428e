"""Device state from one device of this process to another, without a mount."""

from __future__ import annotations

import errno

from mdevfs.agreement.configurations import Configuration
from mdevfs.errors import DriverFault, MdevfsError
from mdevfs.state import body, stream
from mdevfs.state.pull import Feed, Pull
from mdevfs.state.refusal import BadState


def save(source: Configuration) -> bytes:
    """The bytes of the state as it is: a stream, or the body alone of bare state. The source's string is not in it, so
    that a load is judged by the bytes. Raises MdevfsError."""
    try:
        section = source.mdev.device_state.save()
    except MdevfsError:
        raise
    except Exception as error:
        raise DriverFault(f"the state cannot be saved: {error!r}") from error
    if source.mdev.parent.description.bare:
        return b"".join(section.body)
    return b"".join(stream.write("", [section]))


def load(target: Configuration, data: bytes) -> object:
    """A new state for the target. Raises MdevfsError: BadState, or what the driver raised."""
    place = target.mdev.device_state.place()
    try:
        if target.mdev.parent.description.bare:
            return _load_bare(place, data)
        loader = stream.Loader([place])
        loader.feed(data)
        loader.finish()
    except MdevfsError:
        raise
    except Exception as error:
        raise DriverFault(f"the load raised {error!r}") from error
    assert place.loaded is not None
    return place.loaded.state


def _load_bare(place: stream.Place, data: bytes) -> object:
    view, pull = place.begin(place.description.version), Pull()
    feed = Feed(pull, body.load(place.description, view, pull))
    feed.feed(data)
    feed.end()
    if pull.waiting:
        raise BadState("state-too-long", errno.ENOMEM, rule="there is more data than the device takes")
    return view.state
