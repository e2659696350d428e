"""What GVT-g's vGPUs take of their GPU, the string that they say, and the pages of its codes."""

from __future__ import annotations

import re

from attrs import frozen

from mdevfs.vendor import Page, Reason

VENDOR = 0x8086
SERIES = "migration_version v5 (April 2020), patch 3/4"


SHARED = ("low_gm_size", "high_gm_size", "fence")
NAMES = (*SHARED, "resolution")  # as a type's description has them


@frozen
class Resources:
    """What a vGPU takes of its GPU: graphics memory in MB, fences; and the largest resolution that it shows."""

    low_gm_size: int
    high_gm_size: int
    fence: int
    resolution: str = ""

    @classmethod
    def parse(cls, text: str) -> Resources:
        """What `text` says."""
        low, high, fence, resolution = (part.partition(":")[2] for part in text.split("/"))
        return cls(int(low), int(high), int(fence), resolution)

    @property
    def text(self) -> str:
        """`low_gm_size:256/high_gm_size:1024/fence:4/resolution:1920x1200`, the value of the migration parameter."""
        return "/".join(f"{name}:{getattr(self, name)}" for name in NAMES)

    def shares(self, left: Resources) -> int:
        """How many of these fit into what is left."""
        low, high = left.low_gm_size // self.low_gm_size, left.high_gm_size // self.high_gm_size
        return min(low, high, left.fence // self.fence)

    def times(self, units: int) -> Resources:
        """Of `units` aggregated into one vGPU: the resolution does not grow."""
        return Resources(self.low_gm_size * units, self.high_gm_size * units, self.fence * units, self.resolution)

    def less(self, other: Resources) -> Resources:
        """What is left without `other`."""
        return Resources(*(getattr(self, name) - getattr(other, name) for name in SHARED))


HOST = Resources(low_gm_size=128, high_gm_size=384, fence=4)  # what the host keeps (gvt/gvt.h)
TYPES = {  # vgpu.c, by suffix; the order in which they are listed
    8: Resources(64, 384, 4, "1024x768"),
    4: Resources(128, 512, 4, "1920x1200"),
    2: Resources(256, 1024, 4, "1920x1200"),
    1: Resources(512, 2048, 4, "1920x1200"),
}
# The series' string, and ours for a vGPU that is not one unit of a type as the kernel has it: it says what it takes.
_SAYS = re.compile(
    r"(?P<hardware>[0-9a-f]{4}-[0-9a-f]{4})-(?P<type>[^-,]+-[^,]+?)"
    r"(?:,aggregator=(?P<units>[1-9][0-9]{0,2}),low_gm_size=(?P<low>[0-9]{1,9}),high_gm_size=(?P<high>[0-9]{1,9})"
    r",fence=(?P<fence>[0-9]{1,9}),resolution=(?P<resolution>[0-9]{1,5}x[0-9]{1,5}))?-(?P<version>[0-9a-f]{8})"
)


@frozen
class Said:
    """What one string says. `takes` is None for a type that the kernel does not have; `plain`: it is the series' form,
    one unit of a type with the kernel's resources."""

    hardware: str
    type: str
    version: str
    units: int
    takes: Resources | None
    plain: bool

    def write(self) -> str:
        """`8086-591d-i915-GVTg_V5_4-00000001`, or with `,aggregator=2,low_gm_size=256,...` after the type."""
        more = ""
        if not self.plain:
            more = f",aggregator={self.units}" + "".join(f",{name}={getattr(self.takes, name)}" for name in NAMES)
        return f"{self.hardware}-{self.type}{more}-{self.version}"


def said(device_id: int, type_id: str, version: int, unit: Resources, takes: Resources) -> Said:
    """What a vGPU says that takes `takes`; each unit of its type takes `unit` here."""
    units, plain = takes.low_gm_size // unit.low_gm_size, takes == of_type(type_id)
    return Said(f"{VENDOR:04x}-{device_id:04x}", type_id, f"{version:08x}", units, takes, plain)


def parse(text: str) -> Said | None:
    """None for a string of another form, numbers with leading zeros included."""
    match = _SAYS.fullmatch(text)
    if match is None:
        return None
    plain, takes = match["units"] is None, of_type(match["type"])
    if not plain:
        takes = Resources(int(match["low"]), int(match["high"]), int(match["fence"]), match["resolution"])
    found = Said(match["hardware"], match["type"], match["version"], int(match["units"] or 1), takes, plain)
    return found if found.write() == text else None


def of_type(type_id: str) -> Resources | None:
    """What the kernel gives to a vGPU of a type-id such as `i915-GVTg_V5_4`."""
    match = re.fullmatch(r"i915-GVTg_V[45]_([1248])", type_id)
    return TYPES[int(match[1])] if match is not None else None


def _generation(type_id: str) -> str:
    """V4: gen8, V5: gen9."""
    match = re.match(r"i915-GVTg_V([45])_", type_id)
    return str(int(match[1]) + 4) if match is not None else "none"


def differences(source: Said, target: Said) -> list[Reason]:
    """Why state of `source` does not load into `target`, in the series' order."""
    same_gpu, same_gvt = "choose a host with the same GPU", "run the same GVT-g on both hosts"
    pairs = [
        ("i915-hardware", "hardware", source.hardware, target.hardware, same_gpu),
        ("i915-software-version", "software_version", source.version, target.version, same_gvt),
    ]
    if (source.plain and target.plain) or source.takes is None:
        pairs.append(("i915-type", "type", source.type, target.type, "create a target of the source's type"))
    else:
        pairs.append(("i915-hardware", "generation", _generation(source.type), _generation(target.type), same_gpu))
        same = f"make or choose a target with resources={source.takes.text}"
        values = ((name, str(getattr(source.takes, name)), str(getattr(target.takes, name))) for name in NAMES)
        pairs += [("i915-resources", *value, same) for value in values]
    return [
        Reason(code, "must be equal", parameter, theirs, ours, mend=mend)
        for code, parameter, theirs, ours, mend in pairs
        if theirs != ours
    ]


PAGES = [
    Page(
        code="i915-format",
        title="not a GVT-g string",
        what="The string is not of the form that GVT-g writes: vendor id, device id, type and software version, "
        "joined by dashes. It may come from another driver, or be cut off.",
        example="hello: wanted something like 8086-591d-i915-GVTg_V5_4-00000001",
        side="source",
        mend="Write what the source's migration_version reads; choose a source that is a GVT-g vGPU.",
        source=f"{SERIES}, intel_gvt_verify_migration_version",
    ),
    Page(
        code="i915-hardware",
        title="another GPU",
        what="Vendor or device id of the two GPUs differ; GVT-g state is tied to the GPU it was saved on.",
        example="source 8086-591d, target 8086-1912",
        side="target",
        mend="Choose a host whose GPU has the source's PCI ids.",
        source=SERIES,
    ),
    Page(
        code="i915-software-version",
        title="another version of GVT-g",
        what="The device state's format belongs to one software version; GVT-g loads only its own.",
        example="source 00000001, target 00000002",
        side="both",
        mend="Bring both hosts to the same version of GVT-g.",
        source=SERIES,
    ),
    Page(
        code="i915-type",
        title="another vGPU type",
        what="Source and target vGPU have different types, so their memory and fences differ.",
        example="source i915-GVTg_V5_8, target i915-GVTg_V5_4",
        side="target",
        mend="Create the target with the source's type.",
        source=SERIES,
    ),
    Page(
        code="i915-resources",
        title="a vGPU of other resources",
        what="One of the vGPUs is aggregated of several units, or its host's units are not the kernel's. Then\n"
        "type-ids do not matter, but what a vGPU takes must be equal: low_gm_size and high_gm_size (in MB), fence,\n"
        "resolution.",
        example="fence: source 4 (GVTg_V5_2), target 8 (GVTg_V5_4, aggregator=2)",
        side="target",
        mend="Make the target with the source's migration/resources (create UUID,resources=VALUE), of any type whose\n"
        "migration_info.json allows it.",
        source="discussion of migration_version (2020): V5_2 x1 = V5_4 x2 = V5_8 x4; the form of the string is ours",
    ),
]
