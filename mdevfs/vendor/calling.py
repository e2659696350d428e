"""The one place where vendor code is called: exceptions, junk and slowness stay in the driver they come from."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from mdevfs.errors import DriverFault, MdevfsError
from mdevfs.vendor.api import Device

log = logging.getLogger("mdevfs.vendor")

SLOW = 1.0  # seconds after which a call is logged
THREADS = 40  # of each driver's blocking hooks; more calls wait for their turn
T = TypeVar("T")
Result = TypeVar("Result")


class Caller:
    """Calls the hooks of one vendor driver, by name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._threads = trio.CapacityLimiter(THREADS)

    def call(
        self,
        where: Device | str,
        what: str,
        function: Callable[..., object],
        accept: Callable[[object], Result],
        *args: object,
    ) -> Result | Awaitable[Result]:
        """Calls a hook inline, or gives an awaitable that calls it in a thread if it was declared `blocking`."""
        if blocks(function):
            return self.in_thread(where, what, function, accept, args)
        return accept(self.run(where, what, function, *args))

    async def in_thread(
        self,
        where: Device | str,
        what: str,
        function: Callable[..., object],
        accept: Callable[[object], Result],
        args: tuple[object, ...],
    ) -> Result:
        """Calls a hook in a thread, whatever it was declared."""

        def work() -> object:
            return self.run(where, what, function, *args)

        # A server that ends does not wait for a hook that never returns.
        return accept(await trio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._threads))

    def run(self, where: Device | str, what: str, function: Callable[..., T], *args: object) -> T:
        """Calls a hook. Raises what it refuses with, and DriverFault for whatever else it raises."""
        begin = time.perf_counter()
        try:
            return function(*args)
        except MdevfsError as error:
            if error.errno in errno.errorcode:
                raise
            # The kernel would leave the caller waiting for ever.
            raise self.junk(where, what, error.errno, "an errno", "raised") from error
        except (Exception, SystemExit) as error:
            log.exception("driver %s: %s of %s raised", self.name, what, _path(where))
            raise DriverFault(f"driver {self.name}: {what} of {_path(where)} raised {error!r}") from error
        finally:
            took = time.perf_counter() - begin
            if took > SLOW:
                log.warning("driver %s: %s of %s took %.1f s", self.name, what, _path(where), took)

    def junk(self, where: Device | str, what: str, value: object, wanted: str, did: str = "returned") -> DriverFault:
        """The fault of a hook that returned (or raised) what it must not; logged."""
        message = f"driver {self.name}: {what} of {_path(where)} {did} {value!r:.80}, not {wanted}"
        log.error("%s", message)
        return DriverFault(message)


def blocks(function: Callable[..., object]) -> bool:
    """Whether a hook was declared `blocking`."""
    return getattr(function, "__mdevfs_blocking__", False)


def nothing(result: object) -> None:
    """Accepts whatever a hook returns from which nothing is wanted."""


def _path(where: Device | str) -> str:
    return where if isinstance(where, str) else where.path
