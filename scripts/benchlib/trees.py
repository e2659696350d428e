"""What clients do to a mounted tree, as plain system calls on whole paths."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import attrs

from .servers import CannotMeasureError
from .timing import Operation

BARE_TYPE = "devices/virtual/bare/bare/mdev_supported_types/bare-1"
SYSFS_ATTRIBUTE = "/sys/class/net/lo/mtu"
SYSFS_REAL_ATTRIBUTE = "/sys/devices/virtual/net/lo/mtu"  # the same without a link on the way


def open_read_close(path: str) -> Operation:
    def operation() -> None:
        descriptor = os.open(path, os.O_RDONLY)
        os.read(descriptor, 4096)
        os.close(descriptor)

    return operation


def write(path: str, text: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text)
    finally:
        os.close(descriptor)


def list_names(directory: Path) -> None:
    """`ls -f`: every name, unsorted, no stat, thrown away."""
    subprocess.run(["ls", "-f", directory], stdout=subprocess.DEVNULL, check=True)


def compiled(source: Path, directory: Path) -> Path:
    """The program of a C file. Raises CannotMeasureError without a compiler."""
    program = directory / source.stem
    done = subprocess.run(["cc", "-O2", "-o", program, source], capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotMeasureError(f"cc: {done.stderr.strip()}")
    return program


@attrs.frozen
class MdevTree:
    """The paths that the measures walk, found in a tree as any client would find them."""

    parent: str
    parent_link: str  # the same through class/mdev_bus
    type: str
    devices: str

    @classmethod
    def find(cls, root: Path) -> MdevTree:
        """The first type that has an instance left.

        Raises CannotMeasureError when there is none.
        """
        for link in sorted((root / "class/mdev_bus").iterdir()):
            parent = link.resolve()
            for mdev_type in sorted((parent / "mdev_supported_types").iterdir()):
                if int((mdev_type / "available_instances").read_text()) > 0:
                    return cls(str(parent), str(link), str(mdev_type), str(root / "bus/mdev/devices"))
        raise CannotMeasureError("the host has no type with an available instance")

    def create(self, name: str) -> None:
        write(f"{self.type}/create", name.encode())

    def remove(self, name: str) -> None:
        write(f"{self.parent}/{name}/remove", b"1")

    def remove_by_link(self, name: str) -> None:
        """As mdevctl does: a look-up, a readlink and a name to invalidate more."""
        write(f"{self.devices}/{name}/remove", b"1")

    def migration_version(self) -> tuple[str, bytes]:
        """The path of the type's attribute, and the string that it accepts: its own.

        Raises CannotMeasureError when the attribute is missing or refuses.
        """
        path = f"{self.type}/migration_version"
        try:
            text = Path(path).read_bytes()
            write(path, text)
        except OSError as error:
            raise CannotMeasureError(f"{path}: {error.strerror}; choose another --host") from None
        return path, text

    def old_names(self) -> Iterator[str]:
        """Names of mdevs that are there from the start, in a random but repeatable order."""
        names = sorted(os.listdir(self.devices))
        random.Random(1).shuffle(names)
        return itertools.chain(names)


def new_names(count: int) -> list[str]:
    return [str(uuid.uuid4()) for _ in range(count)]
