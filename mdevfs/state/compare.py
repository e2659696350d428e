"""The static verdict of two dumps: would what one side saves load at the other? Both ways, device by device.

It compares what is on the wire: bytes in order, version numbers, the names of sections and subsections. QEMU's
vmstate-static-checker.py compares names, and so errs both ways (tests/vmstate/README.md, section 1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import define, frozen

from mdevfs.state.bytes_diff import BytesDiff, shortened
from mdevfs.state.dump import Described, Device, Dump
from mdevfs.state.finding import DIRECTIONS, Direction, Finding, Findings, Outcome, outcome
from mdevfs.state.layout import Subsections, layout, with_lengths


@frozen
class Comparison:
    """What was found of each device that was compared; `versions`: those of their sections, old and new."""

    directions: tuple[Direction, ...]
    versions: Mapping[str, tuple[int | None, int | None]]
    found: Mapping[str, Sequence[Finding]]

    @property
    def devices(self) -> Sequence[str]:
        """Those that were compared."""
        return list(self.found)

    @property
    def findings(self) -> Sequence[Finding]:
        """Of all devices."""
        return [one for some in self.found.values() for one in some]

    def outcome(self, direction: Direction, device: str | None = None) -> Outcome:
        """The verdict of a direction: of one device, or of all."""
        findings = self.findings if device is None else self.found[device]
        return outcome(one for one in findings if one.direction == direction)


def compare(
    old: Dump, new: Dump, directions: Sequence[Direction] = DIRECTIONS, devices: Sequence[str] | None = None
) -> Comparison:
    """Compares two dumps. Forward: `old` saves and `new` loads. `devices` restricts it to these."""
    names = devices if devices is not None else dict.fromkeys([*old.devices, *new.devices])
    found: dict[str, list[Finding]] = {}
    for name in names:
        found[name] = []
        for direction in directions:
            source, target = (old, new) if direction == "forward" else (new, old)
            found[name] += _Move(source, target, direction, Findings(direction, name)).judged()
    return Comparison(tuple(directions), {name: (_version(old, name), _version(new, name)) for name in names}, found)


def _version(dump: Dump, name: str) -> int | None:
    return dump.devices[name].version if name in dump.devices else None


@define
class _Move:
    """One device's state on its way from a source to a target."""

    source: Dump
    target: Dump
    direction: Direction
    to: Findings

    def judged(self) -> list[Finding]:
        """What is found. A device that the source does not have saves nothing."""
        ours, theirs = (dump.devices.get(self.to.device) for dump in (self.source, self.target))
        if ours is not None:
            self._notes(ours, theirs)
            if theirs is None:
                self._unknown(ours)
            else:
                self._device(ours, theirs)
        return self.to.found

    def _notes(self, *devices: Device | None) -> None:
        for one in devices:
            if one is not None and one.contradictions:
                rule = f"the dump contradicts itself: {shortened(one.contradictions)}"
                self.to.finding("state-dump-contradicts", "loads", rule)
            if one is not None and one.ignored:
                rule = f"keys that QEMU does not write mean nothing: {shortened(one.ignored)}"
                self.to.finding("state-dump-keys", "loads", rule)

    # -- the section

    def _unknown(self, device: Device) -> None:
        name = device.described.name if device.described is not None else device.name
        others = [
            one.name
            for one in self.target.devices.values()
            if one.described is not None and one.described.name == name and device.saved is not None
        ]
        mend = (
            f"the target's {shortened(others)} has the section {name}: make that device at the target"
            if others
            else "keep the device, or migrate machines that do not have it"
        )
        rule = "the target has no such device"
        self.to.finding("state-device-unknown", "refused", rule, source=device.name, mend=mend, if_sent=True)

    def _device(self, ours: Device, theirs: Device) -> None:
        saved, loaded = ours.saved, theirs.saved
        if saved is None or loaded is None:
            self._not_saved(saved, loaded)
        elif saved.name != loaded.name:
            rule = "the description's name is the section's, and the target knows no such section"
            mend = "in the newer one, call the description as before"
            self.to.finding("state-device-unknown", "refused", rule, source=saved.name, target=loaded.name, mend=mend)
        elif self._takes(ours.version, max(theirs.minimum, loaded.minimum), theirs.version, saved, loaded):
            self._described(saved, loaded, ours.version)

    def _not_saved(self, saved: Described | None, loaded: Described | None) -> None:
        sides = [side for side, one in (("source", saved), ("target", loaded)) if one is None]
        self.to.finding(
            "state-not-saved",
            "refused" if len(sides) == 1 else "loads",
            f"at the {' and the '.join(sides)} the device has no description of its state: it cannot migrate",
            mend="keep its description" if sides == ["target"] else "describe its state",
        )

    def _takes(
        self, sent: int, oldest: int, newest: int, saved: Described, loaded: Described, within: str | None = None
    ) -> bool:
        """Whether the target takes this version; of the subsection `within`, if it is one."""
        if oldest <= sent <= newest:
            return True
        new = sent > newest
        code = "state-version-too-new" if new else "state-version-too-old"
        self.to.finding(
            code,
            "refused",
            f"the target's newest version is {newest}" if new else f"the target's oldest version is {oldest}",
            at=within or "",
            source=f"version {sent}",
            target=f"version {newest}" if oldest == newest else f"versions {oldest} to {newest}",
            mend=self._mend_version(new, newest, saved, loaded, within),
            if_sent=within is not None,
        )
        return False

    def _mend_version(self, new: bool, newest: int, saved: Described, loaded: Described, within: str | None) -> str:
        if self.direction == "forward":
            bound = "version" if new else "minimum version"
            verb = "raise" if new else "lower"
            return f"in the newer description, {verb} the {bound} so that it takes the older one's, and load that too"
        if not new:
            return "in the newer description, raise the version again: older ones do not load what is below theirs"
        if within is None and self.source.own and self._loads_at(newest, saved, loaded):
            return f"save with version {newest} (mdevfs/save_state_version), which the target loads"
        return "move what is new into a subsection, which is sent only when it is needed, and keep the version"

    def _loads_at(self, version: int, saved: Described, loaded: Described) -> bool:
        """Whether the source could save this version for the target."""
        if version < saved.minimum:
            return False
        trial = _Move(self.source, self.target, self.direction, Findings(self.direction, self.to.device))
        trial._described(saved, loaded, version)
        return outcome(trial.to.found) in (Outcome(), *(Outcome(effect, True) for effect in ("refused", "breaks")))

    # -- what is in it

    def _described(
        self, saved: Described, loaded: Described, version: int, prefix: str = "", if_sent: bool = False
    ) -> None:
        """Fields, then subsections."""
        dumps = self.source, self.target
        saved, loaded, assumed = with_lengths(saved, dumps[0].tells_lengths, loaded, dumps[1].tells_lengths)
        diff = BytesDiff(self.to, self.direction == "forward", prefix, if_sent, self._subsections)
        diff.alike["state-length-unknown"] += assumed
        diff.compare(layout(saved, version, dumps[0].own), layout(loaded, version, dumps[1].own))
        self._subsections(prefix, Subsections("", saved), Subsections("", loaded))

    def _subsections(self, prefix: str, ours: Subsections, theirs: Subsections | None) -> None:
        """What becomes of the subsections of a description, if they are sent."""
        parent = theirs.described if theirs is not None else None
        known = {one.name: one for one in parent.subsections} if parent is not None else {}
        names = shortened(list(known)) or "none"
        for sub in ours.described.subsections:
            there = known.get(sub.name)
            if parent is None or not (sub.name.startswith(parent.name) and sub.name != parent.name):
                self._not_taken(sub, parent)
            elif there is None:
                self.to.finding(
                    "state-subsection-unknown",
                    "refused",
                    "the target knows no such subsection",
                    at=sub.name,
                    source=sub.name,
                    target=names,
                    mend="switch its feature off at the source, or keep the subsection in the newer description",
                    if_sent=True,
                )
            elif self._takes(sub.version, there.minimum, there.version, sub, there, sub.name):
                self._described(sub, there, sub.version, f"{sub.name}/", True)

    def _not_taken(self, sub: Described, parent: Described | None) -> None:
        rule = (
            f"its name does not begin with {parent.name}: the target takes its bytes for what follows"
            if parent is not None
            else "the target has no such struct, and takes the subsection for what follows"
        )
        mend = "in the newer description, call the struct and its subsections as before"
        self.to.finding("state-subsection-unknown", "breaks", rule, at=sub.name, mend=mend, if_sent=True)
