"""The version of the device state as a migration parameter, so that the handshake knows what the load will.

A description of several versions (VMState.version) gives its driver's model the parameter `state-version`: what the
source saves with. The target takes every version that it loads, whatever it would save with itself; strings without
it mean the version that the driver began with (VMState.first).
"""

from __future__ import annotations

from collections.abc import Collection

from attrs import evolve, frozen

from mdevfs.migration.model import DeviceModel
from mdevfs.migration.parameters import Int, Value
from mdevfs.migration.verdict import Reason, Verdict
from mdevfs.state.description import VMState

STATE_VERSION = "state-version"


@frozen
class StateVersion(Int):
    """One-sided: the source's value must be one that the target loads."""

    def accepts(self, source: Value, target: Value) -> bool:
        return self.allows(source)


def with_state_version(model: DeviceModel, description: VMState) -> DeviceModel:
    """The model, and `state-version` where the description has more versions than the first."""
    if description.version == description.first:
        return model
    takes = range(description.minimum, description.version + 1)
    off = description.first if description.first in takes else None
    doc = "version of the device state that is saved"
    return evolve(
        model,
        params=[*model.params, StateVersion(STATE_VERSION, description.version, off, takes, doc, state_only=True)],
    )


def saved_with(source: str, description: VMState) -> int:
    """The version that a source saves with, by its string; the first where the string says nothing readable."""
    for item in source.split(","):
        name, _, text = item.partition("=")
        if name == STATE_VERSION and text.isdecimal():
            return int(text)
    return description.first


def blocked_verdict(source: str, description: VMState, blocked: Collection[int]) -> Verdict | None:
    """The refusal of a source whose state would come in a version that is blocked here; None: it is not."""
    if not blocked or (version := saved_with(source, description)) not in blocked:
        return None
    why = description.blocked.get(version)
    return Verdict.no(
        [
            Reason(
                "state-version-blocked",
                "the target has this version of the device state blocked" + (f": {why}" if why else ""),
                STATE_VERSION,
                str(version),
                f"blocked: {', '.join(map(str, sorted(blocked)))}",
                side="target",
                mend="save with another version (mdevfs/save_state_version), or allow it at the target "
                "(mdevfs/blocked_state_versions)",
            )
        ]
    )
