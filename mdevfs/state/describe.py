"""VMState descriptions as the JSON that `qemu-system-x86_64 -dump-vmstate` writes: for QEMU's checker and for ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mdevfs
from mdevfs.errors import InputError, escape
from mdevfs.state.description import Struct, VMState
from mdevfs.state.dump import HEAD, OWN_MACHINE
from mdevfs.state.fields import Field, SizedBytes

Json = dict[str, Any]


def dump(described: Mapping[str, tuple[VMState, int]]) -> Json:
    """A dump of these devices: a name for each, its description and the version that it is to be known by.

    An older version is what a release knew that had no newer one: fields that came later are left out. Where the
    state says how many elements an array has, `num` is 0. Raises InputError for versions that are not loaded.
    """
    wrong = [
        f"{name}: version {version} is not loaded; the description takes {one.minimum} to {one.version}"
        for name, (one, version) in described.items()
        if not one.takes(version)
    ]
    if wrong:
        raise InputError(map(escape, wrong))
    head: Json = {HEAD: {"Name": f"{OWN_MACHINE}-{mdevfs.__version__}"}}
    return head | {name: _entry(name, one, version) for name, (one, version) in described.items()}


def _entry(name: str, one: VMState, version: int) -> Json:
    return {
        "Name": name,
        "version_id": version,
        "minimum_version_id": one.minimum,
        "Description": _description(one, version),
    }


def _description(one: VMState, version: int) -> Json:
    found: Json = {
        "name": one.name,
        "version_id": version,
        "minimum_version_id": one.minimum,
        "Fields": [_field(inner) for inner in one.fields if inner.since <= version],
    }
    if one.subsections:
        found["Subsections"] = [_description(sub, sub.version) for sub in one.subsections]
    return found


def _field(one: Field) -> Json:
    size, num = _sizes(one)
    found: Json = {
        "field": one.name,
        "version_id": one.since,
        "field_exists": one.when is not None,
        **({} if num is None else {"num": num}),
        "size": size,
    }
    if isinstance(one, Struct):
        found["Description"] = _description(one.of, one.of.version)
    return found


def _sizes(one: Field) -> tuple[int, int | None]:
    """The size of one element and their number, as a dump gives them."""
    num = one.num if isinstance(one.num, int | None) else 0
    if isinstance(one, SizedBytes):
        return 1, 0
    if isinstance(one, Struct):
        return sum(size * max(count or 1, 1) for size, count in map(_sizes, one.of.fields)), num
    return max(one.size, 0), num
