"""What a comparison of two dumps finds, and the verdict that the findings make together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from attrs import define, field, frozen

Direction = Literal["forward", "backward"]
Effect = Literal["loads", "refused", "breaks"]
Severity = Literal["breaks", "can break", "harmless"]

DIRECTIONS: tuple[Direction, ...] = ("forward", "backward")


@frozen
class Finding:
    """One difference and what it does in one direction.

    `effect`: the state `loads` all the same, or is `refused` with a clear error, or `breaks`: bytes are taken for
    others, which ends in a wrong device or in an error about something else. `if_sent`: only if something is sent that
    need not be (a subsection, a field under a condition, a device that not every machine has). `source` and `target`
    are both sides' values, `rule` says why in a sentence, `mend` what to do in the newer one.
    """

    direction: Direction
    code: str
    effect: Effect
    device: str
    rule: str
    field: str = ""
    source: str | None = None
    target: str | None = None
    mend: str | None = None
    if_sent: bool = False

    @property
    def severity(self) -> Severity:
        return "harmless" if self.effect == "loads" else "can break" if self.if_sent else "breaks"


@frozen
class Outcome:
    """The verdict of one direction: `if_sent` qualifies an effect other than `loads`."""

    effect: Effect = "loads"
    if_sent: bool = False

    def __str__(self) -> str:
        return f"{self.effect} if sent" if self.if_sent else self.effect


def outcome(findings: Iterable[Finding]) -> Outcome:
    """The worst of the findings: what always happens before what may, wrong bytes before a refusal."""
    ranks = [(not one.if_sent, one.effect == "breaks", one.effect) for one in findings if one.effect != "loads"]
    if not ranks:
        return Outcome()
    always, _, effect = max(ranks)
    return Outcome(effect, not always)


@define
class Findings:
    """Collects what one direction does to one device."""

    direction: Direction
    device: str
    found: list[Finding] = field(factory=list)

    def finding(
        self,
        code: str,
        effect: Effect,
        rule: str,
        *,
        at: str = "",
        source: str | None = None,
        target: str | None = None,
        mend: str | None = None,
        if_sent: bool = False,
    ) -> None:
        """Adds one; `at` is the field's path."""
        if_sent = if_sent and effect != "loads"
        self.found.append(Finding(self.direction, code, effect, self.device, rule, at, source, target, mend, if_sent))
