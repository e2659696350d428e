"""Devices of a host in this process: saved, loaded, driven on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mdevfs.mdev.mdev import Mdev
from mdevfs.state import body, stream
from mdevfs.state.pull import Feed, Pull
from tests.unit.handshakes import UUID, end

SEEDS = range(8)


async def device(text: str, type_id: str, arguments: str = "") -> Mdev:
    """The one mdev of a host of this host.toml."""
    made = await end(text, type_id, arguments)
    return next(one for parent in made.host.mdev.parents.values() for one in parent.mdevs if one.name == UUID)


def exercise(mdev: Mdev, seed: int) -> Mdev:
    """The same mdev, driven."""
    mdev.parent.driver.exercise(mdev, seed)
    return mdev


def fingerprint(mdev: Mdev) -> Mapping[str, object]:
    """What a guest would see of it."""
    return mdev.parent.driver.fingerprint(mdev)


def save(mdev: Mdev, machine: str = "pc") -> bytes:
    """Its state as migration data: a stream, or the bytes alone where the description is bare."""
    section = mdev.device_state.save()
    chunks = section.body if mdev.parent.description.bare else stream.write(machine, [section])
    return b"".join(chunks)


def load(mdev: Mdev, data: bytes, step: int = 1 << 20, machine: str = "pc") -> Mdev:
    """The mdev with that state, given in pieces of `step` bytes. Raises BadState; the mdev is then what it was."""
    place = mdev.device_state.place()
    if mdev.parent.description.bare:
        view, pull = place.begin(mdev.parent.description.version), Pull()
        feed = Feed(pull, body.load(place.description, view, pull))
        for at in range(0, len(data), step):
            feed.feed(data[at : at + step])
        feed.end()
        mdev.device_state.registers = view.state
        return mdev
    loader = stream.Loader([place], machine)
    for at in range(0, len(data), step):
        loader.feed(data[at : at + step])
    loader.finish()
    assert place.loaded is not None
    mdev.device_state.registers = place.loaded.state
    return mdev


def values(state: Any, field: str) -> object:
    """What a path of attributes and list places gives: "header.nr_ports"."""
    for name in field.split("."):
        state = state[int(name)] if name.isdecimal() else getattr(state, name)
    return state
