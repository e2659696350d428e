"""How things are timed: two sides in turns within one run, medians, and the spread of the ratio from round to round.

Times are nanoseconds throughout; `report` turns them into the unit of a row.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from statistics import median
from time import perf_counter_ns

import attrs

Operation = Callable[[], object]
Sampler = Callable[[], list[float]]  # one round: the time of each iteration


@attrs.frozen
class Result:
    """One figure, and where there is something to compare it with, that too.

    `spread` is the lowest and highest ratio of a round, or without a reference the lowest and highest value.
    """

    value: float
    spread: tuple[float, float]
    reference: float | None = None

    @property
    def ratio(self) -> float | None:
        return None if self.reference is None else self.value / self.reference


def timed(operation: Operation) -> float:
    begin = perf_counter_ns()
    operation()
    return perf_counter_ns() - begin


def repeated(operation: Operation, count: int, batch: int = 1) -> Sampler:
    """Rounds of `count` samples; each is the mean of `batch` calls, for what is quicker than the clock is fine."""

    def one_round() -> list[float]:
        samples = []
        for _ in range(count):
            begin = perf_counter_ns()
            for _ in range(batch):
                operation()
            samples.append((perf_counter_ns() - begin) / batch)
        return samples

    return one_round


def external(command: Sequence[str]) -> Sampler:
    """Rounds that a program measures: a line of nanoseconds per sample."""

    def one_round() -> list[float]:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        return [float(line) for line in done.stdout.split()]

    return one_round


def compare(ours: Sampler, theirs: Sampler, rounds: int) -> Result:
    """Both sides in turns, A B, B A, ..., so that a slow spell of the machine meets both."""
    mine: list[list[float]] = []
    others: list[list[float]] = []
    turns = [(mine, ours), (others, theirs)]
    for _ in range(rounds):
        for samples, sampler in turns:
            samples.append(sampler())
        turns.reverse()
    ratios = [median(a) / median(b) for a, b in zip(mine, others, strict=True)]
    return Result(
        value=median(sample for samples in mine for sample in samples),
        reference=median(sample for samples in others for sample in samples),
        spread=(min(ratios), max(ratios)),
    )


def absolute(samples: list[float]) -> Result:
    """A figure that stands for itself."""
    return Result(value=median(samples), spread=(min(samples), max(samples)))
