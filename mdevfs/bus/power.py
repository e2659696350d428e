"""The `power/` directory of a device without runtime power management (drivers/base/power/sysfs.c)."""

from __future__ import annotations

import errno
from typing import NoReturn

from mdevfs.errors import KernelError
from mdevfs.sysfs.entries import Attribute, Entry, Folder
from mdevfs.sysfs.parse import word


def _fixed(text: str) -> Attribute:
    return Attribute(lambda: text + "\n")


def _no_autosuspend(data: bytes = b"") -> NoReturn:
    # autosuspend_delay_ms_show and _store: -EIO unless the driver uses autosuspend.
    raise KernelError(errno.EIO)


def _choice(first: str, *others: str) -> Attribute:
    """A word out of a list; it keeps what was written while the directory's content lives."""
    current = [first]

    def store(data: bytes) -> None:
        if word(data) not in (first, *others):
            raise KernelError(errno.EINVAL)
        current[0] = word(data)

    return Attribute(lambda: current[0] + "\n", store)


def power_entries(
    control: str = "auto",
    status: str = "unsupported",
    enabled: str = "disabled",
    is_async: str = "disabled",
) -> dict[str, Entry]:
    """The nine files that every device has (golden: tree_before.json)."""
    return {
        "async": _choice(is_async, *{"enabled", "disabled"} - {is_async}),
        "autosuspend_delay_ms": Attribute(_no_autosuspend, _no_autosuspend),
        "control": _choice(control, *{"auto", "on"} - {control}),
        "runtime_active_kids": _fixed("0"),
        "runtime_active_time": _fixed("0"),
        "runtime_enabled": _fixed(enabled),
        "runtime_status": _fixed(status),
        "runtime_suspended_time": _fixed("0"),
        "runtime_usage": _fixed("0"),
    }


def power_folder(*texts: str) -> Folder:
    """`power_entries` as a folder."""
    return Folder(power_entries(*texts))
