"""The migration state machine against the kernel's recorded table, and against a search that knows the arcs only."""

from __future__ import annotations

import errno
import itertools
import json
from collections import deque
from collections.abc import Iterable
from pathlib import Path

import pytest

from mdevfs.errors import KernelError
from mdevfs.state.machine import FEATURES, NEEDS, SAVING, STATES, has, next_state, way

RECORDED = json.loads((Path(__file__).parents[1] / "vmstate/vfio-fsm-next.json").read_text())
OFFERS = [{"stop-copy", *more} for count in range(3) for more in itertools.combinations(FEATURES[1:], count)]
ALWAYS = [("RESUMING", "STOP"), ("STOP", "RESUMING"), ("STOP", "STOP_COPY"), ("STOP_COPY", "STOP")]


def arcs(features: Iterable[str]) -> set[tuple[str, str]]:
    """linux/vfio.h: the arcs that a device of these features has."""
    both = [("RUNNING", "STOP")]
    if "p2p" in features:
        both = [("RUNNING", "RUNNING_P2P"), ("RUNNING_P2P", "STOP")]
    found = {*ALWAYS, *both, *((there, here) for here, there in both)}
    if "pre-copy" in features:
        found |= {("RUNNING", "PRE_COPY"), ("PRE_COPY", "RUNNING"), ("PRE_COPY", "STOP_COPY")}
        if "p2p" in features:
            found |= {("PRE_COPY", "PRE_COPY_P2P"), ("PRE_COPY_P2P", "PRE_COPY"), ("PRE_COPY_P2P", "STOP_COPY")}
            found |= {("RUNNING_P2P", "PRE_COPY_P2P"), ("PRE_COPY_P2P", "RUNNING_P2P")}
            found -= {("PRE_COPY", "STOP_COPY")}
    return found


def shortest(now: str, wanted: str, features: Iterable[str]) -> int | None:
    """How many arcs; states that save or resume are passed through only on the way from one that saves to the next."""
    moves, seen, todo = arcs(features), {now}, deque([(now, 0)])
    while todo:
        here, steps = todo.popleft()
        if here == wanted:
            return steps
        data = {*SAVING, "RESUMING"}
        if here in data and here != now and not (now in SAVING and wanted in SAVING):
            continue
        for there in sorted(there for begin, there in moves if begin == here and there not in seen):
            seen.add(there)
            todo.append((there, steps + 1))
    return None


@pytest.mark.parametrize("now", STATES)
def test_the_kernel_s_table(now: str) -> None:
    for wanted in STATES:
        step = RECORDED[now][wanted]
        if step is None:
            with pytest.raises(KernelError):
                next_state(now, wanted, FEATURES)
        elif now != wanted:
            assert next_state(now, wanted, FEATURES) == step


@pytest.mark.parametrize("features", OFFERS, ids=lambda features: "+".join(sorted(features)))
def test_every_way_is_a_shortest_one_over_arcs_that_are_there(features: set[str]) -> None:
    there = [state for state in STATES if state != "ERROR" and has(state, features)]
    for now, wanted in itertools.product(there, repeat=2):
        if now == "STOP_COPY" and wanted in ("PRE_COPY", "PRE_COPY_P2P"):
            with pytest.raises(KernelError):
                way(now, wanted, features)
            continue
        steps = way(now, wanted, features)
        assert set(itertools.pairwise([now, *steps])) <= arcs(features)
        assert len(steps) == shortest(now, wanted, features), (now, wanted, steps)


@pytest.mark.parametrize("features", OFFERS, ids=lambda features: "+".join(sorted(features)))
def test_what_is_not_there_is_einval(features: set[str]) -> None:
    missing = [state for state in NEEDS if not has(state, features)]
    for state in (*missing, "ERROR", "running", "", "8"):
        for now, wanted in (("RUNNING", state), (state, "RUNNING")):
            with pytest.raises(KernelError) as caught:
                way(now, wanted, features)
            assert caught.value.errno == errno.EINVAL
