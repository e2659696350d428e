"""All ordered pairs of a driver's configurations, and what came of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from attrs import define, field

from mdevfs.agreement.configurations import Configuration, Found, Release, find
from mdevfs.agreement.coverage import Coverage
from mdevfs.agreement.pairs import MARKS, Outcome, Pair, Source, judge
from mdevfs.agreement.transfer import save
from mdevfs.errors import MdevfsError

SEEDS = (0, 1, 2, 3)  # 0: the reset state


@define
class Report:
    """The pairs by (source, target), what drivers do wrong by themselves, and fields that no state ever changed."""

    found: Found
    pairs: dict[tuple[int, int], Pair] = field(factory=dict)
    faults: list[str] = field(factory=list)
    untouched: list[str] = field(factory=list)

    @property
    def classes(self) -> Sequence[Configuration]:
        """The configurations, in the order of the matrix."""
        return self.found.classes

    @property
    def wrong(self) -> list[Pair]:
        """The pairs in which handshake and load disagree."""
        return [pair for pair in self.pairs.values() if not pair.holds]

    @property
    def holds(self) -> bool:
        """Whether there is nothing wrong at all."""
        return not (self.wrong or self.faults or self.untouched)

    def counts(self, half: str = "") -> Counter[Outcome]:
        """How many pairs came out how; `half`: "forward" (the target is later in the order), "backward"."""
        chosen = {
            "": self.pairs.values(),
            "forward": [pair for pair in self.pairs.values() if pair.source < pair.target],
            "backward": [pair for pair in self.pairs.values() if pair.source > pair.target],
        }
        return Counter(pair.outcome for pair in chosen[half])

    def row(self, source: int) -> str:
        """A row of the matrix, a mark for each target."""
        return "".join(MARKS[self.pairs[source, target].outcome] for target in range(len(self.classes)))


async def examine(releases: Sequence[Release], progress: Callable[[int, int], None] | None = None) -> Report:
    """Tries every ordered pair, a configuration with itself included. `progress` hears of sources done and in all."""
    report = Report(await find(releases))
    coverage = Coverage()
    for index, configuration in enumerate(report.classes):
        source = Source.of(configuration, SEEDS)
        report.faults += [f"{configuration.label}: {fault}" for fault in source.faults]
        _note(coverage, configuration)
        for other, target in enumerate(report.classes):
            report.pairs[index, other] = await judge(index, source, other, target)
        if progress is not None:
            progress(index + 1, len(report.classes))
    report.untouched = coverage.untouched
    return report


def _note(coverage: Coverage, configuration: Configuration) -> None:
    mdev, hooks = configuration.mdev, configuration.hooks
    for seed in SEEDS:
        try:
            mdev.device_state.registers = hooks.reset(mdev)
            if seed:
                hooks.exercise(mdev, seed)
            save(configuration)  # for what before_save sets
            coverage.note(configuration, hooks.reset(mdev))
        except MdevfsError:
            continue  # told as the source's fault
