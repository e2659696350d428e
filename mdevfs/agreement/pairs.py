"""One ordered pair of configurations: the handshake's answer, and what the load of real states then does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from attrs import define, field, frozen

from mdevfs.agreement.configurations import Configuration
from mdevfs.agreement.transfer import load, save
from mdevfs.errors import MdevfsError
from mdevfs.migration.verdict import Verdict, verdict_of

Outcome = Literal["yes", "no", "string", "caution", "older version", "false yes", "loads", "blocked"]
MARKS: Mapping[Outcome, str] = {
    "yes": "y",
    "no": ".",
    "string": "s",
    "caution": "c",
    "older version": "v",
    "blocked": "-",
    "false yes": "!",
    "loads": "?",
}
MEANINGS: Mapping[Outcome, str] = {
    "yes": "accepted, loads, runs on, and shows what a twin that never migrated shows",
    "no": "refused, and the bytes alone are refused too",
    "string": "refused, and by the load for the string that the stream carries; the bytes alone would load",
    "caution": "refused; the bytes alone would load, and the driver says why it is stricter",
    "older version": "accepted and loads; the source was told to save with an older version, what came later is lost",
    "blocked": "one of the two does not migrate at all",
    "false yes": "accepted, but the state does not load, or the device is not what it was",
    "loads": "refused, but the load takes it, and the driver names no caution",
}
LATER = 1_000_003  # what turns the seed of a state into that of the further steps


@frozen
class Pair:
    """What became of it; `why` names what is wrong."""

    source: int
    target: int
    outcome: Outcome
    why: str = ""

    @property
    def holds(self) -> bool:
        """Whether handshake and load agree."""
        return self.outcome not in ("false yes", "loads")


@frozen
class Seen:
    """What a guest sees of a device that never migrated: at once, and after further steps."""

    at_once: Mapping[str, object]
    later: Mapping[str, object]


@define
class Source:
    """A configuration as a source: its states in use, each with its bytes and its twin."""

    configuration: Configuration
    states: list[tuple[int, bytes, Seen]] = field(factory=list)
    faults: list[str] = field(factory=list)

    @classmethod
    def of(cls, configuration: Configuration, seeds: Sequence[int]) -> Source:
        """Drives the device by each seed from its reset state; what the driver does wrong is in `faults`."""
        made = cls(configuration)
        for seed in seeds:
            try:
                made.states.append((seed, made._driven(seed), made._twin(seed)))
            except MdevfsError as error:
                made.faults.append(f"seed {seed}: {error}")
        return made

    @property
    def saves_older(self) -> bool:
        """Whether it was told to save with a version that is not its newest (seed 002: backward, and forced)."""
        mdev = self.configuration.mdev
        return mdev.device_state.save_version < mdev.parent.description.version

    def _drive(self, seed: int) -> None:
        """From the reset state, which seed 0 is, into a state in use."""
        mdev, hooks = self.configuration.mdev, self.configuration.hooks
        mdev.device_state.registers = hooks.reset(mdev)
        if seed:
            hooks.exercise(mdev, seed)

    def _driven(self, seed: int) -> bytes:
        self._drive(seed)
        first = save(self.configuration)
        self._drive(seed)
        if save(self.configuration) != first:
            self.faults.append(f"seed {seed}: exercise is not reproducible: two runs give two states")
        return first

    def _twin(self, seed: int) -> Seen:
        self._drive(seed)
        at_once = dict(self.configuration.hooks.fingerprint(self.configuration.mdev))
        self._drive(seed)
        return Seen(at_once, run_on(self.configuration, seed))


def run_on(configuration: Configuration, seed: int) -> Mapping[str, object]:
    """Further steps, and what a guest then sees."""
    configuration.hooks.exercise(configuration.mdev, seed + LATER)
    return dict(configuration.hooks.fingerprint(configuration.mdev))


async def judge(index: int, source: Source, other: int, target: Configuration) -> Pair:
    """Asks the target, then loads every state of the source into it."""
    string = source.configuration.string
    if string is None or target.string is None:
        return Pair(index, other, "blocked")
    verdict = await _ask(target, string)
    if not verdict.compatible:
        return Pair(index, other, *_refused(source, target, verdict))
    pair = Pair(index, other, "yes")
    for seed, data, twin in source.states:
        try:
            why = _migrates(target, seed, data, twin)
        except MdevfsError as error:
            return Pair(index, other, "false yes", f"state of seed {seed}: it does not load and run: {error}")
        if why:
            outcome: Outcome = "older version" if source.saves_older else "false yes"
            pair = Pair(index, other, outcome, f"state of seed {seed}: {why}")
    return pair


async def _ask(target: Configuration, string: str) -> Verdict:
    try:
        verdict = target.hooks.check(target.mdev, string)
        return verdict if isinstance(verdict, Verdict) else await verdict
    except MdevfsError as error:
        return verdict_of(error)


def _migrates(target: Configuration, seed: int, data: bytes, twin: Seen) -> str:
    """How the migrated device differs from its twin; empty when it does not. Raises MdevfsError."""
    target.mdev.device_state.registers = load(target, data)
    if why := _difference(twin.at_once, target.hooks.fingerprint(target.mdev)):
        return why
    target.mdev.device_state.registers = load(target, data)
    why = _difference(twin.later, run_on(target, seed))
    return f"after further steps {why}" if why else ""


def _difference(wanted: Mapping[str, object], shown: Mapping[str, object]) -> str:
    different = [name for name in wanted if name not in shown or shown[name] != wanted[name]]
    if not different:
        return ""
    name = different[0]
    more = f", and {len(different) - 1} more" if len(different) > 1 else ""
    return f"{name} is {shown.get(name)!r:.60}, a twin that never migrated has {wanted[name]!r:.60}{more}"


def _refused(source: Source, target: Configuration, verdict: Verdict) -> tuple[Outcome, str]:
    loads = None
    for seed, data, _ in source.states:
        try:
            load(target, data)
            loads = seed
            break
        except MdevfsError:
            continue
    if loads is None:
        return "no", ""
    cautions = target.hooks.driver.cautions
    named = [reason.parameter or reason.code for reason in verdict.reasons]
    if any(name in cautions for name in named):
        return "caution", "; ".join(cautions[name] for name in named if name in cautions)
    if target.mdev.parent.description.bare:
        return "loads", f"refused for {', '.join(named)}, but the state of seed {loads} loads"
    return "string", ", ".join(named)
