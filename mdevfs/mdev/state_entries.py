"""The family `state` under an mdev: `mdevfs/in_use`, `migration_state`, `migration_data`, and the versions."""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import TYPE_CHECKING

from mdevfs.errors import KernelError, MdevfsError
from mdevfs.migration.verdict import Refused, verdict_of
from mdevfs.state.machine import RUNNING
from mdevfs.sysfs.entries import PAGE_SIZE, Attribute, ChannelFile, Entry
from mdevfs.sysfs.parse import kstrtobool, word

if TYPE_CHECKING:
    from mdevfs.mdev.mdev import Mdev


def state_entries(mdev: Mdev) -> Mapping[str, Entry]:
    """`in_use` of any mdev; the rest of one that migrates."""
    entries: dict[str, Entry] = {
        "in_use": Attribute(lambda: f"{int(mdev.in_use)}\n", lambda data: mdev.use(kstrtobool(data)))
    }
    if not mdev.parent.driver.migrates:
        return entries
    return entries | {
        "migration_state": ChannelFile(lambda access: mdev.device_state.migration.open_state(access), 0o644, PAGE_SIZE),
        "migration_data": ChannelFile(lambda access: mdev.device_state.migration.open(access)),
        "save_state_version": Attribute(lambda: f"{mdev.device_state.save_version}\n", _told(mdev, _save_with)),
        "blocked_state_versions": Attribute(lambda: f"{listed(mdev.blocked_versions)}\n", _told(mdev, _block)),
    }


def state_of(mdev: Mdev) -> str:
    """Where the mdev's state machine is; a device that no migration has touched runs."""
    return mdev.device_state.migration.state if mdev.has_device_state else RUNNING


def _told(mdev: Mdev, store: Callable[[Mdev, str], None]) -> Callable[[bytes], Awaitable[None] | None]:
    """A store whose refusals `mdevfs/last_verdict` tells."""

    def checked(data: bytes) -> None:
        text = word(data)
        try:
            refuse_while_moving(mdev)
            store(mdev, text)
        except MdevfsError as error:
            mdev.last_verdict = mdev.journal.record("parameter", mdev, text, verdict_of(error))
            raise

    return checked


def refuse_while_moving(mdev: Mdev) -> None:
    """Raises Refused (EBUSY) while the device's state is on its way."""
    if mdev.has_device_state and mdev.device_state.migration.busy:
        raise Refused(
            "state-moving",
            errno.EBUSY,
            rule=f"the device is in {state_of(mdev)}, its state is on its way",
            side="target",
            mend="write RUNNING to mdevfs/migration_state first, or wait for the migration to end",
        )


def _save_with(mdev: Mdev, text: str) -> None:
    description = mdev.parent.description
    if not text.isdecimal() or not description.takes(int(text)):
        held = str(mdev.device_state.save_version)
        raise _unknown(mdev, "save_state_version", text, held)
    mdev.device_state.save_version = int(text)


def _block(mdev: Mdev, text: str) -> None:
    try:
        versions = parsed(text)
    except KernelError:
        versions = None
    if versions is None or not all(map(mdev.parent.description.takes, versions)):
        raise _unknown(mdev, "blocked_state_versions", text, listed(mdev.blocked_versions))
    mdev.device_state.blocked = versions


def _unknown(mdev: Mdev, name: str, text: str, held: str) -> Refused:
    description = mdev.parent.description
    versions = f"{description.minimum} to {description.version}"
    return Refused(
        "state-version-unknown",
        rule=f"the device state has the versions {versions}",
        parameter=name,
        source=text,
        target=held,
        side="target",
        mend="write one of them" if name == "save_state_version" else "write a list of them such as 1,3-4, or nothing",
    )


def parsed(text: str) -> frozenset[int]:
    """A bitmap as a list, such as `1,3-4`, or nothing (lib/bitmap-str.c, bitmap_parselist). Raises KernelError."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or len(part) > 20:
            raise KernelError(errno.EINVAL)
        low, high = int(first), int(last or first)
        if not low <= high < low + 4096:
            raise KernelError(errno.EINVAL)
        found.update(range(low, high + 1))
    return frozenset(found)


def listed(numbers: Collection[int]) -> str:
    """The same as a text (bitmap_print_to_pagebuf)."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and ranges[-1][-1] == number - 1:
            ranges[-1][-1] = number
        else:
            ranges.append([number, number])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in ranges)
