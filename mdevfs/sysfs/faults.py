"""Faults on purpose: delays, errnos and wrong texts that strike instead of what an access should do.

One table serves a tree: its files ask before they make a text or take a write, the vendor drivers' guard before it
calls `probe` and `remove`. While nothing is set they see `armed` is False, and that is all that it costs.
"""

from __future__ import annotations

import errno as _errno
import fnmatch
import itertools
import logging
import random
import re
from collections.abc import Iterable, Iterator
from typing import Literal

import trio
from attrs import define, field

from mdevfs.errors import KernelError

log = logging.getLogger(__name__)

On = Literal["read", "write", "probe", "remove"]


@define(eq=False)
class Fault:
    """What strikes whom, and how often.

    `path` is a shell pattern of the tree's own paths (`*` matches slashes, too), of an attribute for reads and writes,
    of an mdev for hooks. `slow` is in seconds, infinity until the fault is cleared; then the access fails with `errno`,
    or a read gives `text`. The first `skip` accesses pass; of the others each strikes with `probability`, which is
    the same for the same `seed`, until `count` have (None: for ever).
    """

    path: str
    on: frozenset[On]
    slow: float = 0.0
    errno: int | None = None
    text: str | None = None
    count: int | None = None
    skip: int = 0
    probability: float = 1.0
    seed: int = 0
    number: int = field(default=0, init=False)
    seen: int = field(default=0, init=False)
    struck: int = field(default=0, init=False)
    cleared: trio.Event = field(factory=trio.Event, init=False)
    _pattern: re.Pattern[str] = field(init=False)
    _random: random.Random = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._pattern = re.compile(fnmatch.translate(self.path))
        self._random = random.Random(self.seed)

    @property
    def over(self) -> bool:
        """Whether it will never strike again."""
        return self.struck == self.count or self.cleared.is_set()

    def due(self, on: On, path: str) -> bool:
        """Whether this access is struck; counts it."""
        if self.over or on not in self.on or not self._pattern.match(path):
            return False
        self.seen += 1
        if self.seen <= self.skip or (self.probability < 1 and self._random.random() >= self.probability):
            return False
        self.struck += 1
        return True

    def matches(self, path: str) -> bool:
        """Whether `path` is one that it may strike."""
        return self._pattern.match(path) is not None

    def effect(self) -> str:
        """What it does, in words."""
        parts = [f"{self.slow:g} s late"] if self.slow else []
        if self.errno is not None:
            parts.append(_errno.errorcode.get(self.errno, str(self.errno)))
        if self.text is not None:
            parts.append(f"reads {self.text!r:.80}")
        return ", ".join(parts)


class Faults:
    """The faults of one tree, numbered from 1."""

    __slots__ = ("_numbers", "_set", "armed")

    def __init__(self) -> None:
        self.armed = False
        self._set: dict[int, Fault] = {}
        self._numbers = itertools.count(1)

    def __iter__(self) -> Iterator[Fault]:
        """Those that are set, in the order in which they strike; those that are over stay until they are cleared."""
        return iter(tuple(self._set.values()))

    def add(self, fault: Fault) -> Fault:
        """Sets a fault, and gives it its number."""
        fault.number = next(self._numbers)
        self._set[fault.number] = fault
        self._count()
        return fault

    def clear(self, numbers: Iterable[int]) -> None:
        """Takes faults away; who waits for one goes on as if it had never been. Raises KeyError for an unknown one."""
        for number in numbers:
            self._set.pop(number).cleared.set()
        self._count()

    def delay(self, on: On) -> bool:
        """Whether some access of this kind may take long."""
        return any(on in fault.on and fault.slow and not fault.over for fault in self._set.values())

    def _count(self) -> None:
        self.armed = any(not fault.over for fault in self._set.values())

    async def strike(self, on: On, path: str) -> str | None:
        """One access: waits, raises KernelError, or gives the text that a read shall have instead of its own."""
        due = [fault for fault in self._set.values() if fault.due(on, path)]
        self._count()
        for fault in due:
            log.info("fault %d: %s of %s: %s", fault.number, on, path, fault.effect())
            if fault.slow:
                with trio.move_on_after(fault.slow):
                    await fault.cleared.wait()
        for fault in due:
            if fault.cleared.is_set():
                continue
            if fault.errno is not None:
                raise KernelError(fault.errno, f"fault {fault.number}, set on purpose")
            if fault.text is not None:
                return fault.text
        return None
