"""How vendor drivers are found and loaded: entry points of installed packages, and files that a host names."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import inspect
import logging
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from types import CodeType, ModuleType

from attrs import frozen
from pydantic import BaseModel

from mdevfs.errors import InputError, escape
from mdevfs.mdev.types import MdevType
from mdevfs.migration.catalogue import Page
from mdevfs.migration.model import DeviceModel
from mdevfs.vendor.api import API, BUSES, VendorDriver

log = logging.getLogger("mdevfs.vendor")

GROUP = "mdevfs.vendor_drivers"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*\Z")


@frozen
class Found:
    """A loaded driver class and where it came from."""

    driver: type[VendorDriver]
    origin: str


def installed() -> dict[str, metadata.EntryPoint]:
    """The entry points of installed packages by driver name; nothing is imported yet."""
    return {point.name: point for point in metadata.entry_points(group=GROUP)}


def load_installed(name: str) -> Found | None:
    """The installed driver of this name; None when there is none, or when it is broken, which is logged."""
    point = installed().get(name)
    if point is None:
        return None
    origin = f"{point.value} ({point.dist.name if point.dist else 'entry point'})"
    try:
        driver = point.load()
    except (Exception, SystemExit) as error:  # whatever a third party's module raises
        _broken(origin, error)
        return None
    found = _accept([driver], origin)
    for other in found.keys() - {name}:
        _broken(origin, InputError(f'the driver calls itself "{other}", its entry point "{name}"'))
    return found.get(name)


def load_file(path: Path) -> dict[str, Found]:
    """The drivers that a file defines, by name. A broken file is a warning, and gives none.

    Raises InputError for a file that is not there, or that, when we are root, others could have written.
    """
    _check_owner(path)
    try:
        module = _import(path.resolve())
    except (Exception, SystemExit) as error:
        _broken(str(path), error)
        return {}
    classes = [one for one in vars(module).values() if inspect.isclass(one) and one.__module__ == module.__name__]
    drivers = [one for one in classes if issubclass(one, VendorDriver)]
    if not drivers:
        log.warning("driver file %s defines no VendorDriver", path)
    return _accept(drivers, str(path))


def all_installed() -> Iterator[Found]:
    """Every installed driver that loads."""
    for name in sorted(installed()):
        found = load_installed(name)
        if found is not None:
            yield found


def pages() -> Iterable[Page]:
    """The catalogue pages that installed drivers bring."""
    return [page for found in all_installed() for page in found.driver.pages]


def mistakes(driver: type[VendorDriver]) -> list[str]:
    """What is wrong with a driver's declarations, all of it."""
    wrong = []
    if driver.api != API:
        wrong.append(f"api = {driver.api!r} is not known; this mdevfs speaks api {API}")
    if not isinstance(driver.name, str) or not _NAME.match(driver.name):
        wrong.append(f"name {driver.name!r} is not a driver's name (letters, digits, _ and -)")
    if driver.bus not in BUSES:
        wrong.append(f"bus {driver.bus!r} is not one of {', '.join(BUSES)}")
    if not callable(driver.types):
        wrong += _type_mistakes(driver.types, driver.model)
    if driver.model is not None and not isinstance(driver.model, DeviceModel):
        wrong.append(f"model {driver.model!r} is not a DeviceModel")
    if not (inspect.isclass(driver.Settings) and issubclass(driver.Settings, BaseModel)):
        wrong.append("Settings is not a pydantic model")
    return wrong


def _type_mistakes(types: Sequence[MdevType], model: object) -> list[str]:
    if not isinstance(types, Sequence):
        return [f"types {types!r} is neither a list of MdevType nor a method that gives one"]
    strange = [repr(one) for one in types if not isinstance(one, MdevType)]
    if strange:
        return [f"types holds {', '.join(strange)}, which is no MdevType"]
    names = [one.suffix for one in types]
    wrong = [f"two types are called {name}" for name in sorted({n for n in names if names.count(n) > 1})]
    if isinstance(model, DeviceModel):
        for one in types:
            named = [one.params, *(values for texts in one.arguments.values() for values in texts.values())]
            wrong += [f"type {one.suffix} {mistake}" for values in named for mistake in model.mistakes_of(values)]
    return wrong


def _accept(drivers: Iterable[object], origin: str) -> dict[str, Found]:
    found: dict[str, Found] = {}
    for driver in drivers:
        if not (inspect.isclass(driver) and issubclass(driver, VendorDriver)):
            _broken(origin, InputError(f"{driver!r} is not a VendorDriver"))
        elif wrong := mistakes(driver):
            _broken(origin, InputError(f"{driver.__name__}: {mistake}" for mistake in wrong))
        else:
            found[driver.name] = Found(driver, origin)
    return found


def _broken(origin: str, error: BaseException) -> None:
    said = "; ".join(error.mistakes) if isinstance(error, InputError) else str(error)
    log.warning("vendor driver %s is left out: %s: %s", origin, type(error).__name__, escape(said))
    log.debug("vendor driver %s", origin, exc_info=error)


def _check_owner(path: Path) -> None:
    """Refuses, for root, a driver that another user could have written: it would run as root."""
    if not path.is_file():
        raise InputError(f"driver file {path} does not exist")
    if os.geteuid() != 0:
        return
    for one in (path.resolve(), *path.resolve().parents):
        status = one.stat()
        loose = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not status.st_mode & stat.S_ISVTX
        if status.st_uid != 0 or loose:
            what = f"owner {status.st_uid}, mode {stat.S_IMODE(status.st_mode):04o}"
            raise InputError(
                f"driver file {path} is refused: {one} could have been written by another user than root ({what}); "
                f"mend it with: chown root {one} && chmod go-w {one}"
            )


def _import(path: Path) -> ModuleType:
    name = f"mdevfs_driver_{path.stem}_{abs(hash(path)):x}"
    if path.suffix != ".py":
        raise InputError(f"{path} is not a Python file")
    loader = _Source(name, str(path))
    module = importlib.util.module_from_spec(importlib.machinery.ModuleSpec(name, loader, origin=str(path)))
    module.__file__ = str(path)
    sys.modules[name] = module
    try:
        loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


class _Source(importlib.machinery.SourceFileLoader):
    """Reads the source alone: a `__pycache__` beside it, in /tmp say, may be somebody else's."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)
