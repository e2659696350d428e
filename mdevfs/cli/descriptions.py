"""Descriptions of device state as commands are given them: a vendor driver's, or a dump's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import frozen

from mdevfs.cli.drivers import find
from mdevfs.errors import InputError

if TYPE_CHECKING:
    from mdevfs.state.description import VMState
    from mdevfs.state.dump import Dump


@frozen
class OfDriver:
    """A driver's description and the version of it that is wanted; `word` is what was said."""

    word: str
    driver: str
    description: VMState
    version: int


def of_driver(word: str, settings: Sequence[str] = ()) -> OfDriver:
    """What "NAME", "NAME@VERSION" or a driver file in place of the name means, of devices with these settings
    ("NAME=VALUE"). Raises InputError."""
    from mdevfs.host.single import settings_of
    from mdevfs.vendor.guard import GuardedDriver

    name, at, number = word.rpartition("@")
    if not at or not number.isdecimal():
        name, number = word, ""
    driver = find(name).driver
    hooks = GuardedDriver(driver())
    if not hooks.migrates:
        raise InputError(f"driver {driver.name} does not migrate: its devices have no state to describe")
    wrong = list[str]()
    made = settings_of(driver, settings, wrong)
    if wrong and (settings or driver.state is None):
        raise InputError(f"driver {driver.name}: {mistake}" for mistake in wrong)
    description = hooks.device_state(made) if made is not None or driver.state is None else driver.state
    return OfDriver(word, driver.name, description, int(number) if number else description.version)


def all_of(words: Iterable[str], settings: Sequence[str] = ()) -> list[OfDriver]:
    """Raises InputError with the mistakes of all."""
    found, mistakes = [], list[str]()
    for word in words:
        try:
            found.append(of_driver(word, settings))
        except InputError as error:
            mistakes += error.mistakes
    if mistakes:
        raise InputError(mistakes)
    return found


def dump_of(found: Sequence[OfDriver]) -> dict[str, Any]:
    """The JSON of a dump: each by its description's name, as sections have it, or where that is not enough by what
    was said."""
    from mdevfs.state.describe import dump

    names = Counter(one.description.name for one in found)
    return dump(
        {
            one.description.name if names[one.description.name] == 1 else one.word: (one.description, one.version)
            for one in found
        }
    )


def read(word: str) -> Dump:
    """A dump's file, or a vendor driver: by its name, by a driver file, each with @VERSION or without. Raises
    InputError."""
    import json

    from mdevfs.state import dump

    path = word.rpartition("@")[0] or word
    if not path.endswith(".py") and ("/" in word or word.endswith(".json") or Path(word).is_file()):
        return dump.read(word)
    return dump.parse(json.dumps(dump_of([of_driver(word)])).encode(), word)
