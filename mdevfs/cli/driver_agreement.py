"""`mdevfs driver test`: handshake and load of a driver held against each other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mdevfs.cli.drivers import find
from mdevfs.cli.output import Json, print_json
from mdevfs.errors import EXIT_NO, EXIT_YES, InputError, escape

if TYPE_CHECKING:
    from collections.abc import Callable

    from mdevfs.agreement.configurations import Release
    from mdevfs.agreement.matrix import Report
    from mdevfs.vendor.api import VendorDriver

EXAMPLE = """\b
Examples:
  mdevfs driver test e1000
  mdevfs driver test ./my_nic.py --against ./releases/my_nic-1.0.py"""
SHOWN = 20  # faults and wrong pairs that people are shown of each kind


def test(
    name: Annotated[str, typer.Argument(metavar="DRIVER", help="A vendor driver by its name, or a driver file.")],
    against: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="An older release of the driver; again for each one, the oldest first."),
    ] = None,
    json: Json = False,
) -> int:
    """Try whether what the handshake accepts also loads.

    Every ordered pair of a driver's distinct configurations (settings, machine types, versions, parameters), and of
    drivers that share its device model: what is accepted must load, run on, and show what a twin shows that never
    migrated; what is refused must not load. Every field of the state must have been something else than after reset.

    Exit code: 0 they agree, 1 they do not, 2 wrong use.
    """
    import trio

    from mdevfs.agreement.matrix import examine

    releases = _releases(name, against or [])
    with _progress(json) as told:
        report = trio.run(examine, releases, told)
    if not report.classes:
        raise InputError([f"no configuration of {escape(name)} can be made", *report.found.impossible[:SHOWN]])
    if json:
        print_json(_as_dict(report))
    else:
        print("\n".join(_lines(report)))
    return EXIT_YES if report.holds else EXIT_NO


def _releases(name: str, against: list[Path]) -> list[Release]:
    """Older releases first, then the driver, then others that share its model."""
    from mdevfs.agreement.configurations import Release
    from mdevfs.vendor.loader import all_installed, load_file

    driver = find(name).driver
    found: list[Release] = []
    for path in against:
        older = [one.driver for one in load_file(path).values() if _related(one.driver, driver)]
        if not older:
            raise InputError(f"{path} holds no release of {driver.name}: none of its name or of its device model")
        found += [Release(one, f"{one.name}@{path.stem}") for one in older]
    found.append(Release(driver, driver.name))
    if driver.model is not None:
        others = [one.driver for one in all_installed() if one.driver.name != driver.name]
        sharing = [one for one in others if one.model is not None and one.model.name == driver.model.name]
        found += [Release(one, one.name) for one in sharing]
    return found


def _related(one: type[VendorDriver], driver: type[VendorDriver]) -> bool:
    same_model = one.model is not None and driver.model is not None and one.model.name == driver.model.name
    return one.name == driver.name or same_model


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on a terminal, nothing elsewhere."""
    import sys

    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("pairs")
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _lines(report: Report) -> Iterator[str]:
    from mdevfs.agreement.pairs import MARKS, MEANINGS

    width = len(str(len(report.classes) - 1))
    found = report.found
    yield f"{len(found.classes)} distinct configurations of {found.tried} tried ({len(found.impossible)} impossible)"
    yield ""
    yield "Rows are sources, columns targets; above the diagonal forward, below it backward."
    for index, one in enumerate(report.classes):
        yield f"  {index:>{width}}  {report.row(index)}  {escape(one.label)}"
    yield ""
    for outcome, count in report.counts().items():
        halves = f"{report.counts('forward')[outcome]} forward, {report.counts('backward')[outcome]} backward"
        yield f"  {MARKS[outcome]}  {count:>5}  ({halves})  {MEANINGS[outcome]}"
    yield from _wrongs(report)


def _wrongs(report: Report) -> Iterator[str]:
    lines = [f"{outcome}: {source} -> {target}: {why}" for outcome, source, target, why in _wrong_pairs(report)]
    kinds = (
        ("Handshake and load disagree", lines),
        ("What the driver does wrong by itself", report.faults),
        ("Fields that no exercised state changed: exercise must, or nobody tests them", report.untouched),
    )
    for title, found in kinds:
        if found:
            yield ""
            yield f"{title}:"
            yield from (f"  {escape(line)}" for line in found[:SHOWN])
            if len(found) > SHOWN:
                yield f"  and {len(found) - SHOWN} more"


def _wrong_pairs(report: Report) -> Iterator[tuple[str, str, str, str]]:
    for pair in report.wrong:
        yield pair.outcome, report.classes[pair.source].label, report.classes[pair.target].label, pair.why


def _as_dict(report: Report) -> dict[str, Any]:
    return {
        "schema": 1,
        "holds": report.holds,
        "tried": report.found.tried,
        "impossible": report.found.impossible,
        "configurations": [{"label": one.label, "string": one.string} for one in report.classes],
        "pairs": [
            {"source": pair.source, "target": pair.target, "outcome": pair.outcome, "why": pair.why}
            for pair in report.pairs.values()
        ],
        "counts": {half or "all": dict(report.counts(half)) for half in ("", "forward", "backward")},
        "faults": report.faults,
        "untouched": report.untouched,
    }
