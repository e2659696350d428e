"""A host that is mounted for one test."""

from __future__ import annotations

import contextlib
import json
import os
import uuid as uuids
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from attrs import frozen

from mdevfs.client import Answer, SourceString
from mdevfs.client import check as ask_check
from mdevfs.control.asker import SentEvent, Subscription, Wanted, ask
from mdevfs.errors import InputError, escape
from mdevfs.testing.describe import Description
from mdevfs.testing.server import Server


class HostFactory(Protocol):
    """The fixture `mdevfs_host`."""

    def __call__(self, host: Description = "mtty") -> MountedHost:
        """Mounts a host until the test ends. Raises InputError for a bad one."""


@frozen
class Access:
    """One line of the trace: who read or wrote which attribute (`mdevfs.mount.trace`).

    `path` is from the tree's root, without links; `errno` a name, or None where it succeeded; times are in seconds.
    """

    time: float
    pid: int
    comm: str
    uid: int
    operation: str
    path: str
    offset: int
    size: int | None
    text: str | None
    errno: str | None
    took: float


@frozen
class SetFault:
    """A fault that was set; leaving its `with` block clears it."""

    host: MountedHost
    number: int

    @property
    def struck(self) -> int:
        """How many accesses it has struck."""
        faults = self.host.control("faults")["faults"]
        return next((one["struck"] for one in faults if one["number"] == self.number), 0)

    def clear(self) -> None:
        """It strikes no more; who waits for it goes on."""
        self.host.control("clear", numbers=[self.number])

    def __enter__(self) -> SetFault:
        return self

    def __exit__(self, *_: object) -> None:
        self.clear()


class MountedHost:
    """A live host. `root` is where its tree is, as /sys is a machine's."""

    def __init__(self, server: Server) -> None:
        self.root = server.root
        self._server = server

    # -- what it is asked to do

    def create(self, type_id: str, arguments: str = "", *, uuid: str | None = None, parent: str | None = None) -> Path:
        """Creates an mdev as a tool would; its directory.

        `arguments` are those of `create`: "version=2,rx-filter-size=64". Without `uuid` a new one; without `parent` the
        first that has room. Raises InputError for a type that no parent has, and the OSError of the write with the
        reasons of its verdict as a note.
        """
        kind = self._kind(type_id, parent)
        name = uuid or str(uuids.uuid4())
        try:
            _write(kind / "create", ",".join(filter(None, (name, arguments))))
        except OSError as error:
            for reason in _reasons(kind):
                error.add_note(reason)
            raise
        return self.root / "bus/mdev/devices" / name.lower()

    def _kind(self, type_id: str, parent: str | None) -> Path:
        parents = self.root / "class/mdev_bus"
        names = sorted(os.listdir(parents)) if parents.is_dir() else []
        kinds = [parents / one / "mdev_supported_types" for one in names if parent in (None, one)]
        found = [kind / type_id for kind in kinds if (kind / type_id).is_dir()]
        if not found:
            known = ", ".join(sorted({one.name for kind in kinds for one in kind.iterdir()})) or "none"
            where = f"parent {escape(parent)}" if parent is not None else "any parent"
            raise InputError(f'{where} has no type "{escape(type_id)}"; types: {known}; parents: {", ".join(names)}')
        return next((kind for kind in found if _has_room(kind)), found[0])

    def check(self, source: Path | str | SourceString, target: Path | str) -> Answer:
        """Whether the source's device could migrate to the target, and why not; relative paths are below `root`."""
        return ask_check(source if isinstance(source, SourceString) else self.root / source, self.root / target)

    def fault(self, path: Path | str = "*", **what: object) -> SetFault:
        """Sets a fault with the keys of `[[fault]]`: on, slow, errno, text, count, skip, probability, seed.

        `path` is that of an attribute, or a pattern such as "*/create". Raises InputError with every mistake.
        """
        with contextlib.suppress(ValueError):
            path = Path(path).relative_to(self.root)
        what = {key: "inf" if value == float("inf") else value for key, value in what.items()}
        answer = self.control("fault", path=os.fspath(path), **what)
        return SetFault(self, answer["fault"]["number"])

    def control(self, op: str, /, **what: object) -> dict[str, Any]:
        """Any verb of `mdevfs control`: control("remove", address="mtty"), control("reboot", late=0.5).

        Returns once nobody sees the old state. Raises InputError for mistakes, KernelError for what is refused.
        """
        return ask(self.root, op, what)

    # -- what happened

    @property
    def events(self) -> Sequence[SentEvent]:
        """Every uevent since the host began, its start included."""
        return list(lines_of(self._server.events))

    def wait(self, event: str, *keys: str, timeout: float = 10.0, after: int = 0) -> SentEvent:
        """The first uevent that matches, or that comes within so many seconds: wait("bind@*/" + uuid, "DRIVER=mtty").

        `after` is a seqnum: those before it are over. Raises TimeoutError.
        """
        wanted = Wanted.parse([event, *keys])
        with Subscription(self.root, timeout) as coming:
            for past in self.events:
                if past["seqnum"] > after and wanted.matches(past):
                    return past
            try:
                return next(one for one in coming if one["seqnum"] > after and wanted.matches(one))
            except TimeoutError:
                raise TimeoutError(f"no event {' '.join((event, *keys))} within {timeout:g} s") from None

    @property
    def accesses(self) -> Sequence[Access]:
        """Every read and write of an attribute since the host began, and opens that failed."""
        return [Access(**line) for line in lines_of(self._server.trace)]

    @property
    def log(self) -> str:
        """What the server logged so far."""
        return self._server.log

    def end(self) -> None:
        """Unmounts it now; the end of the test does that, too."""
        self._server.end()


def lines_of(path: Path) -> list[Any]:
    """The JSON lines that are whole."""
    *whole, _ = path.read_text().split("\n")
    return [json.loads(line) for line in whole]


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _has_room(kind: Path) -> bool:
    try:
        return int((kind / "available_instances").read_text()) > 0
    except (OSError, ValueError):
        return False


def _reasons(kind: Path) -> list[str]:
    try:
        verdict: Mapping[str, Any] = json.loads((kind / "mdevfs/last_verdict").read_text())
    except (OSError, ValueError):
        return []
    return [": ".join(filter(None, map(one.get, ("code", "parameter", "rule")))) for one in verdict["reasons"]]
