"""Which parts of two layouts are meant to be the same: names are not sent, but tell what moved and what changed."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence

from attrs import frozen

from mdevfs.state.layout import Item, Run, Subsections

Key = tuple[type, str]
MAX_EXPANDED = 4096  # runs that an array of structs is written out as


@frozen
class Chunk:
    """What stands at one place in both layouts. `named`: one item each, of the same kind and path."""

    source: tuple[Item, ...]
    target: tuple[Item, ...]
    named: bool = False


def align(source: Sequence[Item], target: Sequence[Item]) -> tuple[list[Chunk], list[tuple[Item, Item]]]:
    """The chunks of both layouts in their order; and what is in both at different places, which no chunk holds."""
    ours, theirs = _places(source), _places(target)
    common = [key for key in ours if key in theirs]
    kept = _longest_rising([theirs[key] for key in common])
    anchors = [(ours[key], theirs[key]) for index, key in enumerate(common) if index in kept]
    moved = [(source[ours[key]], target[theirs[key]]) for index, key in enumerate(common) if index not in kept]
    left_out = {id(one) for pair in moved for one in pair}
    chunks: list[Chunk] = []
    at, there = 0, 0
    for i, j in [*anchors, (len(source), len(target))]:
        before = [tuple(one for one in part if id(one) not in left_out) for part in (source[at:i], target[there:j])]
        if any(before):
            chunks.append(Chunk(before[0], before[1]))
        if i < len(source):
            chunks.append(Chunk((source[i],), (target[j],), named=True))
        at, there = i + 1, j + 1
    return chunks, moved


def _places(items: Sequence[Item]) -> dict[Key, int]:
    """Where each item is that has its kind and path for itself."""
    keys = [(type(one), one.path) for one in items]
    counts = Counter(keys)
    return {
        key: index
        for index, (key, one) in enumerate(zip(keys, items, strict=True))
        if counts[key] == 1 and not (isinstance(one, Run) and one.unused)
    }


def _longest_rising(numbers: Sequence[int]) -> frozenset[int]:
    """The indexes of a longest rising subsequence."""
    tails: list[int] = []  # of the best subsequence of each length, its last index
    values: list[int] = []  # and its last number
    before: list[int] = []
    for index, number in enumerate(numbers):
        length = bisect_left(values, number)
        before.append(tails[length - 1] if length else -1)
        if length == len(values):
            values.append(number)
            tails.append(index)
        else:
            values[length], tails[length] = number, index
    found = set()
    index = tails[-1] if tails else -1
    while index >= 0:
        found.add(index)
        index = before[index]
    return frozenset(found)


# -- bytes without names


def segments(source: Sequence[Run], target: Sequence[Run]) -> Iterator[tuple[list[Run], list[Run]]]:
    """Runs of the same bytes in all, cut where both have a boundary; every length is known."""
    ours: list[Run] = []
    theirs: list[Run] = []
    ahead = 0
    right = iter(target)
    for one in source:
        ours.append(one)
        ahead += one.total or 0
        while ahead > 0:
            theirs.append(next(right))
            ahead -= theirs[-1].total or 0
        if ahead == 0:
            yield ours, theirs
            ours, theirs = [], []


def expanded(items: Sequence[Item]) -> list[Run] | None:
    """Arrays of structs written out as runs; None where there would be too many, or subsections in between."""
    found: list[Run] = []
    for one in items:
        if isinstance(one, Run):
            found.append(one)
        elif isinstance(one, Subsections):
            if one.described.subsections:
                return None
        else:
            body = expanded(one.body)
            if body is None or one.count == 0 or len(found) + len(body) * one.count > MAX_EXPANDED:
                return None
            found += body * one.count
    return found
