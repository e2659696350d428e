"""Which parts of two layouts are as many bytes, and may stand for each other whatever their names are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import gcd
from typing import TypeGuard

from mdevfs.state.layout import Array, Item, Run, Subsections


def without_empty(*sides: Sequence[Item]) -> Iterator[list[Item]]:
    """Both layouts without the structs' places for subsections where no side has any: they are no bytes."""
    real = {
        name
        for items in sides
        for one in items
        if isinstance(one, Subsections) and one.described.subsections
        for name in (one.path, one.described.name)
    }
    for items in sides:
        yield [one for one in items if not isinstance(one, Subsections) or {one.path, one.described.name} & real]


def fields(items: Sequence[Item]) -> list[Item]:
    return [one for one in items if not isinstance(one, Subsections)]


def shared(ours: Sequence[Item], theirs: Sequence[Item]) -> set[str]:
    """The paths that both have: their bytes are for each other, and for nothing else."""
    first, second = ({one.path for one in side if not unused(one)} for side in (ours, theirs))
    return first & second


def unlike(ours: list[Item], theirs: list[Item]) -> tuple[list[Item], list[Item]]:
    """Without what both begin and end with."""
    most = min(len(ours), len(theirs))
    start = next((i for i in range(most) if not like(ours[i], theirs[i])), most)
    end = next((i for i in range(most - start) if not like(ours[-1 - i], theirs[-1 - i])), most - start)
    return ours[start : len(ours) - end], theirs[start : len(theirs) - end]


def unused(one: Item) -> bool:
    return isinstance(one, Run) and one.unused


def like(ours: Item, theirs: Item) -> bool:
    """Whether the two may stand for each other, whatever their names and conditions."""
    if isinstance(ours, Array) or isinstance(theirs, Array):
        return isinstance(ours, Array) and isinstance(theirs, Array) and ours.count == theirs.count
    return same_size([ours], [theirs]) is not False


def same_size(ours: Sequence[Item], theirs: Sequence[Item]) -> bool | None:
    """Whether both are as many bytes; None: they may be, where a dump tells no lengths."""
    if len(ours) == len(theirs) == 1 and varying(ours[0]) == varying(theirs[0]) is not None:
        return True
    if any(one.total is None and not open_ended(one) for one in (*ours, *theirs)):
        return False
    open_sides = [[one.size for one in side if open_ended(one)] for side in (ours, theirs)]
    missing = _least(theirs) - _least(ours)
    if not any(open_sides):
        return missing == 0
    if all(map(unused, ours)) or all(map(unused, theirs)):
        longer = open_sides[0] if missing > 0 else open_sides[1]
        fits = missing % gcd(*open_sides[0], *open_sides[1]) == 0 and (missing == 0 or bool(longer))
    else:
        fits = missing == 0  # of single fields: arrays that change their elements' size are no guess to make
    return None if fits else False


def varying(one: Item) -> int | None:
    """The size of the elements of what is as long as the state says."""
    return one.size if isinstance(one, Run) and one.varies else None


def open_ended(one: Item) -> TypeGuard[Run]:
    """Whether the dump does not tell how many elements it has."""
    return isinstance(one, Run) and one.count is None and one.size > 0


def _least(items: Sequence[Item]) -> int:
    return sum(one.size if open_ended(one) else one.total or 0 for one in items)
