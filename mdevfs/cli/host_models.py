"""`mdevfs host models HOST|DIR`: the device models of a whole host, by type."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mdevfs.errors import InputError, MachineError, escape

if TYPE_CHECKING:
    from mdevfs.host.host import Host
    from mdevfs.mdev.parent import Parent

INFO = "migration_info.json"
LIMIT = 1 << 20  # bytes of one file that are read: it may be anybody's

Models = dict[str, dict[str, dict[str, Any]]]  # parent -> type-id -> its migration_info.json


def models_of(given: str) -> Models:
    """The models of a host file, a shipped host, or a tree that is a directory; a shipped name comes first.

    Raises InputError for what is none of them and for a `migration_info.json` that is none, MachineError where a
    tree cannot be read.
    """
    from mdevfs.host.read import shipped

    if Path(given).is_dir() and given not in shipped():
        return in_tree(Path(given))
    import trio

    from mdevfs.host.host import load

    return in_process(trio.run(load, given))


def in_process(host: Host) -> Models:
    """Of a host that was built here: what its types would show."""
    return {name: dict(_shown(parent)) for name, parent in sorted(host.mdev.parents.items())}


def _shown(parent: Parent) -> Iterator[tuple[str, dict[str, Any]]]:
    from mdevfs.mdev.models import type_entries
    from mdevfs.sysfs.entries import Attribute

    for type_id, kind in sorted(parent.types.items()):
        entry = type_entries(kind).get(INFO)
        if isinstance(entry, Attribute) and entry.show is not None:
            text = entry.show()
            assert isinstance(text, str)  # declarations only: nothing to wait for
            yield type_id, json.loads(text)


def in_tree(root: Path) -> Models:
    """Of a mounted host, or any tree of that form, by its paths alone."""
    parents = root / "class" / "mdev_bus"
    try:
        return {parent.name: dict(_types(parent)) for parent in sorted(parents.iterdir())}
    except FileNotFoundError:
        raise InputError(f"{escape(str(root))} shows no host: it has no class/mdev_bus") from None
    except OSError as error:
        raise MachineError(f"{escape(str(error.filename or root))}: {error.strerror}") from None


def _types(parent: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for kind in sorted((parent / "mdev_supported_types").iterdir()):
        if os.path.lexists(file := kind / INFO):
            yield kind.name, _read(file)


def _read(file: Path) -> dict[str, Any]:
    if not stat.S_ISREG(file.stat().st_mode):
        raise InputError(f"{escape(str(file))} is no plain file")
    with file.open("rb") as stream:
        data = stream.read(LIMIT + 1)
    try:
        found = json.loads(data) if len(data) <= LIMIT else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("models"), dict):
        raise InputError(f'{escape(str(file))} is no JSON object with "models", or has more than {LIMIT} bytes')
    return found


def rows(models: Models) -> Iterator[tuple[str, str, str, str]]:
    """For people: parent, type-id, model, and its parameters, versions, other arguments and strictest tier."""
    for parent, types in models.items():
        for type_id, info in types.items():
            for name, about in info["models"].items():
                yield escape(parent), escape(type_id), escape(name), escape("; ".join(_about(about)))


def _about(model: object) -> Iterator[str]:
    """Of a file that may be anybody's, so what has not the form that ours have is left out."""
    found = model if isinstance(model, dict) else {}
    for key in ("params", "versions", "arguments"):
        if isinstance(names := found.get(key), dict) and names:
            yield f"{key} {', '.join(names)}"
    if isinstance(tier := found.get("tier"), str):
        yield tier
