"""The handshake from outside, by paths alone, on any sysfs-like tree: emulated or real.

    answer = check(Path("/sys/bus/mdev/devices/<uuid>"), Path("/mnt/other/.../mdev_supported_types/mtty-1"))
    answer.compatible, answer.reasons

`places` says what a path is, `handshake` reads and writes the attributes, `rules` applies the caller's rules,
`answer` holds what came out. Imports `mdevfs.errors` only, so that anybody's tool can use it.
"""

from mdevfs.client.answer import Answer, Reason, Side
from mdevfs.client.places import Kind, Place, identify
from mdevfs.client.rules import check
from mdevfs.client.text import SourceString

__all__ = ["Answer", "Kind", "Place", "Reason", "Side", "SourceString", "check", "identify"]
