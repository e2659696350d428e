"""What a description puts on the wire at one version: runs of bytes, in their order.

Neither names nor types are sent, and a struct has no header: a struct dissolves into its fields. What is left of the
names tells people which bytes are meant.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

from attrs import evolve, field, frozen

from mdevfs.state.dump import Described, DumpField

Condition = tuple[str, ...]

UNUSED = "unused"  # QEMU's name for bytes that are written as zeros and passed over


@frozen
class Run:
    """The bytes of one field: `count` elements of `size` bytes; None: the dump does not tell; 0: the state says.

    A size of 0 means that the dump tells nothing: the device writes these bytes by itself. `condition`: the paths of
    the fields whose condition decides whether it is sent, itself and the structs that it is in.
    """

    path: str
    size: int
    count: int | None = 1
    condition: Condition = ()

    @property
    def unused(self) -> bool:
        return self.path.rpartition(".")[2] == UNUSED

    @property
    def varies(self) -> bool:
        """Whether its length depends on the state."""
        return self.size == 0 or self.count == 0

    @property
    def total(self) -> int | None:
        """Bytes of all elements, if that is known."""
        return None if self.varies or self.count is None else self.size * self.count

    def __str__(self) -> str:
        if self.size == 0:
            return f"{self.path} (as long as the device makes it)"
        if self.count == 0:
            return f"{self.path} ({plural(self.size)} each, as many as the state says)"
        if self.count is None:
            return f"{self.path} ({plural(self.size)} each)"
        return f"{self.path} ({plural(self.size) if self.count == 1 else f'{self.count} x {plural(self.size)}'})"


@frozen
class Array:
    """`count` structs, other than one; 0: as many as the state says."""

    path: str
    body: tuple[Item, ...]
    count: int
    condition: Condition = ()
    total: int | None = field(init=False)

    @total.default
    def _total(self) -> int | None:
        sizes = [one.total for one in self.body]
        return None if None in sizes or self.count == 0 else self.count * sum(filter(None, sizes))

    def __str__(self) -> str:
        if self.count == 0:
            return f"{self.path} (as many structs as the state says)"
        return f"{self.path} ({self.count} structs)" if self.total is None else f"{self.path} ({plural(self.total)})"


@frozen
class Subsections:
    """Where the subsections of a struct are sent, after its fields: no bytes, if none is needed."""

    path: str
    described: Described
    condition: Condition = ()
    total: int = 0

    def __str__(self) -> str:
        return f"the subsections of {self.path}"


Item = Run | Array | Subsections


def plural(number: int) -> str:
    """`1 byte`, `2 bytes`."""
    return "1 byte" if number == 1 else f"{number} bytes"


def layout(described: Described, version: int, strict: bool) -> tuple[Item, ...]:
    """What a description with lengths sends at this version.

    `strict`: the version counts for conditional fields too; in QEMU the condition alone does.
    """
    return tuple(_items(described, version, strict))


def _items(
    described: Described, version: int, strict: bool, prefix: str = "", condition: Condition = ()
) -> Iterator[Item]:
    for one in described.fields or ():
        if one.version > version and (strict or not one.conditional):
            continue
        path = prefix + one.name
        conditions = (*condition, path) if one.conditional else condition
        if one.struct is None:
            yield Run(path, one.size, one.num, conditions)
        elif one.num == 1:
            yield from _struct(one.struct, strict, path, conditions)
        else:
            assert one.num is not None
            yield Array(path, tuple(_struct(one.struct, strict, path)), one.num, conditions)


def _struct(struct: Described, strict: bool, path: str, condition: Condition = ()) -> Iterator[Item]:
    """A struct's version is not sent: each side takes its own."""
    yield from _items(struct, struct.version, strict, f"{path}.", condition)
    yield Subsections(path, struct, condition)


# -- lengths of arrays

Assumed = list[tuple[str, str]]


def with_lengths(
    one: Described, tells: bool, other: Described, other_tells: bool
) -> tuple[Described, Described, Assumed]:
    """Both descriptions with the length of every array; 1 for what is no array, None where nothing tells.

    Where a dump tells no lengths, a field is taken to be as long as the other side's field of the same path; what was
    taken for what is returned too.
    """
    assumed: Assumed = []
    if tells and other_tells:
        return _told(one), _told(other), assumed
    first = _told(one) if tells else _guessed(one, other, assumed)
    if other_tells:
        return first, _told(other), assumed
    turned: Assumed = []
    second = _guessed(other, one, turned)
    return first, second, assumed + [(there, here) for here, there in turned]


def _told(described: Described) -> Described:
    def known(field: DumpField) -> DumpField:
        return evolve(field, num=1 if field.num is None else field.num, struct=field.struct and _told(field.struct))

    return evolve(described, fields=tuple(map(known, described.fields or ())))


def _guessed(described: Described, other: Described, assumed: Assumed) -> Described:
    own, theirs = _by_path(described), _by_path(other)
    seen: Counter[str] = Counter()

    def length(field: DumpField, path: str) -> int | None:
        index = seen[path]
        seen[path] += 1
        if field.name == UNUSED:  # its size is that of all its bytes
            return 1
        if len(own[path]) != len(theirs[path]):
            return 1 if field.struct is not None else None
        there = theirs[path][index].num
        if there is not None and there != 1:
            assumed.append((str(Run(path, field.size, None)), str(Run(path, field.size, there))))
        return 1 if there is None else there

    def known(fields: Sequence[DumpField], prefix: str) -> Iterator[DumpField]:
        for one in fields:
            path = prefix + one.name
            num, struct = length(one, path), one.struct
            if struct is not None:
                struct = evolve(struct, fields=tuple(known(struct.fields or (), f"{path}.")))
            yield evolve(one, num=num, struct=struct)

    return evolve(described, fields=tuple(known(described.fields or (), "")))


def _by_path(described: Described) -> defaultdict[str, list[DumpField]]:
    found: defaultdict[str, list[DumpField]] = defaultdict(list)

    def walk(fields: Sequence[DumpField], prefix: str) -> None:
        for one in fields:
            found[prefix + one.name].append(one)
            if one.struct is not None:
                walk(one.struct.fields or (), f"{prefix}{one.name}.")

    walk(described.fields or (), "")
    return found
