"""uevents (lib/kobject_uevent.c): an action, a device path and ordered keys, numbered, handed to every listener."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from attrs import define, evolve, field, frozen

from mdevfs.errors import KernelError

ACTIONS = ("add", "change", "remove", "move", "online", "offline", "bind", "unbind")
_UUID = re.compile(rb"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")
_ARGUMENT = re.compile(rb"([A-Za-z0-9]+)=([A-Za-z0-9]+)\Z")
# lib/kobject_uevent.c, 6.1: UEVENT_BUFFER_SIZE less what ACTION, DEVPATH and SUBSYSTEM take is what a message may
# hold; measured (golden): 1048 bytes pass, 1948 bytes ENOMEM, 2548 bytes and more EINVAL.
_BUFFER = 2048


@frozen
class Event:
    """One uevent; `keys` come after ACTION, DEVPATH and SUBSYSTEM, in the kernel's order."""

    action: str
    devpath: str
    subsystem: str
    keys: dict[str, str] = field(factory=dict)
    seqnum: int = 0

    def environment(self) -> dict[str, str]:
        """All keys of the message, in order."""
        head = {"ACTION": self.action, "DEVPATH": self.devpath, "SUBSYSTEM": self.subsystem}
        return head | self.keys | {"SEQNUM": str(self.seqnum)}


Listener = Callable[[Event], None]


@define
class _Held:
    """What a change announced so far; `over` once it has been told."""

    calls: list[Callable[[], None]] = field(factory=list)
    over: bool = False


_HELD: ContextVar[_Held | None] = ContextVar("held", default=None)


@contextmanager
def holding() -> Iterator[None]:
    """Keeps what this task, and the threads that it waits for, announce inside, and tells it at the end, in order.

    For who serves a tree: our core announces in the middle of a change, and a name that went may still be cached by
    the kernel until `settle` is done. A listener that looked at once could see the old state. Held per change and not
    for all at once, because another change that ends earlier must not tell this one's events before their time.
    """
    held = _Held()
    token = _HELD.set(held)
    try:
        yield
    finally:
        _HELD.reset(token)
        held.over = True  # a task that outlives the change tells by itself
        for call in held.calls:
            call()


class EventStream:
    """Numbers events and hands them to the listeners, in order."""

    def __init__(self) -> None:
        self.seqnum = 0
        self.listeners: list[Listener] = []

    def send(self, action: str, devpath: str, subsystem: str, keys: dict[str, str] | None = None) -> None:
        """Announces one event; `devpath` begins with `/devices/...`, `/bus/...`, as below /sys."""
        if not self.listeners:
            self.seqnum += 1
            return
        event = Event(action, devpath, subsystem, dict(keys or {}))
        if action == "unbind":  # zap_modalias_env: nobody shall load a module for it
            event.keys.pop("MODALIAS", None)
        held = _HELD.get()
        if held is None or held.over:
            self._tell(event)
        else:
            held.calls.append(lambda: self._tell(event))

    def _tell(self, event: Event) -> None:
        """Numbered only now, so that every listener hears the numbers rise."""
        self.seqnum += 1
        event = evolve(event, seqnum=self.seqnum)
        for listener in tuple(self.listeners):
            listener(event)


def parse_synthetic(data: bytes) -> tuple[str, dict[str, str]]:
    """What a write to a `uevent` file asks for: `ACTION [UUID [KEY=VALUE ...]]`, one newline or NUL allowed at the end.

    Returns the action and the SYNTH_ keys. Raises KernelError EINVAL for anything else (kobject_synth_uevent).
    """
    if data[-1:] in (b"\n", b"\0"):
        data = data[:-1]
    action, _, rest = data.partition(b" ")
    name = action.decode("latin-1")
    if name not in ACTIONS:
        raise KernelError(errno.EINVAL)
    if len(data) == len(action):
        return name, {"SYNTH_UUID": "0"}
    uuid, *arguments = rest.split(b" ")
    if not _UUID.match(uuid):
        raise KernelError(errno.EINVAL)
    keys = {"SYNTH_UUID": uuid.decode()}
    for argument in arguments:
        match = _ARGUMENT.match(argument)
        if match is None:
            raise KernelError(errno.EINVAL)
        keys["SYNTH_ARG_" + match[1].decode()] = match[2].decode()
    if len(data) > _BUFFER:
        raise KernelError(errno.EINVAL)
    if sum(len(key) + len(value) + 2 for key, value in keys.items()) > _BUFFER - 256:
        raise KernelError(errno.ENOMEM)
    return name, keys
