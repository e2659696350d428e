"""Where a PCI function sits: `DDDD:BB:SS.F`."""

from __future__ import annotations

import re

from attrs import frozen

from mdevfs.errors import InputError, escape

_FORM = re.compile(r"([0-9a-f]{4}):([0-9a-f]{2}):([01][0-9a-f])\.([0-7])\Z")


@frozen(order=True)
class Address:
    """Domain, bus, device and function; ordered as the kernel scans."""

    domain: int
    bus: int
    device: int
    function: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """`"0000:00:02.0"`. Raises InputError."""
        match = _FORM.match(text)
        if match is None:
            lower = text.lower()
            mend = f'write "{lower}"' if _FORM.match(lower) else "write DDDD:BB:SS.F in hex, such as 0000:00:02.0"
            raise InputError(f'"{escape(text)}" is not the address of a PCI function: {mend}')
        return cls(*(int(part, 16) for part in match.groups()))

    def __str__(self) -> str:
        return f"{self.domain:04x}:{self.bus:02x}:{self.device:02x}.{self.function}"

    @property
    def routing_id(self) -> int:
        """Bus, device and function as one number: what SR-IOV's offset and stride count in."""
        return self.bus << 8 | self.device << 3 | self.function

    def moved(self, by: int) -> Address:
        """The address `by` routing ids further; it may lie on a later bus. Raises InputError past bus ff."""
        number = self.routing_id + by
        if number > 0xFFFF:
            raise InputError(f"{self} and {by} routing ids more lie beyond bus ff")
        return Address(self.domain, number >> 8, number >> 3 & 0x1F, number & 7)
