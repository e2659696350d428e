"""The rows as one table for people and as JSON for programs."""

from __future__ import annotations

import json
import os
import platform

import attrs

from .measures import Measure
from .timing import Result

NANOSECONDS = {"us": 1e3, "ms": 1e6, "s": 1e9}
HEAD = ("figure", "mdevfs", "compared with", "its figure", "ratio (lowest..highest round)", "goal", "met")


@attrs.frozen
class Row:
    """A measure and its result; `problem` says why there is none."""

    measure: Measure
    result: Result | None
    problem: str = ""

    @property
    def met(self) -> bool | None:
        """None without a goal or without a figure."""
        if self.result is None or self.measure.goal is None:
            return None
        ratio = self.result.ratio
        return (self._scaled(self.result.value) if ratio is None else ratio) <= self.measure.goal

    def _scaled(self, value: float) -> float:
        return value / NANOSECONDS.get(self.measure.unit, 1.0)

    def as_json(self) -> dict[str, object]:
        measure, result = self.measure, self.result
        facts: dict[str, object] = {
            "name": measure.name,
            "value": None,
            "unit": measure.unit,
            "compared_with": measure.compared_with or None,
            "reference": None,
            "ratio": None,
            "spread": None,
            "goal": measure.goal,
            "met": self.met,
        }
        if result is None:
            return facts | {"problem": self.problem}
        facts["value"] = self._scaled(result.value)
        facts["spread"] = list(result.spread)
        if result.reference is None:
            facts["spread"] = [self._scaled(value) for value in result.spread]
        else:
            facts["reference"] = self._scaled(result.reference)
            facts["ratio"] = result.ratio
        return facts

    def as_text(self) -> tuple[str, ...]:
        measure, result, unit = self.measure, self.result, self.measure.unit
        goal = "" if measure.goal is None else f"{measure.goal:g} {unit}"
        if result is None:
            return measure.name, "-", self.problem, "", "", "", ""
        value = self._figure(result.value)
        met = {True: "yes", False: "NO", None: ""}[self.met]
        if result.reference is None or result.ratio is None:
            low, high = (f"{self._scaled(edge):.3g}" for edge in result.spread)
            spread = f"({low}..{high} {unit})" if low != high else ""
            return measure.name, value, measure.compared_with, "", spread, goal, met
        ratio = f"{result.ratio:.2f} x ({result.spread[0]:.2f}..{result.spread[1]:.2f})"
        goal = "" if measure.goal is None else f"{measure.goal:g} x"
        return measure.name, value, measure.compared_with, self._figure(result.reference), ratio, goal, met

    def _figure(self, value: float) -> str:
        return f"{self._scaled(value):.3g} {self.measure.unit}"


def as_json(rows: list[Row]) -> str:
    return json.dumps([row.as_json() for row in rows], indent=2)


def as_table(rows: list[Row]) -> str:
    """Columns as wide as they must be: a problem's text is not cut short, and widens none."""
    cells = [HEAD, *(row.as_text() for row in rows)]
    measured = [HEAD, *(row.as_text() for row in rows if row.result is not None)]
    widths = [max(len(line[column]) for line in measured) for column in range(len(HEAD))]
    widths[0] = max(len(line[0]) for line in cells)
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    lines.insert(1, "  ".join("-" * width for width in widths))
    machine = f"Linux {platform.release()}, Python {platform.python_version()}, {os.cpu_count()} CPUs"
    return "\n".join(
        [*lines, "", f"Medians of one run, both sides in turns, client and servers on one CPU. {machine}."]
    )
