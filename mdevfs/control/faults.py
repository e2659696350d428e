"""Faults are set, listed and cleared."""

from __future__ import annotations

import errno
import itertools
import math

from mdevfs.control.running import Running
from mdevfs.control.verbs import Answer, Verb
from mdevfs.errors import InputError
from mdevfs.host.faults import make_fault
from mdevfs.host.schema import FaultSection
from mdevfs.sysfs.faults import Fault
from mdevfs.sysfs.tree import Tree

SEARCHED = 5000  # entries of the tree, to see whether a pattern matches any


class SetFault(Verb, FaultSection):
    """A fault, as `[[fault]]` describes it, from now on."""

    op = "fault"

    async def carry_out(self, running: Running) -> Answer:
        tree = running.host.tree
        fault = tree.faults.add(make_fault(self, tree))
        return {"did": sentence(fault), "fault": as_dict(fault), "matches": _matches(fault, tree)}


def _matches(fault: Fault, tree: Tree) -> bool | None:
    """Whether anything has such a path; None: the tree is too large to say."""
    entries = iter(tree.everything())
    if any(fault.matches(path) for path, _ in itertools.islice(entries, SEARCHED)):
        return True
    return False if next(entries, None) is None else None


class ListFaults(Verb):
    """All that are set, those that are over included."""

    op = "faults"

    async def carry_out(self, running: Running) -> Answer:
        return {"faults": [as_dict(fault) for fault in running.host.tree.faults]}


class ClearFaults(Verb):
    """These faults, or all, are no more; who waits for one goes on."""

    op = "clear"
    numbers: list[int] | None = None

    async def carry_out(self, running: Running) -> Answer:
        faults = running.host.tree.faults
        known = [fault.number for fault in faults]
        numbers = known if self.numbers is None else list(dict.fromkeys(self.numbers))
        if wrong := [number for number in numbers if number not in known]:
            there = f"there are {', '.join(map(str, known))}" if known else "none is set"
            raise InputError([f"there is no fault {number}: {there}" for number in wrong])
        faults.clear(numbers)
        return {"did": f"{len(numbers)} cleared", "cleared": numbers}


def as_dict(fault: Fault) -> Answer:
    """A fault with its keys of host.toml, its number, and how many accesses it has seen and struck."""
    return {
        "number": fault.number,
        "path": fault.path,
        "on": sorted(fault.on),
        "slow": fault.slow if fault.slow < math.inf else "inf",
        "errno": errno.errorcode[fault.errno] if fault.errno is not None else None,
        "text": fault.text,
        "count": fault.count,
        "skip": fault.skip,
        "probability": fault.probability,
        "seed": fault.seed,
        "seen": fault.seen,
        "struck": fault.struck,
    }


def sentence(fault: Fault) -> str:
    """`fault 1: read of */name: EIO`."""
    return f"fault {fault.number}: {' or '.join(sorted(fault.on))} of {fault.path}: {fault.effect()}"
