"""Finding and reading host files: shipped ones by name, others by path; every mistake of the file at once."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

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
    if "/" in name or name.endswith((".toml", ".json")):
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
    """Reads a host, of TOML or, for programs, of JSON. What does not fit the schema is told later, with what only the
    drivers find (`Host.start`).

    Raises InputError for a file that cannot be read or is neither.
    """
    path = locate(name)
    try:
        text = path.read_text(encoding="utf-8")
        document = _from_json(text) if path.suffix == ".json" else tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path}: not TOML: {error}") from None
    except UnicodeError as error:
        raise InputError(f"{path}: not UTF-8: {error}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON: {error}") from None
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


def _from_json(text: str) -> dict[str, Any]:
    document = json.loads(text)
    if not isinstance(document, dict):
        raise ValueError(f"a host is an object, not {type(document).__name__}")
    json.dumps(document, ensure_ascii=False).encode()  # a lone surrogate is no text
    return document
