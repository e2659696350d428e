"""What becomes of one layout's bytes when they are read as another's."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

from attrs import define, evolve, field

from mdevfs.state.align import align, expanded, segments
from mdevfs.state.finding import Findings
from mdevfs.state.layout import Array, Item, Subsections
from mdevfs.state.sizes import fields, like, same_size, shared, unlike, unused, without_empty

SHOWN = 4  # names in one text

MEND_ADDED = (
    "in the newer description, raise the version and give the field that version, or move it into a subsection, "
    "which is sent only when it is needed"
)
MEND_REMOVED = "in the newer description, keep its place as unused bytes"
MEND_SIZE = (
    "in the newer description, keep the old field, or unused bytes, in its place, and add the new one with a new "
    "version or in a subsection"
)
MEND_MOVED = "in the newer description, put it back in its place"
MEND_BOUNDARIES = "in the newer description, cut these bytes as the older one does"
MEND_CONDITION = (
    "switch it by a compat property that is off for machine types which the older side knows; "
    "or use a subsection, which a target that lacks it refuses by name"
)


@define
class BytesDiff:
    """Compares layouts and adds to `to`. `prefix` stands before paths; `newer`: the target is the newer side.

    `if_sent`: all of it is sent only sometimes. `subsections` compares those of a struct: its path, source, target.
    """

    to: Findings
    newer: bool
    prefix: str
    if_sent: bool
    subsections: Callable[[str, Subsections, Subsections | None], None]
    alike: defaultdict[str, list[tuple[str, str]]] = field(factory=lambda: defaultdict(list))

    def compare(self, source: Sequence[Item], target: Sequence[Item]) -> None:
        """Adds what is found; what is harmless, once for all of it."""
        self._compare(source, target)
        self._harmless()

    def _compare(self, source: Sequence[Item], target: Sequence[Item]) -> None:
        source, target = without_empty(source, target)
        chunks, moved = align(source, target)
        for chunk in chunks:
            if chunk.named:
                self._pair(chunk.source[0], chunk.target[0])
            else:
                self._gap(chunk.source, chunk.target)
        solid = [[one for one in fields(side) if not one.condition] for side in (source, target)]
        always = bool(moved) and bool(align(*solid)[1])  # and not only past what is sent sometimes
        for one, _ in moved:
            self.to.finding(
                "state-field-moved",
                "breaks",
                "it stands at another place among the bytes: its value goes into another field",
                at=self.prefix + one.path,
                if_sent=self.if_sent or isinstance(one, Subsections) or bool(one.condition) or not always,
                mend=MEND_MOVED,
            )

    # -- one item each

    def _pair(self, ours: Item, theirs: Item) -> None:
        """Two items that stand for each other."""
        if isinstance(ours, Subsections) and isinstance(theirs, Subsections):
            self._subsections(ours, theirs)
        elif bool(ours.condition) != bool(theirs.condition):
            one, other = ("source", "target") if ours.condition else ("target", "source")
            self._condition(f"the {one} has it only under a condition, the {other} always", [ours], [theirs])
        elif ours.condition != theirs.condition:
            rule = "each side sends it under a condition, and by their names the conditions may differ"
            self._condition(rule, [ours], [theirs])
        elif isinstance(ours, Array) and isinstance(theirs, Array):
            if ours.count == theirs.count:
                evolve(self, if_sent=self.if_sent or bool(ours.condition))._compare(ours.body, theirs.body)
            else:
                self._size([ours], [theirs], bool(ours.condition))
        elif (same := same_size([ours], [theirs])) is False:
            self._size([ours], [theirs], bool(ours.condition))
        else:
            if same is None:
                self.alike["state-length-unknown"].append((str(ours), str(theirs)))
            self._alike(ours, theirs)

    def _alike(self, ours: Item, theirs: Item) -> None:
        """Two items of the same size."""
        if unused(ours) != unused(theirs):
            self.alike["state-field-unused"].append((str(ours), str(theirs)))
        elif unused(ours):
            return
        elif ours.path != theirs.path:
            self.alike["state-field-renamed"].append((ours.path, theirs.path))
        elif None not in (ours.total, theirs.total) and str(ours) != str(theirs):
            self.alike["state-field-regrouped"].append((str(ours), str(theirs)))

    # -- several, of which no names match

    def _gap(self, source: Sequence[Item], target: Sequence[Item]) -> None:
        """Structs' subsections stand for those of the same description, and divide the rest."""
        places = {one.described.name: index for index, one in enumerate(target) if isinstance(one, Subsections)}
        start, begin = 0, 0
        for index, one in enumerate(source):
            if isinstance(one, Subsections):
                there = places.get(one.described.name, -1)
                if there < begin:
                    self.subsections(self.prefix, one, None)
                    continue
                self._runs(fields(source[start:index]), fields(target[begin:there]))
                self._pair(one, target[there])
                start, begin = index + 1, there + 1
        self._runs(fields(source[start:]), fields(target[begin:]))

    def _runs(self, ours: list[Item], theirs: list[Item]) -> None:
        """Fields; where each has its like on the other side, pair by pair."""
        if len(ours) == len(theirs) and all(map(like, ours, theirs)):
            both = shared(ours, theirs)
            for one, other in zip(ours, theirs, strict=True):
                if one.path != other.path and {one.path, other.path} & both:
                    self._boundaries([one], [other])
                else:
                    self._pair(one, other)
            return
        alone = [[one for one in side if one.condition] for side in (ours, theirs)]
        if not any(alone):
            self._solid(ours, theirs)
            return
        for side, name in enumerate(("source", "target")):
            if lone := alone[side]:
                rule = f"only the {name} has it, and it is sent under a condition"
                self._condition(rule, *((lone, []) if side == 0 else ([], lone)))
        self._runs([one for one in ours if not one.condition], [one for one in theirs if not one.condition])

    def _subsections(self, ours: Subsections, theirs: Subsections | None) -> None:
        if theirs is not None and ours.described.subsections and ours.condition != theirs.condition:
            rule = "by their names, the conditions of the structs that have these subsections may differ"
            self._condition(rule, [ours], [theirs])
        self.subsections(self.prefix, ours, theirs)

    def _solid(self, ours: list[Item], theirs: list[Item]) -> None:
        """What is always sent, on both sides, and not pair by pair the same."""
        same = same_size(ours, theirs)
        if same is None:
            self.alike["state-length-unknown"].append((listed(ours), listed(theirs)))
        elif not same:
            self._size(*unlike(ours, theirs), False)
        else:
            self._regrouped(ours, theirs)

    def _regrouped(self, ours: list[Item], theirs: list[Item]) -> None:
        """As many bytes, in other fields."""
        source, target = expanded(ours), expanded(theirs)
        if source is None or target is None:
            self._boundaries(ours, theirs)
            return
        both = shared(source, target)
        for left, right in segments(source, target):
            paths = {one.path for one in (*left, *right)}
            if paths & both and not (len(paths) == len(left) == len(right) == 1):
                self._boundaries(left, right)
            elif len(left) == len(right) == 1:
                self._alike(left[0], right[0])
            elif all(one.unused for one in left) or all(one.unused for one in right):
                self.alike["state-field-unused"].append((listed(left), listed(right)))
            elif len(left) == 1 or len(right) == 1:
                self.alike["state-field-regrouped"].append((listed(left), listed(right)))
            else:
                self._boundaries(left, right)

    # -- what is said

    def _size(self, ours: Sequence[Item], theirs: Sequence[Item], sometimes: bool) -> None:
        code, mend = "state-field-size", MEND_SIZE
        rule = "the target takes other bytes than the source sends, and all that follows for something else"
        if not (ours and theirs):
            added = bool(theirs) == self.newer
            code, mend = ("state-field-added", MEND_ADDED) if added else ("state-field-removed", MEND_REMOVED)
            rule = (
                "the target does not know of it, and takes its bytes for what follows"
                if ours
                else "the source does not send it, and the target takes what follows for it"
            )
        at, source, target = self._sides(ours, theirs)
        if_sent = self.if_sent or sometimes
        self.to.finding(code, "breaks", rule, at=at, source=source, target=target, if_sent=if_sent, mend=mend)

    def _boundaries(self, ours: Sequence[Item], theirs: Sequence[Item]) -> None:
        at, source, target = self._sides(ours, theirs)
        self.to.finding(
            "state-field-boundaries",
            "breaks",
            "as many bytes, but in other fields or cut at other places: values are mixed",
            at=at,
            source=source,
            target=target,
            if_sent=self.if_sent,
            mend=MEND_BOUNDARIES,
        )

    def _condition(self, rule: str, ours: Sequence[Item], theirs: Sequence[Item]) -> None:
        at, source, target = self._sides(ours, theirs)
        self.to.finding(
            "state-field-condition",
            "breaks",
            rule,
            at=at,
            source=source,
            target=target,
            if_sent=True,
            mend=MEND_CONDITION,
        )

    def _sides(self, ours: Sequence[Item], theirs: Sequence[Item]) -> tuple[str, str, str]:
        return self.prefix + (ours or theirs)[0].path, listed(ours) or "nothing", listed(theirs) or "nothing"

    def _harmless(self) -> None:
        rules = {
            "state-field-renamed": "names are not sent",
            "state-field-unused": "the bytes keep their place: one side writes zeros, or passes over what comes",
            "state-field-regrouped": "the same bytes in other fields; see that they still mean the same",
            "state-length-unknown": "a dump tells no lengths of arrays (QEMU before 10.0): they are taken to fit",
        }
        for code, rule in rules.items():
            if pairs := self.alike[code]:
                source, target = (shortened([pair[side] for pair in pairs]) for side in (0, 1))
                self.to.finding(code, "loads", rule, at=self.prefix.rstrip("/"), source=source, target=target)


def listed(items: Sequence[Item]) -> str:
    return shortened([str(one) for one in items])


def shortened(words: Sequence[str]) -> str:
    more = f" and {len(words) - SHOWN} more" if len(words) > SHOWN else ""
    return ", ".join(words[:SHOWN]) + more
