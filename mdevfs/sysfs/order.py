"""The order in which a directory lists its names (fs/kernfs/dir.c, kernfs_name_hash)."""

from __future__ import annotations

from functools import lru_cache

_WORD = (1 << 64) - 1
_GOLDEN_RATIO = 0x61C8864680B583EB  # include/linux/hash.h, GOLDEN_RATIO_64
_INT_MAX = 0x7FFFFFFF


@lru_cache(maxsize=8192)
def name_hash(name: str) -> int:
    """A name's position in its directory, 2 to 2^31 - 2, as a 64-bit kernel computes it."""
    value = 0
    for byte in name.encode("utf-8", "surrogateescape"):
        value = (value + (byte << 4) + (byte >> 4)) * 11 & _WORD  # include/linux/stringhash.h
    value = (value * _GOLDEN_RATIO & _WORD) >> 32 & _INT_MAX
    return min(value + 2 if value < 2 else value, _INT_MAX - 1)
