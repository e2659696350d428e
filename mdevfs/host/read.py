"""Finding and reading host files: shipped ones by name, others by path; every mistake of the file at once."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from attrs import frozen
from pydantic import ValidationError

from mdevfs.errors import InputError
from mdevfs.host.mistakes import from_pydantic, near_miss
from mdevfs.host.salvage import salvage
from mdevfs.host.schema import HostFile


@frozen
class Described:
    """A host file as far as it fits the schema, its `mistakes`, and the folder that its paths are relative to.

    `places` are the devices' indexes in the original, where some are left out.
    """

    file: HostFile
    origin: str
    folder: Path
    places: Sequence[int] = ()
    mistakes: Sequence[str] = ()

    def place(self, index: int) -> int:
        """A device's index in the original file."""
        return self.places[index] if self.places else index


def shipped() -> dict[str, Path]:
    """The hosts that come with the project, by name."""
    folder = Path(str(resources.files("vendor_drivers") / "hosts"))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def locate(name: str) -> Path:
    """A host given by path or by a shipped name. Raises InputError with the near miss."""
    path = Path(name)
    if "/" in name or name.endswith(".toml"):
        if path.is_file():
            return path
        raise InputError(f"host file {name} does not exist")
    known = shipped()
    if name in known:
        return known[name]
    if path.is_file():
        return path
    raise InputError(f'there is no shipped host "{name}"{near_miss(name, known)}; a file of yours is given by its path')


def read(name: str) -> Described:
    """Reads a host. What does not fit the schema is told later, with what only the drivers find (`Host.start`).

    Raises InputError for a file that cannot be read or is no TOML.
    """
    path = locate(name)
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not TOML: {error}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8: {error}") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    folder = path.resolve().parent
    try:
        file = HostFile.model_validate(document)
    except ValidationError as error:
        mistakes = from_pydantic(error, HostFile)
        left, places = salvage(document, error)
        return Described(left, str(path), folder, places, mistakes)
    return Described(file, str(path), folder)
