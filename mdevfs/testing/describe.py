"""A host as a test describes it, made a file that `mdevfs` reads."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mdevfs.errors import InputError

Description = str | os.PathLike[str] | Mapping[str, Any]
"""A shipped host's name, a file's path, a host.toml's text (of several lines), or the same as a dict."""


def as_file(host: Description, folder: Path, place: Path) -> str:
    """What `mdevfs mount` takes for a host: the name or the path itself, or a new file in `place`.

    Paths, those of driver files included, are relative to `folder`. Raises InputError for a text that is no TOML, or a
    dict that JSON cannot hold.
    """
    if isinstance(host, str) and "\n" in host:
        try:
            host = tomllib.loads(host)
        except tomllib.TOMLDecodeError as error:
            raise InputError(f"the host's text is not TOML: {error}") from None
    if not isinstance(host, Mapping):
        name = os.fspath(host)
        is_path = not isinstance(host, str) or "/" in name or name.endswith((".toml", ".json"))
        return str(folder / name) if is_path else name
    path = place / "host.json"
    try:
        path.write_text(json.dumps(_from(folder, host), default=os.fspath))
    except (TypeError, ValueError) as error:
        raise InputError(f"the host's description: {error}") from None
    return str(path)


def _from(folder: Path, host: Mapping[str, Any]) -> dict[str, Any]:
    """The description, with its driver files' paths made absolute."""
    section = host.get("host")
    if not isinstance(section, Mapping) or not isinstance(section.get("drivers"), list):
        return dict(host)
    return {**host, "host": {**section, "drivers": [str(folder / one) for one in section["drivers"]]}}
