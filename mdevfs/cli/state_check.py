"""`mdevfs state check OLD NEW`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mdevfs.cli.descriptions import read
from mdevfs.cli.output import Json, print_json
from mdevfs.errors import EXIT_NO, EXIT_YES, InputError, escape

if TYPE_CHECKING:
    from mdevfs.state.compare import Comparison
    from mdevfs.state.dump import Dump
    from mdevfs.state.finding import Direction, Finding

EXAMPLE = """\b
Examples:
  mdevfs state check qemu-7.2.json qemu-11.1.json --device e1000
  mdevfs state check ./my_driver-1.0.py ./my_driver.py
where qemu-system-x86_64 -M q35 -display none -dump-vmstate FILE writes the dumps"""


def check(
    old: Annotated[
        str,
        typer.Argument(metavar="OLD", help="The older one: what -dump-vmstate wrote, or DRIVER, or DRIVER@VERSION."),
    ],
    new: Annotated[str, typer.Argument(metavar="NEW", help="The newer one, likewise.")],
    device: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only this device; may be repeated.")] = None,
    forward: Annotated[bool, typer.Option("--forward", help="Only: OLD saves, NEW loads.")] = False,
    backward: Annotated[bool, typer.Option("--backward", help="Only: NEW saves, OLD loads.")] = False,
    allow_if_sent: Annotated[
        bool, typer.Option("--allow-if-sent", help="Exit 0 also where only what need not be sent would fail.")
    ] = False,
    json: Json = False,
) -> int:
    """Say whether device state that one side saves loads at the other, from their descriptions alone.

    A direction loads, or it is refused with a clear error, or it breaks: bytes are taken for others. "If sent" says
    that this happens only with a subsection, a field under a condition, or a device that not every machine has.

    Exit code: 0 where every direction that was asked for loads, 1 otherwise, 2 for a file that is no dump.
    """
    from mdevfs.state.compare import compare

    before, after = _read(old, new)
    asked = [name for name, wanted in (("forward", forward), ("backward", backward)) if wanted]
    directions: Any = asked or ["forward", "backward"]
    result = compare(before, after, directions, _known(device, before, after))
    if json:
        print_json(as_dict(result, (old, before), (new, after)))
    else:
        print("\n".join(lines(result)))
    outcomes = [result.outcome(direction) for direction in result.directions]
    fine = all(one.effect == "loads" or (allow_if_sent and one.if_sent) for one in outcomes)
    return EXIT_YES if fine else EXIT_NO


def _read(*words: str) -> list[Dump]:
    """Raises InputError with the mistakes of all."""
    dumps, mistakes = [], []
    for word in words:
        try:
            dumps.append(read(word))
        except InputError as error:
            mistakes += error.mistakes
    if mistakes:
        raise InputError(mistakes)
    return dumps


def _known(names: list[str] | None, *dumps: Dump) -> list[str] | None:
    from mdevfs.host.mistakes import near_miss

    if not names:
        return None
    known = {name for dump in dumps for name in dump.devices}
    if mistakes := [
        f'no dump has a device "{escape(one)}"{near_miss(one, known)}' for one in names if one not in known
    ]:
        raise InputError(mistakes)
    return list(dict.fromkeys(names))


# -- for programs


def as_dict(result: Comparison, *dumps: tuple[str, Dump]) -> dict[str, Any]:
    """One JSON object. `when` is null where it loads."""
    (old, before), (new, after) = dumps
    return {
        "schema": 1,
        "old": {"name": old, "machine": before.machine},
        "new": {"name": new, "machine": after.machine},
        **{direction: _verdict(result, direction) for direction in result.directions},
        "devices": [_device(result, name) for name in result.devices],
    }


def _verdict(result: Comparison, direction: Direction, device: str | None = None) -> dict[str, str | None]:
    found = result.outcome(direction, device)
    when = None if found.effect == "loads" else "if-sent" if found.if_sent else "always"
    return {"verdict": found.effect, "when": when}


def _device(result: Comparison, name: str) -> dict[str, Any]:
    old, new = result.versions[name]
    return {
        "device": name,
        "old_version": old,
        "new_version": new,
        **{direction: _verdict(result, direction, name) for direction in result.directions},
        "findings": [_finding(one) for one in result.found[name]],
    }


def _finding(one: Finding) -> dict[str, Any]:
    return {
        "direction": one.direction,
        "severity": one.severity,
        "verdict": one.effect,
        "if_sent": one.if_sent,
        "code": one.code,
        "field": one.field or None,
        "source": one.source,
        "target": one.target,
        "rule": one.rule,
        "mend": one.mend,
    }


# -- for people


def lines(result: Comparison) -> Iterator[str]:
    """A block for each device of which there is something to say; the verdicts. All that a dump said is escaped."""
    told = None
    for name, found in result.found.items():
        if found:
            yield from _block(result, name, found)
            told = told or next((one.code for one in found if one.effect != "loads"), None)
    for direction in result.directions:
        yield f"{direction}, {_WAYS[direction]}: {_summary(result, direction)}"
    if told:
        yield f"more: mdevfs explain {told}"


_WAYS: dict[Direction, str] = {"forward": "OLD saves and NEW loads", "backward": "NEW saves and OLD loads"}


def _summary(result: Comparison, direction: Direction) -> str:
    bad = [name for name in result.devices if result.outcome(direction, name).effect != "loads"]
    count = f"{len(result.devices)} device{'s' * (len(result.devices) != 1)}"
    return f"{result.outcome(direction)} ({len(bad)} of {count})" if bad else f"loads ({count})"


def _block(result: Comparison, name: str, found: Sequence[Finding]) -> Iterator[str]:
    old, new = ("none" if one is None else str(one) for one in result.versions[name])
    verdicts = ", ".join(f"{one} {result.outcome(one, name)}" for one in result.directions)
    versions = f"version {old}" if old == new else f"version {old} -> {new}"
    yield f"{escape(name)}, {versions}: {verdicts}"
    for ways, one in _both_ways(found):
        yield f"  {ways}: {_sentence(one)}"
        if one.mend:
            yield f"    mend: {escape(one.mend)}"


def _both_ways(found: Sequence[Finding]) -> Iterator[tuple[str, Finding]]:
    """Each finding with its directions; one that is the same in both, once."""
    grouped: dict[object, list[Finding]] = {}
    for one in found:
        key = (one.code, one.effect, one.if_sent, one.rule, one.mend, *_old_and_new(one))
        grouped.setdefault(key, []).append(one)
    for same in grouped.values():
        yield " and ".join(one.direction for one in same), same[0]


def _old_and_new(one: Finding) -> tuple[str | None, str | None]:
    return (one.source, one.target) if one.direction == "forward" else (one.target, one.source)


def _sentence(one: Finding) -> str:
    effect = "harmless" if one.effect == "loads" else f"{one.effect} if sent" if one.if_sent else one.effect
    about = f"{escape(one.field)}: " if one.field else ""
    given = zip(("old", "new"), _old_and_new(one), strict=True)
    values = "; ".join(f"{side}: {escape(value)}" for side, value in given if value is not None)
    return f"{effect}, {one.code}: {about}{escape(one.rule)}" + (f" ({values})" if values else "")
