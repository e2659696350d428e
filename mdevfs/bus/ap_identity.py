"""What a host's AP bus is, and the masks that say who owns a queue (drivers/s390/crypto/ap_bus.c)."""

from __future__ import annotations

import errno
import re
from collections.abc import Set
from typing import Literal

from attrs import frozen

from mdevfs.errors import KernelError, escape
from mdevfs.sysfs.parse import text_of

BITS = 256
EVERYTHING = frozenset(range(BITS))
CEX8 = 14

Apqn = tuple[int, int]
"""Adapter and domain: one queue."""
MaskName = Literal["apmask", "aqmask"]

_HEX = re.compile(rb"(?:0?x)?([0-9a-fA-F]{0,64})\n?\Z")
_NUMBER = rb"(0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)"
_CHANGE = re.compile(rb"([+-])" + _NUMBER + rb"(?:-" + _NUMBER + rb")?[,\n]*")


def format_mask(bits: Set[int]) -> str:
    """`0x` and 64 hex digits; bit 0 is the leftmost."""
    return f"0x{sum(1 << (BITS - 1 - bit) for bit in bits):064x}"


def parse_mask(data: bytes, current: Set[int]) -> frozenset[int]:
    """ap_parse_bitmap_str: a hex mask, short ones filled with zeros on the right, or changes to `current` as in
    `+5,-0x6,+8-0xf`. Raises KernelError EINVAL for anything else."""
    text = text_of(data)
    if text[:1] in (b"+", b"-"):
        return _changed(text, current)
    match = _HEX.match(text)
    if match is None:
        raise KernelError(errno.EINVAL)
    value = int(match[1].ljust(BITS // 4, b"0"), 16)
    return frozenset(bit for bit in range(BITS) if value >> (BITS - 1 - bit) & 1)


def _changed(text: bytes, current: Set[int]) -> frozenset[int]:
    bits, at = set(current), 0
    while at < len(text):
        match = _CHANGE.match(text, at)
        if match is None:
            raise KernelError(errno.EINVAL)
        first = _number(match[2])
        last = first if match[3] is None else _number(match[3])
        if not first <= last < BITS:
            raise KernelError(errno.EINVAL)
        several = range(first, last + 1)
        if match[1] == b"+":
            bits.update(several)
        else:
            bits.difference_update(several)
        at = match.end()
    return frozenset(bits)


def _number(text: bytes) -> int:
    return int(text, 16 if text[:2].lower() == b"0x" else 8 if text[:1] == b"0" else 10)


@frozen
class ApCard:
    """An adapter and those of its domains that the host has; `hwtype` is its generation, 14 for a CEX8."""

    adapter: int
    domains: frozenset[int] = frozenset()
    hwtype: int = CEX8


@frozen
class ApIdentity:
    """What a host's AP bus is. The largest ids are 63 and 15, or what the machine says (QCI), up to 255.

    `apmask` and `aqmask` are what was written to the files of that name: a mask, or changes to all ones such as
    `-5,-6`. A queue is reserved for the host where its adapter is in the one and its domain in the other.
    """

    max_adapter_id: int = 63
    max_domain_id: int = 15
    apmask: str = "+0-255"
    aqmask: str = "+0-255"
    cards: tuple[ApCard, ...] = ()

    def masks(self) -> dict[MaskName, frozenset[int]]:
        """Both, parsed. Raises KernelError EINVAL."""
        return {
            "apmask": parse_mask(self.apmask.encode(), EVERYTHING),
            "aqmask": parse_mask(self.aqmask.encode(), EVERYTHING),
        }

    def mistakes(self) -> list[str]:
        """What is wrong with it, a line each."""
        limits = {"max_adapter_id": self.max_adapter_id, "max_domain_id": self.max_domain_id}
        wrong = [f"{name} {one} is not in 0 to {BITS - 1}" for name, one in limits.items() if not 0 <= one < BITS]
        for name, text in (("apmask", self.apmask), ("aqmask", self.aqmask)):
            try:
                parse_mask(text.encode(), EVERYTHING)
            except KernelError:
                how = "up to 64 hex digits, bit 0 leftmost, or changes to all ones such as -5,-0x10"
                wrong.append(f'{name} "{escape(text)}" is not a mask: {how}')
        known: set[int] = set()
        for card in self.cards:
            wrong += [f"adapter {card.adapter:#x} is there twice"] if card.adapter in known else []
            wrong += self.card_mistakes(card)
            known.add(card.adapter)
        return wrong

    def card_mistakes(self, card: ApCard) -> list[str]:
        """What is wrong with one card, a line each."""
        wrong = []
        if not 0 <= card.adapter <= self.max_adapter_id:
            wrong.append(f"adapter {card.adapter:#x} is not in 0x0 to {self.max_adapter_id:#x}")
        beyond = sorted(one for one in card.domains if not 0 <= one <= self.max_domain_id)
        return wrong + [f"domain {one:#x} is not in 0x0 to {self.max_domain_id:#x}" for one in beyond]
