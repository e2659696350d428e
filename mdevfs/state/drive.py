"""Devices without a guest: random state by a seed, and a state as names and values."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from random import Random

from mdevfs.state.description import Struct, VMState
from mdevfs.state.fields import Bitmap, Bytes, Field, Flag, Number, SizedBytes
from mdevfs.state.view import get, put, steps


def randomize(description: VMState, state: object, random: Random) -> None:
    """Gives every field a random value of its type; the same state and generator give the same values."""
    for one in description.fields:
        if isinstance(one, Struct):
            inner = get(state, one.steps)
            for element in inner if one.num is not None else [inner]:
                randomize(one.of, element, random)
        else:
            _randomize_field(one, state, random)
    for sub in description.subsections:
        randomize(sub, state, random)


def _randomize_field(one: Field, state: object, random: Random) -> None:
    match one:
        case Number(equal=True) | Number(le=True):
            pass  # fixed by the device
        case Number(num=None):
            put(state, one.steps, _number(one, random))
        case Number(num=int(count)):
            values, first = get(state, one.steps), one.at or 0
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


def flatten(state: object) -> Mapping[str, object]:
    """Names and values of a whole state: attributes, lists, and what is in them; bytes as hexadecimal text."""
    return dict(_flat("", state))


def _flat(path: str, value: object) -> Iterator[tuple[str, object]]:
    if value is None or isinstance(value, bool | int | str | float):
        yield path, value
    elif isinstance(value, bytes | bytearray | memoryview):
        yield path, bytes(value).hex()
    elif isinstance(value, list | tuple):
        if all(isinstance(one, int) for one in value):
            yield path, tuple(value)
        else:
            for index, one in enumerate(value):
                yield from _flat(f"{path}[{index}]", one)
    else:
        for name, one in vars(value).items():
            yield from _flat(f"{path}.{name}" if path else name, one)
