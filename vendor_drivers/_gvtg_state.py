"""What a GVT-g vGPU holds for its guest, as far as it is kept here: its fences, its graphics memory's map, its engines.

How much of it there is, its resources say, so that state of a vGPU of other resources cannot load.
"""

from __future__ import annotations

from mdevfs.vendor import U16, U32, U64, Bytes, Struct, View, VMState
from vendor_drivers._gvtg import Resources

ENGINES = 4  # render, copy, video and video enhancement


def _takes(view: View) -> Resources:
    return Resources.parse(str(view.values["resources"]))


def _fences(view: View) -> int:
    return _takes(view).fence


def _low(view: View) -> int:
    return _takes(view).low_gm_size


def _high(view: View) -> int:
    return _takes(view).high_gm_size


ENGINE = VMState(
    "gvt-g-engine",
    fields=[
        U32("start", doc="where the ring is in graphics memory"),
        U32("control", doc="length of the ring, and whether it runs"),
        U32("head"),
        U32("tail"),
        U64("context", doc="descriptor of the context that runs"),
    ],
)
STATE = VMState(
    "gvt-g",
    fields=[
        Bytes("config", 256, doc="PCI configuration space"),
        U64("fences", num=_fences, doc="where each fence begins and ends, and its tiling"),
        U64("low_gm", num=_low, doc="for each MB of mappable graphics memory, the guest's page behind it"),
        U64("high_gm", num=_high, doc="the same, of the memory that the CPU cannot reach"),
        Struct("engines", of=ENGINE, num=ENGINES),
        U32("surface", doc="what the display shows, in graphics memory"),
        U16("width"),
        U16("height"),
    ],
)
