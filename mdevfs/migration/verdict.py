"""Verdicts: compatible, or every reason why not, each with a code of the catalogue."""

from __future__ import annotations

import errno as _errno
import itertools
import json
import logging
import time
from collections.abc import Iterable, Sequence
from typing import Literal, Protocol

from attrs import define, frozen

from mdevfs.errors import DriverFault, MdevfsError, Refusal, escape
from mdevfs.state.refusal import BadState

log = logging.getLogger(__name__)

SAID = 16  # reasons that one log line gives

Side = Literal["source", "target", "both"]
Operation = Literal["handshake", "create", "parameter", "load"]

SIDES = ("source", "target", "both")


@frozen
class Reason:
    """One reason for a no. `source` and `target` are both sides' values, `rule` a sentence, `mend` what to do."""

    code: str
    rule: str
    parameter: str | None = None
    source: str | None = None
    target: str | None = None
    side: Side = "both"
    mend: str | None = None

    def __attrs_post_init__(self) -> None:
        # A vendor driver's mistake shows in the driver's own frame.
        if not (isinstance(self.code, str) and isinstance(self.rule, str)):
            raise TypeError(f"code {self.code!r} and rule {self.rule!r} of a reason are texts")
        for text in (self.parameter, self.source, self.target, self.mend):
            if not (text is None or isinstance(text, str)):
                raise TypeError(f"reason {self.code}: {text!r} is no text")
        if self.side not in SIDES:
            raise TypeError(f"reason {self.code}: side {self.side!r} is not one of {SIDES}")

    def sentence(self) -> str:
        """The reason on one line, safe for logs and terminals."""
        about = f"{_bounded(self.parameter)}: " if self.parameter else ""
        values = ""
        if self.source is not None or self.target is not None:
            values = f" (source {_quoted(self.source)}, target {_quoted(self.target)})"
        return f"{self.code}: {about}{_bounded(self.rule)}{values}"


def _bounded(text: str) -> str:
    return escape(text)[:200]


def _quoted(value: str | None) -> str:
    return f'"{_bounded(value)}"' if value is not None else "none"


def sentences(reasons: Sequence[Reason]) -> str:
    """The reasons on one line; of very many (a hostile string's) only the first."""
    more = f"; and {len(reasons) - SAID} more" if len(reasons) > SAID else ""
    return "; ".join(reason.sentence() for reason in reasons[:SAID]) + more


@frozen
class Verdict:
    """The outcome of a check; without reasons it is a yes. `errno` is what the refused write answers."""

    reasons: tuple[Reason, ...] = ()
    errno: int = _errno.EINVAL

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.reasons, tuple) or not all(isinstance(one, Reason) for one in self.reasons):
            raise TypeError(f"the reasons of a verdict are a tuple of Reason, not {self.reasons!r:.200}")
        if self.errno not in _errno.errorcode:
            raise ValueError(f"{self.errno!r} is no errno")

    @property
    def compatible(self) -> bool:
        return not self.reasons

    @classmethod
    def no(cls, reasons: Iterable[Reason], errno: int = _errno.EINVAL) -> Verdict:
        """A refusal for these reasons; a yes if there are none."""
        return cls(tuple(reasons), errno)


YES = Verdict()


class Refused(Refusal):
    """What a vendor driver raises to say no: a code of the catalogue, an errno, and the reason's parts.

    >>> raise Refused("no-instances", errno.ENOSPC, rule="the aperture is used up", side="target")
    """

    def __init__(
        self,
        code: str,
        errno: int = _errno.EINVAL,
        *,
        rule: str,
        parameter: str | None = None,
        source: str | None = None,
        target: str | None = None,
        side: Side = "both",
        mend: str | None = None,
    ) -> None:
        reason = Reason(code, rule, parameter, source, target, side, mend)
        super().__init__(reason.sentence())
        self.code = code
        self.errno = errno
        self.reason = reason

    @property
    def verdict(self) -> Verdict:
        return Verdict((self.reason,), self.errno)


class RefusedVerdict(Refusal):
    """A verdict with reasons, on its way back up the stairs as an errno."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(sentences(verdict.reasons))
        self.verdict = verdict
        self.code = verdict.reasons[0].code
        self.errno = verdict.errno


@define(eq=False)
class Record:
    """A verdict as it was given: who was asked what, when. Not to be changed; `frozen` would cost 1 us a handshake."""

    seq: int
    time: float
    operation: Operation
    target: Endpoint
    source: str
    verdict: Verdict = YES

    def json(self) -> str:
        """The object that `mdevfs/last_verdict` and `mdevfs/check` show, and a newline."""
        verdict = self.verdict
        document = {
            "schema": 1,
            "seq": self.seq,
            "time": self.time,
            "operation": self.operation,
            "target": self.target.path,
            "source": self.source,
            "compatible": verdict.compatible,
            "errno": None if verdict.compatible else _errno.errorcode.get(verdict.errno, str(verdict.errno)),
            "reasons": [
                {
                    "code": reason.code,
                    "parameter": reason.parameter,
                    "source": reason.source,
                    "target": reason.target,
                    "rule": reason.rule,
                    "side": reason.side,
                    "mend": reason.mend,
                }
                for reason in verdict.reasons
            ],
        }
        return json.dumps(document) + "\n"


class Endpoint(Protocol):
    """Who was asked: anything with a path in the tree."""

    @property
    def path(self) -> str:
        """From the tree's root."""


class Journal:
    """Numbers a host's verdicts and logs its refusals."""

    def __init__(self) -> None:
        self._seq = itertools.count(1)

    def record(self, operation: Operation, target: Endpoint, source: str, verdict: Verdict) -> Record:
        """A record of this verdict; `target` is who was asked, `source` what was written."""
        record = Record(next(self._seq), time.time(), operation, target, source, verdict)
        if verdict.reasons:
            reasons = sentences(verdict.reasons)
            log.info('%s: %s of "%s" refused: %s', target.path, operation, _bounded(source), reasons)
        return record


def verdict_of(error: MdevfsError) -> Verdict:
    """What an error on the way to an answer means to who asked."""
    if isinstance(error, Refused | RefusedVerdict):
        return error.verdict
    if isinstance(error, BadState):
        return Verdict.no([_state_reason(error)], error.errno)
    if isinstance(error, DriverFault):  # logged where it happened
        reason = Reason("driver-fault", str(error), side="target", mend="mend the vendor driver")
    else:
        name = _errno.errorcode.get(error.errno, str(error.errno))
        reason = Reason("refused", f"the vendor driver answered {name}: {error}", side="target")
    return Verdict((reason,), error.errno)


def _state_reason(error: BadState) -> Reason:
    """What is wrong with a device state: the field is the parameter, and the rule says where in the stream."""
    at = f", at offset {error.offset}" if error.offset is not None else ""
    where = "/".join(part for part in (error.device, error.field) if part)
    return Reason(error.code, error.rule + at, where or None, error.source, error.target, "both", error.mend)
