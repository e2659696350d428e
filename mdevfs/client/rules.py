"""The rules of a caller, from the migration_version patch series (v5, April 2020).

Two devices are incompatible when (0) their types differ, where a type's attribute is used, (1) one of them
lacks the attribute, (2) the read at the source fails, or (3) the write at the target fails. A yes needs the
write to succeed: nothing stands in for it, except `mdevfs/check` where the caller may ask but not write.
"""

from __future__ import annotations

import errno
from pathlib import Path

import attrs

from mdevfs.client.answer import Answer, Reason, Verdict, is_about
from mdevfs.client.handshake import (
    OpenRefused,
    ask_check,
    errno_name,
    last_verdict,
    read_string,
    write_string,
)
from mdevfs.client.places import TYPES, Kind, Place, identify, identify_all
from mdevfs.client.text import PAGE, SourceString
from mdevfs.errors import InputError, MachineError, escape


def check(source: Path | SourceString, target: Path) -> Answer:
    """Whether the source's device could migrate to the target.

    Raises InputError for a path that is no mdev, type or physical device, or for a target that is a plain
    file and would take anything; MachineError when the caller may not read the source or write to the target.
    """
    if isinstance(source, SourceString):
        place = identify("TARGET", target)
        untested = f"a string alone does not tell the source's type: it must be {place.type_id} too (rule 0)"
        notes = (untested,) if place.kind is Kind.TYPE else ()
        return _handshake(source, place, Answer(False, None, str(place), notes=notes))
    return _check_places(*identify_all([("SOURCE", source), ("TARGET", target)]))


def _check_places(source: Place, target: Place) -> Answer:
    asked = _whom_to_read(source, target)
    answer = Answer(False, None, str(target), str(source))
    if reasons := _same_type(source, target) + _attributes_exist(asked, target):
        return attrs.evolve(answer, reasons=reasons)
    if asked is not source:
        answer = _with_note(answer, f"compared as types: the string is that of the source's type {asked.type_id}")
    try:
        string = read_string(asked.attribute)
    except OpenRefused as error:
        raise MachineError(f"cannot read the source: {error}; run as the owner of the tree") from None
    except OSError as error:
        return attrs.evolve(answer, errno=errno_name(error.errno), reasons=(_failed_read(asked, error),))
    return _handshake(string, target, answer)


def _whom_to_read(source: Place, target: Place) -> Place:
    """A type is asked about types: for an mdev against a type, the mdev's own type is read."""
    if source.kind is Kind.MDEV and target.kind is Kind.TYPE and source.type_directory:
        directory = source.type_directory
        return Place(directory, directory, Kind.TYPE, directory)
    return source


def _same_type(source: Place, target: Place) -> tuple[Reason, ...]:
    """Rule 0, where a type's attribute is used on either side."""
    if Kind.TYPE not in (source.kind, target.kind) or (source.type_id and source.type_id == target.type_id):
        return ()
    return (
        Reason(
            code="types-differ",
            rule="a type's migration_version holds for mdevs of that type only",
            side="both",
            source=source.type_id,
            target=target.type_id,
            mend="name a type of the same type-id, or compare two mdevs: their types may differ",
        ),
    )


def _attributes_exist(source: Place, target: Place) -> tuple[Reason, ...]:
    """Rule 1, for both sides at once."""
    reasons = []
    if not source.has_attribute():
        reasons.append(_no_attribute(source, source=True))
    if not target.has_attribute():
        reasons.append(_no_attribute(target, source=False))
    return tuple(reasons)


def _no_attribute(place: Place, source: bool) -> Reason:
    why, mend = "its driver never migrates", "use a vendor driver that migrates"
    if (place.directory / TYPES).is_dir():
        why, mend = "it is a parent", f"name one of its types, under {TYPES}, or one of its mdevs"
    return Reason(
        code="no-attribute",
        rule=f"{place} has no migration_version: {why}",
        side="source" if source else "target",
        mend=mend,
    )


