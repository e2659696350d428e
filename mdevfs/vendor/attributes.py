"""The attributes that a vendor driver makes of its methods by `show` and `store`."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Literal

from attrs import frozen

from mdevfs.bus.kernel import Kernel
from mdevfs.migration.verdict import Refused, RefusedVerdict
from mdevfs.sysfs.entries import Attribute, Deferred, Entry, nest
from mdevfs.vendor.api import AttributeMark, Device, Owner, VendorDriver
from mdevfs.vendor.calling import Caller, nothing

Hooks = dict[Literal["show", "store"], tuple[AttributeMark, Callable[..., object]]]


class OwnAttributes:
    """A driver's own attributes, of its mdevs, types and parents."""

    def __init__(self, driver: VendorDriver, caller: Caller) -> None:
        self._caller = caller
        self._hooks = _hooks(driver)
        self._layouts: dict[Owner, Mapping[str, Sequence[str]]] = {}

    def entries(self, owner: Owner, device: Device, kernel: Kernel) -> dict[str, Entry]:
        """Attributes, and folders of them that are made when somebody looks into them."""
        entries: dict[str, Entry] = {}
        for folder, paths in self._layout(owner, kernel).items():
            if folder:
                entries[folder] = Deferred(functools.partial(self._folder, owner, folder, paths, device))
            else:
                entries |= {path: self._attribute(path, self._hooks[owner][path], device) for path in paths}
        return entries

    def _folder(self, owner: Owner, folder: str, paths: Sequence[str], device: Device) -> dict[str, Entry]:
        hooks = self._hooks[owner]
        return nest({path[len(folder) + 1 :]: self._attribute(path, hooks[path], device) for path in paths})

    def _layout(self, owner: Owner, kernel: Kernel) -> Mapping[str, Sequence[str]]:
        """The attributes' paths by their first folder, "" for none; a driver serves one host, so one kernel."""
        if owner not in self._layouts:
            layout: dict[str, list[str]] = {}
            for path, hooks in self._hooks.get(owner, {}).items():
                if all(kernel.since(mark.since) for mark, _ in hooks.values()):
                    layout.setdefault(path.partition("/")[0] if "/" in path else "", []).append(path)
            self._layouts[owner] = layout
        return self._layouts[owner]

    def _attribute(self, path: str, hooks: Hooks, device: Device) -> Attribute:
        where = f"{device.path}/{path}"
        shown, stored = hooks.get("show"), hooks.get("store")

        def accept(text: object) -> str | bytes:
            if isinstance(text, bytes) or (isinstance(text, str) and _encodes(text)):
                return text
            raise self._caller.junk(where, "show", text, "text")

        def do_show() -> str | bytes | Awaitable[str | bytes]:
            assert shown is not None
            return self._caller.call(where, "show", shown[1], accept, device)

        async def do_store(data: bytes) -> None:
            assert stored is not None
            try:
                pending = self._caller.call(where, "store", stored[1], nothing, device, data)
                if pending is not None:
                    await pending
            except (Refused, RefusedVerdict) as refusal:
                text = data.removesuffix(b"\n").decode("latin-1")
                device.last_verdict = device.journal.record("parameter", device, text, refusal.verdict)
                raise

        mode = next((mark.mode for mark, _ in hooks.values() if mark.mode is not None), None)
        return Attribute(do_show if shown else None, do_store if stored else None, mode)


def _encodes(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def _hooks(driver: VendorDriver) -> dict[Owner, dict[str, Hooks]]:
    found: dict[Owner, dict[str, Hooks]] = {}
    for name, mark in _marks(type(driver)):
        found.setdefault(mark.owner, {}).setdefault(mark.path, {})[mark.kind] = (mark, getattr(driver, name))
    return found


def _marks(driver: type[VendorDriver]) -> Iterator[tuple[str, AttributeMark]]:
    """A driver's marked methods, by their names."""
    for name in dir(driver):
        mark = getattr(getattr(driver, name, None), "__mdevfs_attribute__", None)
        if isinstance(mark, AttributeMark):
            yield name, mark


@frozen
class Declared:
    """An attribute as a driver declares it; `access` is "rw", "ro" or "wo", `doc` the first line of its method's."""

    path: str
    of: Owner
    access: str
    since: str
    doc: str


def declared(driver: type[VendorDriver]) -> Sequence[Declared]:
    """The attributes of its own, by owner and path."""
    methods: dict[tuple[Owner, str], dict[str, tuple[AttributeMark, str]]] = {}
    for name, mark in _marks(driver):
        doc = (getattr(driver, name).__doc__ or "").strip().partition("\n")[0]
        methods.setdefault((mark.owner, mark.path), {})[mark.kind] = mark, doc
    return [
        Declared(
            path,
            owner,
            access="rw" if len(kinds) == 2 else "ro" if "show" in kinds else "wo",
            since=max((mark.since for mark, _ in kinds.values()), key=Kernel.parse),
            doc=next((kinds[kind][1] for kind in ("show", "store") if kind in kinds and kinds[kind][1]), ""),
        )
        for (owner, path), kinds in sorted(methods.items())
    ]
