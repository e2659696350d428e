"""Which kernel the tree imitates, and what differs between kernels."""

from __future__ import annotations

import re
from functools import lru_cache, total_ordering

from attrs import frozen

from mdevfs.errors import InputError

QUIRKS = {
    "remove-race": "a 1 written to `remove` before create has returned gives EAGAIN and takes the file away",
    "double-remove": "of several simultaneous writers of 1 to `remove`, more than one can be told that it succeeded",
}


@total_ordering
@frozen(order=False)
class Kernel:
    """A release such as 6.1, compared by its two numbers; `quirks` are the kernel bugs that are switched on."""

    major: int
    minor: int
    quirks: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, text: str, quirks: frozenset[str] = frozenset()) -> Kernel:
        """`"6.1"` or `"6.12.117"`. Raises InputError."""
        match = re.fullmatch(r"(\d{1,3})\.(\d{1,3})(\.\d+)?", text)
        if match is None:
            raise InputError(f'kernel "{text}" is not a release such as "6.1"')
        return cls(int(match[1]), int(match[2]), quirks)

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"

    def __lt__(self, other: Kernel) -> bool:
        return (self.major, self.minor) < (other.major, other.minor)

    def since(self, release: str) -> bool:
        """Whether this kernel is `release` or newer."""
        return (self.major, self.minor) >= _numbers(release)


@lru_cache
def _numbers(release: str) -> tuple[int, int]:
    kernel = Kernel.parse(release)
    return kernel.major, kernel.minor
