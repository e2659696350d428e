"""Mistakes in a host file as a person wants them: file, key path, value, and the near miss."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from mdevfs.errors import escape, key_path
from mdevfs.host.schema import FORMS


def near_miss(value: str, choices: Iterable[str]) -> str:
    """`, did you mean "x"?` or the choices themselves when few; "" when nothing helps."""
    known = sorted(choices)
    close = difflib.get_close_matches(value, known, 1, 0.5)
    if close:
        return f', did you mean "{close[0]}"?'
    return f" (known: {', '.join(known)})" if 0 < len(known) <= 12 else ""


def from_pydantic(error: ValidationError, model: type[BaseModel], prefix: tuple[str | int, ...] = ()) -> list[str]:
    """One line for each of pydantic's errors."""
    return [_line(one, model, prefix).removeprefix(": ") for one in error.errors(include_url=False)]


def _line(one: Mapping[str, Any], model: type[BaseModel], prefix: tuple[str | int, ...]) -> str:
    location = tuple(part for part in one["loc"] if part != "literal")
    where = key_path((*prefix, *location))
    value = escape(str(one["input"]))[:80]
    kind = one["type"]
    if kind == "extra_forbidden":
        return f"{where}: unknown key{near_miss(str(location[-1]), _fields(model, location[:-1]))}"
    if kind == "missing":
        return f"{where}: is required"
    if kind == "literal_error":
        return f'{where}: "{value}" is unknown{near_miss(str(one["input"]), _choices(one))}'
    if kind == "model_type":
        return f'{where}: "{value}" is not a table'
    if kind == "string_pattern_mismatch" and (form := FORMS.get(one["ctx"]["pattern"])) is not None:
        return f'{where}: "{value}" is not {form}'
    message = one["msg"].removeprefix("Value error, ")
    return (
        f'{where}: {message} (is "{value}")' if isinstance(one["input"], str | int | float) else f"{where}: {message}"
    )


def _choices(one: Mapping[str, Any]) -> list[str]:
    expected = str(one.get("ctx", {}).get("expected", ""))
    return [word.strip("' ") for word in expected.replace(" or ", ",").split(",") if word.strip()]


def _fields(model: type[BaseModel], location: Iterable[str | int]) -> list[str]:
    """The known keys of the table at `location`."""
    current: type[BaseModel] | None = model
    for part in location:
        if current is None or isinstance(part, int):
            continue
        annotation = current.model_fields[str(part)].annotation if str(part) in current.model_fields else None
        current = _model_in(annotation)
    return list(current.model_fields) if current is not None else []


def _model_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (list, Union, UnionType) and get_origin(annotation) is not Literal:
        return next((found for one in get_args(annotation) if (found := _model_in(one)) is not None), None)
    return None
