"""What can be asked of a running host: one model per verb, which carries itself out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError

from mdevfs.control.running import Running
from mdevfs.errors import InputError, escape
from mdevfs.host.mistakes import from_pydantic, near_miss

Answer = dict[str, object]


class Verb(BaseModel):
    """A request but for its `op`. What `carry_out` gives is the answer; `did` in it is a sentence for people."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    op: ClassVar[str]

    async def carry_out(self, running: Running) -> Answer:
        """Does it. Raises MdevfsError, and then nothing has changed."""
        raise NotImplementedError


def parse(document: object, verbs: Mapping[str, type[Verb]]) -> Verb:
    """The verb that a request asks for. Raises InputError with every mistake."""
    op = document.get("op") if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(op, str):
        raise InputError('a request is one line of JSON, an object with an "op"')
    verb = verbs.get(op)
    if verb is None:
        raise InputError(f'op: "{escape(op)}" is unknown{near_miss(op, verbs)}')
    rest: dict[str, Any] = {name: value for name, value in document.items() if name != "op"}
    try:
        return verb.model_validate(rest)
    except ValidationError as error:
        raise InputError(from_pydantic(error, verb)) from None


def unknown(what: str, name: str, known: Iterable[str]) -> InputError:
    """The mistake of naming what is not there."""
    return InputError(f'there is no {what} "{escape(name)}"{near_miss(name, known)}')
