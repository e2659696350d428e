"""What a check answers, and the verdict that a target may give with it (JSON, `"schema": 1`)."""

from __future__ import annotations

import json
from typing import Literal, cast

import attrs

from mdevfs.client.text import SourceString
from mdevfs.errors import escape

Side = Literal["source", "target", "both"]
SIDES: tuple[Side, ...] = ("source", "target", "both")


@attrs.frozen
class Reason:
    """One reason why not; `code` names its page in the catalogue (`mdevfs explain CODE`)."""

    code: str
    rule: str
    side: Side
    parameter: str | None = None
    source: str | None = None
    target: str | None = None
    mend: str | None = None


@attrs.frozen
class Verdict:
    """What `mdevfs/check` or `mdevfs/last_verdict` says; `errno` is a name such as `EINVAL`."""

    seq: int
    source: str
    compatible: bool
    errno: str | None
    reasons: tuple[Reason, ...]


@attrs.frozen
class Answer:
    """The outcome of a check.

    `source` is the string that was asked with, without its newline (None: there was none to ask with);
    `errno` is the name of the error that ended the handshake; `notes` say what could not be tested, and why.
    """

    compatible: bool
    source: str | None
    target: str
    source_path: str | None = None
    errno: str | None = None
    reasons: tuple[Reason, ...] = ()
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, object]:
        """The shape of `mdevfs/last_verdict`, with the source's path and the notes added."""
        return {
            "schema": 1,
            "operation": "handshake",
            "target": self.target,
            "source": self.source,
            "source_path": self.source_path,
            "compatible": self.compatible,
            "errno": self.errno,
            "reasons": [attrs.asdict(reason) for reason in self.reasons],
            "notes": list(self.notes),
        }


def parse_verdict(data: bytes) -> Verdict:
    """Read a verdict's JSON. Raises ValueError, saying what is wrong, whatever the bytes are."""
    try:
        found = json.loads(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(found, dict) or found.get("schema") != 1:
        raise ValueError('no JSON object with "schema": 1')
    verdict = cast(dict[str, object], found)
    reasons = verdict.get("reasons")
    if not isinstance(reasons, list):
        raise ValueError("reasons is no list")
    return Verdict(
        seq=_whole_number(verdict, "seq"),
        source=_text(verdict, "source"),
        compatible=_truth(verdict, "compatible"),
        errno=_text_or_none(verdict, "errno"),
        reasons=tuple(parse_reason(reason) for reason in reasons),
    )


def parse_reason(found: object) -> Reason:
    """Read one reason of a verdict. Raises ValueError."""
    if not isinstance(found, dict):
        raise ValueError("a reason is no object")
    reason = cast(dict[str, object], found)
    side = next((side for side in SIDES if side == reason.get("side")), None)
    if side is None:
        raise ValueError(f"side is none of {', '.join(SIDES)}")
    return Reason(
        code=_text(reason, "code"),
        rule=_text(reason, "rule"),
        side=side,
        parameter=_text_or_none(reason, "parameter"),
        source=_text_or_none(reason, "source"),
        target=_text_or_none(reason, "target"),
        mend=_text_or_none(reason, "mend"),
    )


def _text(holder: dict[str, object], key: str) -> str:
    value = holder.get(key)
    if not isinstance(value, str):
        raise ValueError(f"{key} is no text")
    return value


def _text_or_none(holder: dict[str, object], key: str) -> str | None:
    return None if holder.get(key) is None else _text(holder, key)


def _whole_number(holder: dict[str, object], key: str) -> int:
    value = holder.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"{key} is no whole number")
    return value


def _truth(holder: dict[str, object], key: str) -> bool:
    value = holder.get(key)
    if not isinstance(value, bool):
        raise ValueError(f"{key} is neither true nor false")
    return value


def is_about(verdict: Verdict, string: SourceString) -> bool:
    """Whether the verdict was given on this string, which a verdict shows plain or escaped."""
    return verdict.source in (string.text, escape(string.bare))
