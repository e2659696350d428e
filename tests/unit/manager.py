"""A manager as the proposals want it: it knows texts alone, those of the target's `migration_info.json` and those under
the source's `migration/`, and tells from them who migrates where (VFIO Migration, RFC v3)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from attrs import frozen

RANGE = re.compile(r"(-?\d+)-(-?\d+)\Z")

Info = Mapping[str, Any]  # one model's object in migration_info.json


@frozen
class Source:
    """A device somewhere: its model's name, its parameter list, and what its migration_version reads; None for what
    cannot be read."""

    where: str
    model: str | None
    parameters: Mapping[str, str]
    string: str | None


def parameter_list(about: Info, values: Mapping[str, str]) -> dict[str, str]:
    """Every parameter whose value is not its off value."""
    return {name: text for name, text in values.items() if text != about["params"][name].get("off_value")}


def allowed(about: Info, text: str) -> bool:
    """Whether allowed_values of a parameter hold a value."""
    values = about.get("allowed_values")
    if values is None:
        return True
    if about["type"] == "set":
        return set(text.split("+") if text else []) <= set(values)
    ranges = [match for value in values if about["type"] == "int" and (match := RANGE.match(value))]
    return text in values or any(int(match[1]) <= int(text) <= int(match[2]) for match in ranges)


def predict(models: Mapping[str, Info] | None, source: Source, machine: str | None = None) -> bool:
    """The models' names are equal, every name of the list exists, every value is allowed. A parameter that the list
    does not name is off at the source, so it must have an off value. What cannot be read means no; so does a machine
    type that the target's tiers call unmigratable."""
    model = models.get(source.model) if models and source.model is not None else None
    if model is None or source.string is None or model.get("tiers", {}).get(machine) == "unmigratable":
        return False
    params, given = model["params"], source.parameters
    return (
        given.keys() <= params.keys()
        and all(allowed(params[name], text) for name, text in given.items())
        and all(name in given or "off_value" in about for name, about in params.items())
    )


def prepared(models: Mapping[str, Info] | None, source: Source) -> list[tuple[str, str]]:
    """What to write to `migration/`: every off value, then the source's list. To `create`: the last of each."""
    model = models.get(source.model or "") if models else None
    params = model["params"] if model is not None else {}
    offs = [(name, about["off_value"]) for name, about in params.items() if "off_value" in about]
    return [*offs, *source.parameters.items()]


def asked_for(about: Info) -> Iterator[str]:
    """Arguments for a device of each version, of each other argument, and of each parameter's least and greatest
    value."""
    yield from (f"version={version}" for version in about.get("versions", {}))
    for name, texts in about.get("arguments", {}).items():
        yield from (f"{name}={text}" for text in texts)
    for name, param in about["params"].items():
        texts = [param["off_value"]] if "off_value" in param else []
        for value in param.get("allowed_values", []):
            match = RANGE.match(value) if param["type"] == "int" else None
            texts += match.groups() if match else [value]
        yield from (f"{name}={text}" for text in dict.fromkeys(texts))
