"""Which fields of a description no exercised state ever changed: what nobody drives, nobody tests."""

from __future__ import annotations

from collections.abc import Iterator

from mdevfs.agreement.configurations import Configuration
from mdevfs.state.description import Struct, VMState
from mdevfs.state.fields import Field, Number, Unused
from mdevfs.state.view import View


class Coverage:
    """Paths of a driver's fields, and which of them differed from their reset value in some state that was saved."""

    def __init__(self) -> None:
        self.known: dict[str, None] = {}
        self.changed: set[str] = set()

    def note(self, configuration: Configuration, reset: object) -> None:
        """Looks at the state that the device has now."""
        mdev, driver = configuration.mdev, configuration.release.label
        description, state = mdev.parent.description, mdev.device_state
        now = View(state.registers, mdev.values, state.save_version)
        for path, sent, differs in _compare(description, now, now.inside(reset, state.save_version), driver):
            self.known.setdefault(path)
            if sent and differs:
                self.changed.add(path)

    @property
    def untouched(self) -> list[str]:
        """The paths that never changed, in the descriptions' order."""
        return [path for path in self.known if path not in self.changed]


def _compare(description: VMState, now: View, reset: View, path: str) -> Iterator[tuple[str, bool, bool]]:
    """(path, whether it is sent, whether it differs) of every field; a field's path is where it is in the state, so
    that two forms of one field count once."""
    for one in description.fields:
        if isinstance(one, Unused) or one.fixed or (isinstance(one, Number) and (one.equal or one.le)):
            continue  # nothing that a device could change
        where, sent = f"{path}/{description.name}/{_place(one)}", one.present(now)
        if isinstance(one, Struct):
            for mine, other in zip(one.elements(now), one.elements(reset), strict=True):
                for inner, inner_sent, differs in _compare(one.of, mine, other, where):
                    yield inner, sent and inner_sent, differs
        else:
            yield where, sent, one.held(now) != one.held(reset)
    for sub in description.subsections:
        inner_now, inner_reset = (View(view.state, view.values, sub.version, view.root) for view in (now, reset))
        needed = sub.needed is None or bool(sub.needed(inner_now))
        for inner, sent, differs in _compare(sub, inner_now, inner_reset, path):
            yield inner, sent and needed, differs


def _place(one: Field) -> str:
    first = one.at or 0
    return f"{one.name}[{first}:{first + one.num}]" if isinstance(one.num, int) else one.name
