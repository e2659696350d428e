"""A host that is served: changes to it, each seen whole or not at all, and its devices that come late."""

from __future__ import annotations

import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

from mdevfs.bus.core import Core
from mdevfs.events import holding
from mdevfs.host.host import Host
from mdevfs.host.plan import PlannedDevice

log = logging.getLogger("mdevfs.control")


class Running:
    """`settle` returns when nobody sees the tree as it was before the last change; `nursery` ends with the host."""

    def __init__(self, host: Host, settle: Callable[[], Awaitable[None]], nursery: trio.Nursery) -> None:
        self.host = host
        self._settle = settle
        self._nursery = nursery

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[None]:
        """What happens inside is told once nobody can see the old state."""
        with holding():
            try:
                yield
            finally:
                await self._settle()

    def expect(self) -> None:
        """From now on, the seconds run for those of this boot's devices that are awaited."""
        for address, seconds in self.host.awaited.items():
            if seconds < float("inf"):
                planned = self.host.plan.at(address)
                self._nursery.start_soon(functools.partial(self._arrive, planned, self.host.core, seconds))

    async def _arrive(self, planned: PlannedDevice, boot: Core, seconds: float) -> None:
        await trio.sleep(seconds)
        if self.host.core is not boot or planned.address not in self.host.awaited:
            return
        async with self.changing():
            wrong = await self.host.appear(planned)
        for line in wrong:
            log.warning("late: %s", line)
