"""What the functions in a description are given, and the object that holds a device's state."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Self

from attrs import evolve, frozen

from mdevfs.state.memory import Memory

_STEP = re.compile(r"([^.\[\]]+)|\[([0-9]+)\]")


@frozen
class View:
    """A device's state as a description sees it: `state` is the object that fields read and write (of a struct its
    own, `root` the whole device's), `values` the migration parameters, `version` the section's."""

    state: Any
    values: Mapping[str, object]
    version: int
    root: Any = None

    def inside(self, state: object, version: int) -> View:
        """The view of a struct in it."""
        return evolve(self, state=state, version=version, root=self.root if self.root is not None else self.state)


class Registers:
    """A device's state where the driver has no class of its own: attributes, as the description's paths name them."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Registers) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]

    def copy(self) -> Self:
        """Another state with the same values, its lists and bytes its own; for a look that changes what it looks at."""
        made = type(self)()
        vars(made).update({name: _copy(value) for name, value in vars(self).items()})
        return made

    def __repr__(self) -> str:
        return f"Registers({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"


def _copy(value: Any) -> Any:
    if isinstance(value, Registers):
        return value.copy()
    if isinstance(value, list):
        return [_copy(one) for one in value] if value and not isinstance(value[0], int) else value.copy()
    return value.copy() if isinstance(value, bytearray | Memory | set | dict) else value


Step = str | int


def steps(path: str) -> tuple[Step, ...]:
    """A path's steps: "tx.data" is ("tx", "data"), "core.tx[1].vlan" ("core", "tx", 1, "vlan")."""
    return tuple(name or int(index) for name, index in _STEP.findall(path))


def get(state: object, path: tuple[Step, ...]) -> Any:
    """What is at a path."""
    for step in path:
        state = state[step] if isinstance(step, int) else getattr(state, step)  # type: ignore[index]
    return state


def put(state: object, path: tuple[Step, ...], value: object) -> None:
    """Sets what is at a path."""
    above, last = get(state, path[:-1]), path[-1]
    if isinstance(last, int):
        above[last] = value
    else:
        setattr(above, last, value)


def make(state: object, path: tuple[Step, ...], value: object) -> None:
    """Sets what is at a path of names, making the Registers on the way to it."""
    for step in path[:-1]:
        assert isinstance(step, str)
        if not hasattr(state, step):
            setattr(state, step, Registers())
        state = getattr(state, step)
    setattr(state, str(path[-1]), value)
