"""Vendor drivers as commands are given them: by name, or by file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mdevfs.errors import InputError, escape

if TYPE_CHECKING:
    from mdevfs.vendor.loader import Found


def find(name: str) -> Found:
    """The installed driver of this name, or the only one in this file. Raises InputError with the near miss."""
    from mdevfs.host.mistakes import near_miss
    from mdevfs.vendor.loader import installed, load_file, load_installed

    if "/" in name or name.endswith(".py"):
        drivers = list(load_file(Path(name)).values())
        if len(drivers) == 1:
            return drivers[0]
        known = ", ".join(one.driver.name for one in drivers) or "none that loads"
        raise InputError(f"{name} holds not one driver but {len(drivers)}: {known}")
    found = load_installed(name)
    if found is not None:
        return found
    names = installed()
    if name in names:
        raise InputError(f"vendor driver {escape(name)} does not load: the warning says why")
    raise InputError(f'there is no vendor driver "{escape(name)}"{near_miss(name, names)}')
