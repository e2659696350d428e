"""The `power/` directory of a device (drivers/base/power/sysfs.c)."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import NoReturn

from attrs import frozen

from mdevfs.bus.kobject import Kobject
from mdevfs.errors import KernelError
from mdevfs.sysfs.entries import Attribute, Deferred, Entry
from mdevfs.sysfs.parse import word


@frozen
class PowerSupport:
    """What a device's bus and driver do for its power: whether there is runtime management, how many of them hold the
    device awake, how `control` and `async` begin."""

    runtime: bool = False
    users: int = 0
    control: str = "auto"
    is_async: str = "disabled"


class PowerWords:
    """What was written to the `power/` of a machine's devices; kept for a device's life, which its salt tells.

    Beside the devices and not in them: most are never written to, and some are made anew at each look.
    """

    def __init__(self) -> None:
        self._lives: dict[str, tuple[int, dict[str, str]]] = {}

    def get(self, device: Kobject, name: str, first: str) -> str:
        """The word that `name` holds, `first` while none was written."""
        salt, words = self._lives.get(device.path, (-1, {}))
        return words.get(name, first) if salt == device.salt else first

    def keep(self, device: Kobject, name: str, written: str) -> None:
        """From now on `name` holds this word."""
        salt, words = self._lives.get(device.path, (-1, {}))
        self._lives[device.path] = (device.salt, (words if salt == device.salt else {}) | {name: written})

    def forget(self, path: str) -> None:
        """The device at this path is gone."""
        self._lives.pop(path, None)

    def folder(self, device: Kobject, support: Callable[[], PowerSupport]) -> Deferred:
        """The device's `power/`; `support` may change while it is there."""
        return Deferred(lambda: self._entries(device, support))

    def _entries(self, device: Kobject, support: Callable[[], PowerSupport]) -> dict[str, Entry]:
        """The nine files that every device has (golden: tree_before.json)."""

        def choice(name: str, words: tuple[str, ...]) -> Attribute:
            def store(data: bytes) -> None:
                if word(data) not in words:
                    raise KernelError(errno.EINVAL)
                self.keep(device, name, word(data))

            return Attribute(lambda: held(name) + "\n", store)

        def held(name: str) -> str:
            return self.get(device, name, support().control if name == "control" else support().is_async)

        def usage() -> int:  # pm_runtime_forbid counts as a user
            return support().users + (held("control") == "on")

        def enabled() -> str:  # runtime_enabled_show
            words = [] if support().runtime else ["disabled"]
            return (" & ".join(words + ["forbidden"] * (held("control") == "on")) or "enabled") + "\n"

        def status() -> str:  # runtime_status_show
            return ("unsupported" if not support().runtime else "active" if usage() else "suspended") + "\n"

        return {
            "async": choice("async", ("enabled", "disabled")),
            "autosuspend_delay_ms": Attribute(_no_autosuspend, _no_autosuspend),
            "control": choice("control", ("auto", "on")),
            "runtime_active_kids": _fixed("0"),
            "runtime_active_time": _fixed("0"),
            "runtime_enabled": Attribute(enabled),
            "runtime_status": Attribute(status),
            "runtime_suspended_time": _fixed("0"),
            "runtime_usage": Attribute(lambda: f"{usage()}\n"),
        }


def _fixed(text: str) -> Attribute:
    return Attribute(lambda: text + "\n")


def _no_autosuspend(data: bytes = b"") -> NoReturn:
    # autosuspend_delay_ms_show and _store: -EIO unless the driver uses autosuspend.
    raise KernelError(errno.EIO)