def _failed_read(source: Place, error: OSError) -> Reason:
    """Rule 2."""
    if error.errno == errno.ENOENT:
        return _no_attribute(source, source=True)
    if error.errno == errno.ENODEV:
        return Reason(
            code="source-cannot-migrate",
            rule="the source answers a read of migration_version with ENODEV: this device does not migrate",
            side="source",
        )
    return Reason(
        code="source-read-failed",
        rule=f"the read of the source's migration_version failed with {errno_name(error.errno)}",
        side="source",
    )


def _handshake(string: SourceString, target: Place, answer: Answer) -> Answer:
    """Rule 3, explained as well as the target can."""
    answer = attrs.evolve(answer, source=string.text)
    unfit = _unfit(string)
    if not target.has_attribute():
        unfit += (_no_attribute(target, source=False),)
    if unfit:
        return attrs.evolve(answer, reasons=unfit)
    if not target.is_live():
        attribute = escape(str(target.attribute))
        raise InputError(f"TARGET {attribute}: a plain file takes anything; expected a live tree")
    explained = ask_check(target.directory, string)
    if explained.note:
        answer = _with_note(answer, explained.note)
    before = last_verdict(target.directory)
    try:
        number = write_string(target.attribute, string)
    except OpenRefused as error:
        return _unwritten(answer, explained.verdict, error)
    verdict = explained.verdict
    if verdict is None and number:
        verdict = _our_last_verdict(target, string, before)
    return _combine(answer, verdict, number)


def _unfit(string: SourceString) -> tuple[Reason, ...]:
    """Strings that no write can judge: 0 bytes do nothing and return 0, what is past a page is not seen."""
    if not string.bare:
        rule = "a migration_version string has at least one character"
        return (Reason(code="string-empty", rule=rule, side="source"),)
    if len(string.data) > PAGE:
        rule = f"a migration_version string has at most {PAGE - 2} characters and a newline"
        return (Reason(code="string-too-long", rule=rule, side="source"),)
    return ()


def _our_last_verdict(target: Place, string: SourceString, before: Verdict | None) -> Verdict | None:
    """The target's last verdict, if it is the one on our write: newer than before, and on our string."""
    last = last_verdict(target.directory)
    if last is None or last.compatible or not is_about(last, string):
        return None
    return last if last.seq > (before.seq if before else 0) else None


def _unwritten(answer: Answer, verdict: Verdict | None, refused: OpenRefused) -> Answer:
    """The caller may not write; it may have been able to ask."""
    if verdict is None:
        raise MachineError(f"cannot write to the target: {refused}; run as the owner of the tree") from None
    answer = _with_note(answer, f"the answer is that of mdevfs/check alone: {refused}")
    if verdict.compatible:
        return attrs.evolve(answer, compatible=True)
    return attrs.evolve(answer, errno=verdict.errno, reasons=verdict.reasons or (_refused(verdict.errno),))


def _combine(answer: Answer, verdict: Verdict | None, number: int) -> Answer:
    """One answer of the write's errno (0: taken) and the verdict, if there is one.

    When they disagree the answer is no: never a false yes.
    """
    taken = number == 0
    errno_of_write = None if taken else errno_name(number)
    if verdict is None or verdict.compatible == taken:
        reasons = verdict.reasons if verdict else ()
    else:
        reasons = (_answers_differ(verdict, errno_of_write), *verdict.reasons)
    if taken and not reasons:
        return attrs.evolve(answer, compatible=True)
    return attrs.evolve(answer, errno=errno_of_write, reasons=reasons or (_refused(errno_of_write),))


def _refused(answered: str | None) -> Reason:
    return Reason(
        code="refused",
        rule=f"the target answered {answered or 'no'} and gave no reason",
        side="both",
        mend="look at the log of the target's host",
    )


def _answers_differ(verdict: Verdict, answered: str | None) -> Reason:
    said = "compatible" if verdict.compatible else "incompatible"
    wrote = f"failed with {answered}" if answered else "succeeded"
    rule = f"mdevfs/check says {said}, the write of migration_version {wrote}"
    return Reason(code="answers-differ", rule=rule, side="target")


def _with_note(answer: Answer, note: str) -> Answer:
    return attrs.evolve(answer, notes=(*answer.notes, note))
