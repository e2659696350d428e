"""Devices without a guest: random state by a seed, and a state as names and values."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from random import Random

from mdevfs.state.description import Struct, VMState
from mdevfs.state.fields import Bitmap, Bytes, Field, Flag, Number, SizedBytes, Unused
from mdevfs.state.memory import Memory
from mdevfs.state.view import View, get, put, steps

Place = tuple[str, Field, View]


def present(description: VMState, view: View, path: str = "") -> Iterator[Place]:
    """Every field that a device of this view sends, with its path and the view that it is in; structs opened."""
    for one in description.fields:
        if not one.present(view) or isinstance(one, Unused):
            continue
        name = f"{path}{one.name}"
        if not isinstance(one, Struct):
            yield name, one, view
            continue
        for index, inner in enumerate(one.elements(view)):
            yield from present(one.of, inner, f"{name}[{index}]." if one.num is not None else f"{name}.")
    for sub in description.subsections:
        inner = View(view.state, view.values, sub.version, view.root)
        if sub.needed is None or sub.needed(inner):
            yield from present(sub, inner, path)


def randomize(description: VMState, view: View, seed: int) -> None:
    """Gives every field that is sent a random value of its type. A field's value depends on the seed and on its own
    path, so that releases with other fields beside it agree on it."""
    for path, one, inner in present(description, view):
        _randomize(one, inner.state, Random(f"{seed} {path}"))


def _randomize(one: Field, state: object, random: Random) -> None:
    match one:
        case Field(fixed=True) | Number(equal=True) | Number(le=True):
            pass
        case Number(num=None):
            put(state, one.steps, _number(one, random))
        case Number():
            values, first = get(state, one.steps), one.at or 0
            count = one.num if isinstance(one.num, int) else len(values) - first
            values[first : first + count] = [_number(one, random) for _ in range(count)]
        case Bytes():
            get(state, one.steps)[:] = random.randbytes(one.length)
        case SizedBytes():
            value = bytearray(random.randbytes(random.randint(0, min(one.most, 4096))))
            put(state, one.steps, value)
            put(state, steps(one.length), len(value))
        case Bitmap():
            put(state, one.steps, random.getrandbits(one.bits))


def _number(one: Number, random: Random) -> int | bool:
    if isinstance(one, Flag):
        return random.random() < 0.5
    (value,) = struct.unpack("=" + one.code, random.randbytes(one.size))
    assert isinstance(value, int)
    return value


def values(description: VMState, view: View) -> Mapping[str, object]:
    """Names and values of every field that is sent; lists as tuples, bytes as hexadecimal text."""
    return {path: _plain(one.held(inner)) for path, one, inner in present(description, view)}


def _plain(value: object) -> object:
    if isinstance(value, bytes | bytearray | memoryview | Memory):
        return bytes(value).hex()
    return tuple(value) if isinstance(value, list) else value
