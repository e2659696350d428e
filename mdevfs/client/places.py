"""What a path is: an mdev, a type, or a physical device of some sysfs-like tree."""

from __future__ import annotations

import errno
import os
import stat
import uuid
from collections.abc import Iterable
from enum import Enum
from pathlib import Path

import attrs

from mdevfs.client.text import PAGE
from mdevfs.errors import InputError, MachineError, escape

TYPES = "mdev_supported_types"
EXPECTED = f"an mdev (.../UUID), a type (.../{TYPES}/TYPE-ID) or a physical device"
UNREACHABLE = (errno.EACCES, errno.ENOTCONN)


class Kind(Enum):
    """The three things that can carry a migration_version attribute."""

    MDEV = "mdev"
    TYPE = "type"
    DEVICE = "device"


@attrs.frozen
class Place:
    """One side of a handshake. `given` is the user's path, `directory` where its links lead.

    `type_directory` is the type's own directory for a type, the one that `mdev_type` leads to for an mdev
    (None when there is no such link), and None for a physical device.
    """

    given: Path
    directory: Path
    kind: Kind
    type_directory: Path | None = None

    @property
    def type_id(self) -> str | None:
        return self.type_directory.name if self.type_directory else None

    @property
    def attribute(self) -> Path:
        """Where the place's migration_version is, or would be."""
        return self.directory / "migration_version"

    def has_attribute(self) -> bool:
        return os.access(self.attribute, os.F_OK)

    def is_live(self) -> bool:
        """Whether the attribute can answer: a plain file takes anything, and would be overwritten with it."""
        try:
            found = self.attribute.stat()
        except OSError:
            return True  # the write will say why
        # A sysfs attribute's size is a whole page, whatever it holds.
        return not stat.S_ISREG(found.st_mode) or (found.st_size > 0 and found.st_size % PAGE == 0)

    def __str__(self) -> str:
        return escape(str(self.given))


def identify(role: str, path: Path) -> Place:
    """Say what the path is; `role` (SOURCE, TARGET) is what messages call it.

    Raises InputError for what is none of the three, MachineError where the path cannot be followed.
    """
    name = f"{role} {escape(str(path))}"
    try:
        return _identify(name, path)
    except RuntimeError:
        raise InputError(f"{name}: its links lead in a circle; expected {EXPECTED}") from None
    except OSError as error:
        if error.errno in UNREACHABLE:
            raise MachineError(f"{name}: {error.strerror}") from None
        raise InputError(f"{name}: {error.strerror}; expected {EXPECTED}") from None


def _identify(name: str, path: Path) -> Place:
    directory = path.resolve(strict=True)
    if not directory.is_dir():
        raise InputError(f"{name}: a file; expected the directory of {EXPECTED}")
    if directory.name == TYPES:
        types = ", ".join(sorted(escape(entry.name) for entry in directory.iterdir())) or "none"
        raise InputError(f"{name}: holds all types; expected one of them: {types}")
    if directory.parent.name == TYPES:
        return Place(path, directory, Kind.TYPE, directory)
    link = directory / "mdev_type"
    if link.is_dir():
        return Place(path, directory, Kind.MDEV, link.resolve())
    if _is_uuid(directory.name):
        return Place(path, directory, Kind.MDEV)
    if any((directory / entry).exists() for entry in ("subsystem", TYPES, "migration_version")):
        return Place(path, directory, Kind.DEVICE)
    raise InputError(f"{name}: a directory of no device; expected {EXPECTED}")


def identify_all(paths: Iterable[tuple[str, Path]]) -> list[Place]:
    """`identify` for each (role, path); every mistake in one InputError."""
    places: list[Place] = []
    mistakes: list[str] = []
    for role, path in paths:
        try:
            places.append(identify(role, path))
        except InputError as error:
            mistakes += error.mistakes
    if mistakes:
        raise InputError(mistakes)
    return places


def _is_uuid(name: str) -> bool:
    try:
        return str(uuid.UUID(name)) == name
    except ValueError:
        return False
