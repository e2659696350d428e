"""`driver_override`: the one driver that may have a device (drivers/base/driver.c, driver_set_override)."""

from __future__ import annotations

import errno

from mdevfs.errors import KernelError
from mdevfs.sysfs.entries import PAGE_SIZE, Attribute
from mdevfs.sysfs.parse import text_of


class DriverOverride:
    """The name that was written, None where nothing was; any name is taken, and nothing is bound anew."""

    __slots__ = ("name",)

    def __init__(self, name: str | None = None) -> None:
        self.name = name

    def attribute(self) -> Attribute:
        """The file, 0644; unset it reads `(null)`. A write of 4095 bytes or more is EINVAL."""
        return Attribute(lambda: f"{self.name if self.name is not None else '(null)'}\n".encode("latin-1"), self._store)

    def _store(self, data: bytes) -> None:
        if len(data) >= PAGE_SIZE - 1:
            raise KernelError(errno.EINVAL)
        self.name = text_of(data).partition(b"\n")[0].decode("latin-1") or None
