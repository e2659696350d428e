"""The migration state machine of VFIO, version 2 (drivers/vfio/vfio_main.c, vfio_mig_get_next_state, Linux 6.8)."""

from __future__ import annotations

import errno
from collections.abc import Collection, Mapping, Sequence

from mdevfs.errors import KernelError

STOP, RUNNING, STOP_COPY, RESUMING = "STOP", "RUNNING", "STOP_COPY", "RESUMING"
RUNNING_P2P, PRE_COPY, PRE_COPY_P2P, ERROR = "RUNNING_P2P", "PRE_COPY", "PRE_COPY_P2P", "ERROR"
STATES = (ERROR, STOP, RUNNING, STOP_COPY, RESUMING, RUNNING_P2P, PRE_COPY, PRE_COPY_P2P)  # by their number
SAVING = frozenset({STOP_COPY, PRE_COPY, PRE_COPY_P2P})
PRE_COPYING = frozenset({PRE_COPY, PRE_COPY_P2P})

P2P, PRECOPY = "p2p", "pre-copy"
FEATURES = ("stop-copy", P2P, PRECOPY)  # in debugfs's order; the first is always there
NEEDS: Mapping[str, frozenset[str]] = {  # what a device must offer to have a state
    RUNNING_P2P: frozenset({P2P}),
    PRE_COPY: frozenset({PRECOPY}),
    PRE_COPY_P2P: frozenset({P2P, PRECOPY}),
}

_TARGETS = (STOP, RUNNING, STOP_COPY, RESUMING, RUNNING_P2P, PRE_COPY, PRE_COPY_P2P)
_NEXT: Mapping[str, tuple[str | None, ...]] = {  # the first step from a state to each of _TARGETS, all features there
    STOP: (STOP, RUNNING_P2P, STOP_COPY, RESUMING, RUNNING_P2P, RUNNING_P2P, RUNNING_P2P),
    RUNNING: (RUNNING_P2P, RUNNING, RUNNING_P2P, RUNNING_P2P, RUNNING_P2P, PRE_COPY, RUNNING_P2P),
    STOP_COPY: (STOP, STOP, STOP_COPY, STOP, STOP, None, None),
    RESUMING: (STOP, STOP, STOP, RESUMING, STOP, STOP, STOP),
    RUNNING_P2P: (STOP, RUNNING, STOP, STOP, RUNNING_P2P, RUNNING, PRE_COPY_P2P),
    PRE_COPY: (RUNNING, RUNNING, PRE_COPY_P2P, RUNNING, RUNNING, PRE_COPY, PRE_COPY_P2P),
    PRE_COPY_P2P: (RUNNING_P2P, RUNNING_P2P, STOP_COPY, RUNNING_P2P, RUNNING_P2P, PRE_COPY, PRE_COPY_P2P),
    ERROR: (None,) * 7,
}


def has(state: str, features: Collection[str]) -> bool:
    """Whether a device of these features has that state."""
    return NEEDS.get(state, frozenset()) <= set(features)


def next_state(now: str, wanted: str, features: Collection[str]) -> str:
    """The next state on the way. Raises KernelError (EINVAL) where there is no way, or no such state."""
    if now not in _NEXT or wanted not in _TARGETS or not has(now, features) or not has(wanted, features):
        raise KernelError(errno.EINVAL)
    column = _TARGETS.index(wanted)
    step = _NEXT[now][column]
    while step is not None and not has(step, features):  # a state that the device has not is passed over
        step = _NEXT[step][column]
    if step is None:
        raise KernelError(errno.EINVAL)
    return step


def reachable(now: str, features: Collection[str]) -> Sequence[str]:
    """Where a device of these features can go, by as many steps as it takes."""
    return [state for state, step in zip(_TARGETS, _NEXT[now], strict=True) if step and has(state, features)]


def way(now: str, wanted: str, features: Collection[str]) -> Sequence[str]:
    """Every state after `now`, `wanted` the last; empty when it is there. Raises KernelError (EINVAL)."""
    steps: list[str] = []
    while (here := steps[-1] if steps else now) != wanted:
        steps.append(next_state(here, wanted, features))
    if now == ERROR:
        raise KernelError(errno.EINVAL)
    return steps
